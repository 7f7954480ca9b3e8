"""Reads what a run left behind, for its report. Parts that are absent are empty; parts that are broken are named."""

from __future__ import annotations

import csv
import json
import math
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agents.statistics import wilson_interval
from manifield.errors import InputError

# What a trained policy is compared with, in the order in which it is shown after it: the ceiling, then the floor.
COMPARED = ("expert", "untrained", "random")


@dataclass
class TaskResult:
    """Closed-loop results of one task. interval: 95 % of the success rate. first_choice: how often the first key-frame
    went to what the instruction names, (right, of), or None where there is nothing to choose. chance: of that."""

    episodes: int
    successes: int
    interval: tuple[float, float]
    first_choice: tuple[int, int] | None = None
    chance: float | None = None
    failures: dict[str, int] = field(default_factory=dict)
    seconds_per_action: float | None = None

    @property
    def rate(self) -> float:
        return self.successes / self.episodes if self.episodes else 0.0


@dataclass
class Evaluation:
    """RUN/evaluation/NAME. label: what the report calls it, the policy's kind where that is unique."""

    name: str
    folder: Path
    policy: str
    split: str
    seed: int | None
    seconds: float | None
    tasks: dict[str, TaskResult]
    episodes: list[dict[str, Any]]
    label: str = ""

    @property
    def mean(self) -> float:
        return sum(task.rate for task in self.tasks.values()) / len(self.tasks) if self.tasks else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the mean as if all episodes were of one task: a little wider than need be."""
        episodes = sum(task.episodes for task in self.tasks.values())
        return wilson_interval(min(episodes, round(self.mean * episodes)), episodes)


@dataclass
class RunFolder:
    """All of RUN. metrics: column → its (steps, values). Texts are "" and mappings empty where there is no file."""

    folder: Path
    config: str
    commands: str
    versions: dict[str, Any]
    metrics: dict[str, tuple[list[float], list[float]]]
    evaluations: list[Evaluation]
    offline: dict[str, Any]

    @property
    def main(self) -> Evaluation | None:
        """The evaluation that the headline tells of: the first of a trained policy, see `read_run` for the order."""
        return next((e for e in self.evaluations if e.policy not in COMPARED), None)

    @property
    def compared(self) -> list[Evaluation]:
        """The first evaluation of each policy of `COMPARED`, as far as there is one."""
        firsts = (next((e for e in self.evaluations if e.policy == policy), None) for policy in COMPARED)
        return [evaluation for evaluation in firsts if evaluation]


def read_run(folder: str | Path) -> RunFolder:
    """Read RUN: a trained policy's evaluations before those it is compared with, unseen scenes before others, the usual
    evaluation (which is named as the policy) before those with a name of their own, then by name.

    Raises:
        InputError: the folder does not exist, was neither trained in nor evaluated, or a file in it is broken.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such run folder; give run=FOLDER as it was given to train")
    evaluations = [_read_evaluation(path) for path in sorted(folder.glob("evaluation/*/results.json"))]
    order = {policy: rank for rank, policy in enumerate(COMPARED, 1)}
    evaluations.sort(key=lambda e: (order.get(e.policy, 0), e.split != "test", e.name != e.policy, e.name))
    policies = [evaluation.policy for evaluation in evaluations]
    for evaluation in evaluations:
        evaluation.label = evaluation.policy if policies.count(evaluation.policy) == 1 else evaluation.name
    metrics = _read_metrics(folder / "metrics.csv")
    offline = _read_json(folder / "offline" / "results.json")
    if not (metrics or evaluations or offline):
        command = f"manifield train {shlex.quote(f'run={folder}')}"
        raise InputError(f"{folder}: nothing to report yet, neither trained nor evaluated: {command}")
    return RunFolder(
        folder=folder,
        config=_read_text(folder / "config.yaml"),
        commands=_read_text(folder / "commands.txt"),
        versions=_read_json(folder / "versions.json"),
        metrics=metrics,
        evaluations=evaluations,
        offline=offline,
    )


def _read_evaluation(path: Path) -> Evaluation:
    evaluation = to_evaluation(_read_json(path), path)
    evaluation.episodes = _read_lines(path.parent / "episodes.jsonl")
    return evaluation


def to_evaluation(found: dict[str, Any], path: Path) -> Evaluation:
    """What a results.json holds, without its episodes. path: of that file.

    Raises:
        InputError: it is not an evaluation's.
    """
    try:
        tasks = {str(name): _task(task) for name, task in found["tasks"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"has no field {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(f"{path}: not the result of an evaluation ({what}); run evaluate again") from error
    return Evaluation(
        name=path.parent.name,
        folder=path.parent,
        policy=str(found.get("policy", path.parent.name)),
        split=str(found.get("split", "")),
        seed=found.get("seed"),
        seconds=found.get("seconds"),
        tasks=tasks,
        episodes=[],
    )


def _task(found: dict[str, Any]) -> TaskResult:
    episodes, successes = int(found["episodes"]), int(found["successes"])
    low, high = found.get("interval") or wilson_interval(successes, episodes)
    first = found.get("first_choice") or {}
    chosen = bool(first.get("of")) and first.get("chance") != 1  # chance 1: one thing, nothing to choose
    return TaskResult(
        episodes=episodes,
        successes=successes,
        interval=(float(low), float(high)),
        first_choice=(int(first["correct"]), int(first["of"])) if chosen else None,
        chance=first.get("chance") if chosen else None,
        failures={str(reason): int(count) for reason, count in (found.get("failures") or {}).items()},
        seconds_per_action=found.get("seconds_per_action"),
    )


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(_read_text(path))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: not JSON ({error}); remove it and run the step that writes it again") from error
    if not isinstance(found, dict):
        raise InputError(f"{path}: expected a JSON object, found {type(found).__name__}")
    return found


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """One JSON object a line; a last line that was cut off is left out, the run may still be going on."""
    lines = _read_text(path).splitlines()
    found = []
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line) if line.strip() else None
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise InputError(f"{path}, line {number}: not JSON ({error}); remove the line") from error
        if isinstance(entry, dict):
            found.append(entry)
    return found


def _read_metrics(path: Path) -> dict[str, tuple[list[float], list[float]]]:
    """Column → (steps, values), without empty, unreadable and infinite entries. Later rows of a step replace earlier
    ones, as after a restart from a checkpoint."""
    if not path.is_file():
        return {}
    columns: dict[str, dict[float, float]] = {}
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        reader = csv.DictReader(file)
        if "step" not in (reader.fieldnames or []):
            raise InputError(f"{path}: has no column 'step'; it is not the record of a training")
        for row in reader:
            step = _finite(row.get("step"))
            if step is None:
                continue
            for name, text in row.items():
                value = _finite(text) if name and name != "step" else None
                if value is not None:
                    columns.setdefault(name, {})[step] = value
    return {name: ([s for s in sorted(found)], [found[s] for s in sorted(found)]) for name, found in columns.items()}


def _finite(text: Any) -> float | None:
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None
