"""How fast demonstrations become training samples, on one core.

    python -m tests.benchmarks.benchmark_data           # ten episodes of the embedded simulator, recorded for this
    python -m tests.benchmarks.benchmark_data DATA      # ten episodes of a data set; fewer are read again

The baseline does as RLBench's loader: it decodes every picture of an episode, masks too, before the first sample.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import torch
from omegaconf import OmegaConf

from agents.config import AgentConfig
from agents.sampling import Sampler
from demos import collect
from demos.dataset import KeyframeDataset
from demos.memory import GIB, Memory
from demos.store import find_episodes, open_episode
from demos.transitions import Conventions
from manifield.configuration import compose

EPISODES, DRAWS, BATCH = 10, 24, 8


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = Path(sys.argv[1]) if len(sys.argv) > 1 else folder / "recorded"
        if len(sys.argv) == 1:
            collect.run(compose("collect", [f"data={source}", "tasks=[open_drawer]", f"episodes={EPISODES}"]))
        found = find_episodes(source)
        found = [path for path in found if path.parents[2] == found[0].parents[2]]
        data = folder / "data" / found[0].parents[2].name / "all_variations" / "episodes"
        data.mkdir(parents=True)
        for number in range(EPISODES):
            (data / f"episode{number}").symlink_to(found[number % len(found)].resolve())
        measure(folder / "data")


def measure(data: Path) -> None:
    """Print what opening and drawing cost."""
    cameras = [c for c in open_episode(find_episodes(data)[0]).cameras if c != "overhead"]
    for preset in ("laptop", "gnfactor"):
        words = [f"agent={preset}", f"data={data}", f"agent.cameras=[{','.join(cameras)}]"]
        settings = OmegaConf.to_container(compose("train", words))
        assert isinstance(settings, dict)
        agent, augmentation = AgentConfig.from_mapping(settings["agent"]), settings["augmentation"]
        begin = time.process_time()
        dataset = KeyframeDataset.open(data, agent, Conventions(horizon=agent.horizon))
        opened = time.process_time() - begin
        kept = KeyframeDataset.open(data, agent, Conventions(horizon=agent.horizon), memory=Memory(8 * GIB))
        for number in range(len(kept)):
            kept[number]
        rates = {}
        for kind, drawn in (("decoded each time", dataset), ("kept in memory", kept)):
            sampler = Sampler(drawn, 0, BATCH, 1.0)
            begin = time.process_time()
            for step in range(DRAWS):
                sampler.draw(step, augmentation, agent)
            rates[kind] = DRAWS * BATCH / (time.process_time() - begin)
        begin = time.process_time()
        for path in find_episodes(data):
            episode = open_episode(path)
            for frame in range(len(episode)):
                episode.observation(frame, cameras)
        everything = time.process_time() - begin
        print(f"{preset}: {len(dataset.episodes)} episodes, {len(dataset)} transitions, {len(cameras)} cameras")
        print(f"  ready after    {opened:6.2f} cpu s    every picture decoded first {everything:6.1f} cpu s", end="")
        print(f" ({everything / opened:.0f} x)")
        for kind, rate in rates.items():
            print(f"  {kind:18} {rate:6.0f} augmented samples a cpu second", flush=True)


if __name__ == "__main__":
    main()
