"""`manifield demo`: every job in a row with the laptop's defaults, each of which skips what is already there."""

from __future__ import annotations

import time
from pathlib import Path

from omegaconf import DictConfig

from agents import evaluation, training
from agents.report import page
from demos import collect
from manifield.configuration import compose
from manifield.progress import duration


def run(config: DictConfig) -> None:
    """Collect, train, evaluate three policies, write the report, print the table."""
    begin = time.monotonic()
    tasks = "tasks=[" + ",".join(config.tasks) + "]"
    where = [f"run={config.run}", f"workers={config.workers}", f"split={config.split}", tasks]
    recording = [f"data={config.data}", f"episodes={config.demonstrations}", f"workers={config.workers}"]
    learning = [f"data={config.data}", f"run={config.run}", f"steps={config.steps}", f"seed={config.seed}"]
    jobs = [
        ("collect", collect.run, [*recording, tasks]),
        ("train", training.run, [*learning, tasks, f"threads={config.workers}", "wandb=disabled"]),
        ("evaluate", evaluation.run, [*where, f"episodes={config.episodes}"]),
        ("evaluate", evaluation.run, [*where, f"episodes={config.baseline_episodes}", "policy=untrained"]),
        ("evaluate", evaluation.run, [*where, f"episodes={config.baseline_episodes}", "policy=random"]),
        ("report", page.run, [f"run={config.run}"]),
    ]
    commands = [" ".join(["manifield", verb, *words]) for verb, _, words in jobs]
    Path(config.run).mkdir(parents=True, exist_ok=True)
    (Path(config.run) / "commands.txt").write_text("\n".join(commands) + "\n")
    for number, ((verb, job, words), command) in enumerate(zip(jobs, commands, strict=True)):
        print(f"[{number + 1}/{len(jobs)} · {duration(time.monotonic() - begin)}] {command}", flush=True)
        job(compose(verb, words))
    print(f"\n{page.summary_table(Path(config.run))}\n")
    print(f"report: {(Path(config.run) / 'report.html').resolve()}")
    print(f"took {duration(time.monotonic() - begin)}")
