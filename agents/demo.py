"""`manifield demo`: every job in a row with the laptop's defaults, each of which skips what is already there."""

from __future__ import annotations

import time
from pathlib import Path

from omegaconf import DictConfig

from demos.features import REDUCTION, cache_folder
from manifield.command import perform, quoted, remember
from manifield.progress import duration


def run(config: DictConfig) -> None:
    """Collect, let a teacher look, train, evaluate three policies and the field, write the report."""
    begin = time.monotonic()
    tasks = "tasks=[" + ",".join(config.tasks) + "]"
    where = [f"run={config.run}", f"workers={config.workers}", f"split={config.split}", tasks]
    recording = [f"data={config.data}", f"episodes={config.demonstrations}", f"workers={config.workers}"]
    learning = [f"data={config.data}", f"run={config.run}", f"steps={config.steps}", f"seed={config.seed}"]
    learning.append(f"agent.horizon={config.horizon}")
    # As many processes as share the batch of 8 evenly: a tenth faster than as many threads of one.
    cores = [f"processes={max(n for n in (1, 2, 4, 8) if n <= config.workers)}", "threads=1", "device=cpu"]
    views = config.field_views
    # Scenes of their own, to judge the field's pictures on: other seeds than those trained on.
    held = [f"data={config.held}", f"episodes={config.held_episodes}", f"workers={config.workers}", "seed=1"]
    teacher = ["teacher=efficientnet", f"teacher.side={config.feature_side}", "device=cpu"]
    learned = cache_folder(config.data, "efficientnet") / REDUCTION
    with_field = [
        ("collect", [*held, tasks, f"field_views.count={views}"]),
        ("features", [f"data={config.data}", *teacher]),
        ("features", [f"data={config.held}", *teacher, f"reduction={learned}"]),
    ]
    jobs = [
        ("collect", [*recording, tasks, f"field_views.count={views}"]),
        *(with_field if views else []),
        ("train", [*learning, tasks, *cores, "wandb=disabled", *(["field=laptop"] * bool(views))]),
        ("evaluate", [*where, f"episodes={config.episodes}"]),
        ("evaluate", [*where, f"episodes={config.baseline_episodes}", "policy=untrained"]),
        ("evaluate", [*where, f"episodes={config.baseline_episodes}", "policy=random"]),
        *([("evaluate", [f"run={config.run}", f"data={config.held}", "views=1"])] if views else []),
        ("report", [f"run={config.run}"]),
    ]
    for number, (verb, words) in enumerate(jobs):
        elapsed = duration(time.monotonic() - begin)
        print(f"[{number + 1}/{len(jobs)} · {elapsed}] {quoted(verb, words)}", flush=True)
        perform(verb, words)
        if verb in ("collect", "features"):  # belong to no run by themselves, but to this one's story
            Path(config.run).mkdir(parents=True, exist_ok=True)
            remember(Path(config.run), quoted(verb, words))
    print(f"took {duration(time.monotonic() - begin)}")
