"""Offline evaluation: how far is the predicted key-frame from the demonstrated one, on recorded episodes?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from agents.actions import rotation_error
from agents.agent import Agent
from demos.dataset import KeyframeDataset
from demos.transitions import Conventions

COLUMNS = ("transitions", "translation_cm_median", "translation_cm_p90", "rotation_deg_median", "rotation_deg_p90",
           "gripper_accuracy", "collision_accuracy")  # fmt: skip


def evaluate_offline(agent: Agent, dataset: KeyframeDataset) -> dict[str, dict[str, float]]:
    """Errors of every transition at its key-frames, by task and over all: see `COLUMNS` (cm, degrees, shares).

    Every phrasing of an episode's instruction counts as a transition of its own.
    """
    rows: list[tuple[str, float, float, bool, bool]] = []
    for index in range(len(dataset)):
        sample = dataset[index]
        actions, _ = agent.predict([sample] * len(sample.descriptions), sample.descriptions)
        for action in actions:
            rows.append(
                (
                    sample.task,
                    100 * float(np.linalg.norm(action.position - sample.position)),
                    float(np.degrees(rotation_error(action.quaternion, sample.quaternion))),
                    action.gripper_open == sample.gripper_open,
                    action.ignore_collisions == sample.ignore_collisions,
                )
            )
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
                    float(collision.mean()),
                ),
                strict=True,
            )
        )
    return table


def run_offline(agent: Agent, config: dict[str, Any], out: Path) -> dict[str, dict[str, float]]:
    """Evaluate on the episodes in config["data"], print the table, write it to `out`/results.json."""
    conventions = Conventions(
        horizon=agent.policy.config.horizon, **{**agent.meta["config"]["transitions"], "every": None}
    )
    dataset = KeyframeDataset.open(
        Path(config["data"]), agent.policy.config, conventions, config["tasks"], config["select"], cache=False
    )
    print(dataset.summary(), flush=True)
    table = evaluate_offline(agent, dataset)
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(json.dumps({"tasks": table, "data": config["data"]}, indent=1))
    print(f"{'task':30}{'n':>5}{'translation cm':>22}{'rotation °':>20}{'gripper':>9}{'collision':>10}")
    print(f"{'':35}{'median':>12}{'90 %':>10}{'median':>11}{'90 %':>9}")
    for task, row in table.items():
        print(
            f"{task:30}{row['transitions']:5.0f}{row['translation_cm_median']:12.2f}{row['translation_cm_p90']:10.2f}"
            f"{row['rotation_deg_median']:11.1f}{row['rotation_deg_p90']:9.1f}"
            f"{row['gripper_accuracy']:9.0%}{row['collision_accuracy']:10.0%}"
        )
    return table
