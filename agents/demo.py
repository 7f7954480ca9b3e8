"""`manifield demo`: every job in a row with the laptop's defaults, each of which skips what is already there."""

from __future__ import annotations

import time
from pathlib import Path

from omegaconf import DictConfig

from manifield.command import perform, quoted, remember
from manifield.progress import duration


def run(config: DictConfig) -> None:
    """Collect, train, evaluate three policies, write the report."""
    begin = time.monotonic()
    tasks = "tasks=[" + ",".join(config.tasks) + "]"
    where = [f"run={config.run}", f"workers={config.workers}", f"split={config.split}", tasks]
    recording = [f"data={config.data}", f"episodes={config.demonstrations}", f"workers={config.workers}"]
    learning = [f"data={config.data}", f"run={config.run}", f"steps={config.steps}", f"seed={config.seed}"]
    jobs = [
        ("collect", [*recording, tasks]),
        ("train", [*learning, tasks, f"threads={config.workers}", "wandb=disabled"]),
        ("evaluate", [*where, f"episodes={config.episodes}"]),
        ("evaluate", [*where, f"episodes={config.baseline_episodes}", "policy=untrained"]),
        ("evaluate", [*where, f"episodes={config.baseline_episodes}", "policy=random"]),
        ("report", [f"run={config.run}"]),
    ]
    for number, (verb, words) in enumerate(jobs):
        elapsed = duration(time.monotonic() - begin)
        print(f"[{number + 1}/{len(jobs)} · {elapsed}] {quoted(verb, words)}", flush=True)
        perform(verb, words)
        if number == 0:  # belongs to no run by itself, but to this one's story
            Path(config.run).mkdir(parents=True, exist_ok=True)
            remember(Path(config.run), quoted(verb, words))
    print(f"took {duration(time.monotonic() - begin)}")
