"""Runs side by side on the same scenes: `manifield compare`.

Every scene was played by all of them, so that a paired test says more than the intervals: scenes that both solve, or
neither does, tell nothing about which is better (McNemar's exact test).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from omegaconf import DictConfig
from scipy.stats import binomtest

from agents.report.summary import align, interval, percent
from agents.statistics import wilson_interval
from manifield.errors import InputError

SAME = ("split", "seed", "env", "max_actions", "variations", "scenes")
"""What of evaluations must agree for their episodes to be the same scenes under the same rules."""


@dataclass(frozen=True)
class Played:
    """An evaluation's episodes: (task, index) → solved. identity: of the scenes and rules."""

    run: Path
    solved: dict[tuple[str, int], bool]
    identity: dict[str, Any]


def run(config: DictConfig) -> None:
    """Print the table that `configs/compare.yaml` asks for."""
    runs = [Path(r) for r in ([config.runs] if isinstance(config.runs, str) else config.runs)]
    if len(runs) < 2:
        raise InputError("give at least two runs to compare: manifield compare RUN RUN …")
    if len(runs) > len(ascii_uppercase):
        raise InputError(f"{len(runs)} runs do not fit into one table: compare at most {len(ascii_uppercase)} at once")
    print(compare([read_played(path, config.name) for path in runs]))


def read_played(run: Path, name: str) -> Played:
    """The episodes of RUN/evaluation/NAME.

    Raises:
        InputError: there are none, or they cannot be read.
    """
    folder = run / "evaluation" / name
    try:
        identity = json.loads((folder / "identity.json").read_text())
        lines = (folder / "episodes.jsonl").read_text().splitlines()
        episodes = [json.loads(line) for line in lines]
        solved = {(e["task"], int(e["index"])): bool(e["success"]) for e in episodes}
    except FileNotFoundError:
        there = ", ".join(sorted(p.parent.name for p in run.glob("evaluation/*/episodes.jsonl")))
        hint = f"it has {there}: name=…" if there else f"manifield evaluate run={run}"
        raise InputError(f"{run} has no evaluation '{name}'; {hint}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder}: cannot be read ({error}); evaluate again, or wait until it is done") from error
    return Played(run, solved, identity)


def compare(played: list[Played]) -> str:
    """A row a task and one over all: every run's success, and of every run but the first, how it differs from it.

    Raises:
        InputError: they were not played on the same scenes.
    """
    first = played[0]
    for other in played[1:]:
        for key in SAME:
            if other.identity.get(key) != first.identity.get(key):
                raise InputError(
                    f"{other.run} was evaluated with {key}={other.identity.get(key)}, {first.run} with "
                    f"{first.identity.get(key)}: compare evaluations of the same scenes, name=…"
                )
    common = sorted(set.intersection(*(set(p.solved) for p in played)))
    if not common:
        raise InputError(f"{played[1].run} and {first.run} have no episode in common")
    tasks = list(dict.fromkeys(task for task, _ in common))
    names = list(ascii_uppercase[: len(played)])
    header = ["task", *names, *(f"{n} − A, won : lost, p" for n in names[1:])]
    rows = [header]
    for task in [*tasks, *(["all"] if len(tasks) > 1 else [])]:
        scenes = [scene for scene in common if task in ("all", scene[0])]
        rows.append([task, *(_rate(p, scenes) for p in played), *(_difference(p, first, scenes) for p in played[1:])])
    legend = [f"{name}  {p.run}" for name, p in zip(names, played, strict=True)]
    left_out = max(len(p.solved) for p in played) - len(common)
    note = f"\n{left_out} episodes that not all of them played are left out" if left_out else ""
    return "\n".join([*legend, "", align(rows)]) + note


def _rate(played: Played, scenes: list[tuple[str, int]]) -> str:
    solved = sum(played.solved[s] for s in scenes)
    return f"{percent(solved / len(scenes))} ({interval(wilson_interval(solved, len(scenes)))})"


def _difference(played: Played, first: Played, scenes: list[tuple[str, int]]) -> str:
    won = sum(played.solved[s] and not first.solved[s] for s in scenes)
    lost = sum(first.solved[s] and not played.solved[s] for s in scenes)
    chance = binomtest(won, won + lost).pvalue if won + lost else 1.0
    return f"{100 * (won - lost) / len(scenes):+.0f} points, {won} : {lost}, {chance:.2f}"
