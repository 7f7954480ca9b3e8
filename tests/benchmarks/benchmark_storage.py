"""What a data set costs on disk, and what other ways of compressing its pictures would.

    python tests/benchmarks/benchmark_storage.py           # pictures of the embedded simulator, drawn for this
    python tests/benchmarks/benchmark_storage.py DATA      # those of a data set, RLBench's or ours

Times depend on the machine and on who else uses it; the ratios to zlib's usual level 6, from the same run, hardly.
"""

from __future__ import annotations

import io
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image

from demos import collect, images
from demos.manifest import hash_folder
from demos.store import find_episodes
from manifield.configuration import compose

TASKS = ("open_drawer", "slide_block_to_color_target", "push_buttons")
PICTURES = 150  # of each kind
STRATEGIES = {"default": 0, "filtered": 1, "Huffman only": 2, "runs": 3}
WAYS = [
    (6, "default"),
    (1, "default"),
    (4, "default"),
    (9, "default"),
    (4, "filtered"),
    (1, "runs"),
    (1, "Huffman only"),
]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        data = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(folder)
        if len(sys.argv) == 1:
            record(data)
        episodes = find_episodes(data)
        for kind, pattern in (
            ("colour", "*_rgb"),
            ("depth, 24 bits", "*_depth"),
            ("depth, 16 bits", "nerf_data/*/depths"),
        ):
            paths = sorted(path for episode in episodes for path in episode.glob(f"{pattern}/*.png"))
            if paths:
                compare(kind, [paths[i] for i in np.random.default_rng(0).permutation(len(paths))[:PICTURES]])
        tell(episodes)


def record(data: Path) -> None:
    """Two episodes each of three tasks: four cameras, twenty field views at the key-frames."""
    tasks = f"tasks=[{','.join(TASKS)}]"
    collect.run(compose("collect", [f"data={data}", tasks, "episodes=2", "field_views.count=20"]))


def compare(kind: str, paths: list[Path]) -> None:
    """One line for every way to compress: bytes and milliseconds a picture, and their ratios to the first way's."""
    pictures = [Image.fromarray(images.read_rgb(path)) for path in paths]
    print(f"\n{kind}: {len(pictures)} pictures of {pictures[0].height}x{pictures[0].width}")
    first: tuple[float, float] | None = None
    for level, strategy in WAYS:
        begin, size = time.process_time(), 0
        for picture in pictures:
            buffer = io.BytesIO()
            picture.save(buffer, "PNG", compress_level=level, compress_type=STRATEGIES[strategy])
            size += buffer.tell()
        measured = size / len(pictures), 1e3 * (time.process_time() - begin) / len(pictures)
        first = first or measured
        used = {"compress_level": level, "compress_type": STRATEGIES[strategy]} == images.COMPRESSION
        print(
            f"  level {level} {strategy:13} {measured[0]:8.0f} B ({measured[0] / first[0]:4.2f})"
            f" {measured[1]:6.2f} ms ({measured[1] / first[1]:4.2f}){'  <- used' if used else ''}"
        )


def tell(episodes: list[Path]) -> None:
    """What the episodes consist of, and how long their hashes take."""
    sizes: dict[str, list[int]] = defaultdict(list)
    for episode in episodes:
        for path in episode.rglob("*.*"):
            parts = path.relative_to(episode).parts
            sizes[f"field {parts[2]}" if len(parts) == 4 else parts[0].rpartition("_")[2]].append(path.stat().st_size)
    total = sum(map(sum, sizes.values()))
    each = total / len(episodes)
    print(f"\n{len(episodes)} episodes: {each / 1e6:.2f} MB each, {200 * each / 1e9:.2f} GB for 200")
    for name, values in sorted(sizes.items()):
        count = len(values) / len(episodes)
        print(f"  {name:20} {count:7.1f} files, {np.mean(values):8.0f} B each, {sum(values) / total:5.1%}")
    begin = time.perf_counter()
    for episode in episodes:
        hash_folder(episode)
    print(f"sha256 of all files: {1e3 * (time.perf_counter() - begin) / len(episodes):.0f} ms an episode")


if __name__ == "__main__":
    main()
