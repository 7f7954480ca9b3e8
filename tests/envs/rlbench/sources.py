"""Fetch the sources that tests read RLBench, PyRep and GNFactor from: `python tests/envs/rlbench/sources.py FOLDER`.

At the commits of `docker/requirements-rlbench*.txt`. What is there already is kept.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

REQUIREMENTS = Path(__file__).resolve().parents[3] / "docker"
GNFACTOR = ("https://github.com/YanjieZe/GNFactor.git", "bc9cbdda6dcdd88fd762baf6749752b42e03577a")


def repositories() -> dict[str, tuple[str, str]]:
    """Address and commit by the name of the folder."""
    found = {"GNFactor": GNFACTOR}
    for file, suffix in (("requirements-rlbench.txt", "-peract"), ("requirements-rlbench-current.txt", "")):
        for url, name, commit in re.findall(
            r"^[^#\n]*git\+(https://\S+/(\w+)\.git)@([0-9a-f]{40})", (REQUIREMENTS / file).read_text(), re.MULTILINE
        ):
            found[name if name == "PyRep" else name + suffix] = (url, commit)
    return found


def fetch(folder: Path, url: str, commit: str) -> None:
    """One commit of a repository, without its history."""
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    for words in (
        ["git", "init", "--quiet", str(unfinished)],
        ["git", "-C", str(unfinished), "fetch", "--quiet", "--depth", "1", url, commit],
        ["git", "-C", str(unfinished), "checkout", "--quiet", "FETCH_HEAD"],
    ):
        subprocess.run(words, check=True)
    unfinished.rename(folder)


if __name__ == "__main__":
    root = Path(sys.argv[1])
    root.mkdir(exist_ok=True)
    for name, (url, commit) in repositories().items():
        if not (root / name).is_dir():
            print(f"fetching {url} at {commit[:10]} into {root / name}")
            fetch(root / name, url, commit)
