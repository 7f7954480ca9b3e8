"""Offline evaluation: how far is the predicted key-frame from the demonstrated one, on recorded episodes?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from agents.actions import rotation_error
from agents.agent import Agent
from agents.rendering import SceneRenderer
from agents.report.summary import align
from agents.report.views import view_rows
from agents.view_evaluation import evaluate_views, view_targets
from demos.dataset import KeyframeDataset
from demos.transitions import Conventions
from manifield.errors import InputError
from manifield.files import only_writer, write_whole
from manifield.progress import Progress

COLUMNS = ("transitions", "translation_cm_median", "translation_cm_p90", "rotation_deg_median", "rotation_deg_p90",
           "gripper_accuracy", "collision_accuracy")  # fmt: skip


def evaluate_offline(agent: Agent, dataset: KeyframeDataset) -> dict[str, dict[str, float | None]]:
    """Errors of every transition at its key-frames, by task and over all: see `COLUMNS` (cm, degrees, shares).

    Every phrasing of an episode's instruction counts as a transition of its own. Collision accuracy is None where the
    data has no collision flags.
    """
    rows: list[tuple[str, float, float, bool, float]] = []
    progress = Progress("evaluate", len(dataset), "transitions")
    for index in range(len(dataset)):
        sample = dataset[index]
        actions, _ = agent.predict([sample] * len(sample.descriptions), sample.descriptions)
        progress.advance(1)
        for action in actions:
            rows.append(
                (
                    sample.task,
                    100 * float(np.linalg.norm(action.position - sample.position)),
                    float(np.degrees(rotation_error(action.quaternion, sample.quaternion))),
                    action.gripper_open == sample.gripper_open,
                    np.nan
                    if sample.ignore_collisions is None
                    else action.ignore_collisions == sample.ignore_collisions,
                )
            )
    progress.close()
    table = {}
    for task in [*dataset.tasks, "all"]:
        chosen = [row[1:] for row in rows if task in ("all", row[0])]
        centimetres, degrees, gripper, collision = (np.array(column, float) for column in zip(*chosen, strict=True))
        table[task] = dict(
            zip(
                COLUMNS,
                (
                    len(chosen),
                    float(np.median(centimetres)),
                    float(np.percentile(centimetres, 90)),
                    float(np.median(degrees)),
                    float(np.percentile(degrees, 90)),
                    float(gripper.mean()),
                    float(np.nanmean(collision)) if np.isfinite(collision).any() else None,
                ),
                strict=True,
            )
        )
    return table


def run_offline(
    agent: Agent, config: dict[str, Any], out: Path, renderer: SceneRenderer | None = None
) -> dict[str, dict[str, float | None]]:
    """Evaluate on the episodes in config["data"], print the table, write it to `out`/results.json.

    Args:
        renderer: of the agent's field, which is measured too, on the pictures that the agent is not given.
    """
    conventions = Conventions(
        horizon=agent.policy.config.horizon, **{**agent.meta["config"]["transitions"], "every": None}
    )
    targets = None if renderer is None or not config["views"] else view_targets(renderer, config)
    dataset = KeyframeDataset.open(
        Path(config["data"]), agent.sight, conventions, config["tasks"], config["select"], targets=targets
    )
    print(dataset.summary(), flush=True)
    episodes = [f"{episode.task}/{episode.path.name}" for episode in dataset.episodes.values()]
    if Path(config["data"]).resolve() == Path(agent.meta["config"]["data"]).resolve():
        seen = [name for name in episodes if name in agent.meta["config"]["episodes"]]
        if seen:
            print(f"warning: the agent was trained on {len(seen)} of these {len(episodes)} episodes: {_few(seen)}")
    with only_writer(out, "evaluate", "name"):
        _refuse_others(out / "results.json", config["data"], episodes)
        table = evaluate_offline(agent, dataset)
        facts: dict[str, Any] = {"tasks": table, "data": config["data"], "episodes": episodes}
        if targets is not None and renderer is not None:
            facts["views"] = evaluate_views(renderer, dataset, config["views"], out)
        write_whole(out / "results.json", json.dumps(facts, indent=1))
    print(f"{len(episodes)} episodes: {_few(episodes)}; n: predictions, one per key-frame and phrasing")
    print(f"{'task':30}{'n':>5}{'translation cm':>22}{'rotation °':>20}{'gripper':>9}{'collision':>10}")
    print(f"{'':35}{'median':>12}{'90 %':>10}{'median':>11}{'90 %':>9}")
    for task, row in table.items():
        print(
            f"{task:30}{row['transitions']:5.0f}{row['translation_cm_median']:12.2f}{row['translation_cm_p90']:10.2f}"
            f"{row['rotation_deg_median']:11.1f}{row['rotation_deg_p90']:9.1f}"
            f"{row['gripper_accuracy']:9.0%}"
            + (f"{'–':>10}" if row["collision_accuracy"] is None else f"{row['collision_accuracy']:10.0%}")
        )
    if "views" in facts:
        print(f"pictures never given to the agent, rendered by its field\n{align(view_rows(facts['views']['tasks']))}")
    return table


def _refuse_others(file: Path, data: str, episodes: list[str]) -> None:
    """Raises InputError if `file` holds the results of other episodes."""
    try:
        known = json.loads(file.read_text())
    except (OSError, ValueError):
        return
    if (known.get("data"), known.get("episodes")) != (data, episodes):
        there = f"{known.get('data')} ({_few(known.get('episodes') or [])})"
        raise InputError(f"{file.parent} holds results on {there}: give this evaluation another name=")


def _few(names: list[str]) -> str:
    """The first names of a list that may be long."""
    return ", ".join(names[:6]) + (", …" if len(names) > 6 else "")
