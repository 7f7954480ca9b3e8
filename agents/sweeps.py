"""Tables of what the jobs of a sweep came to (`manifield.sweep`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agents.measures import HELD_BACK
from agents.report.run_folder import read_run
from agents.report.summary import align
from agents.results import spread_table

SHOWN = ("loss", "train_translation_cm", *HELD_BACK)
"""Columns of metrics.csv that the table shows, as far as they are there."""


def training_table(jobs: Sequence[tuple[str, Path, Any]]) -> str:
    """The last value of each of `SHOWN` by job."""
    last = {name: {k: found[1][-1] for k, found in read_run(run).metrics.items() if found[1]} for name, run, _ in jobs}
    columns = [column for column in SHOWN if any(column in values for values in last.values())]
    rows = [["job", *columns]]
    for name, values in last.items():
        rows.append([name, *(f"{values[column]:.4g}" if column in values else "" for column in columns)])
    return align(rows)


def evaluation_table(jobs: Sequence[tuple[str, Path, Any]]) -> str:
    """Success of each job over its tasks, as `agents.results.spread` tells it."""
    rows = []
    for name, _, found in jobs:
        summary = [row for row in found or () if row["task"] == "all"] or found or ()  # nothing of recorded episodes
        rows += [row | {"variant": f"{name} {row['variant']}"} for row in summary]
    return align(spread_table(rows, "job"))
