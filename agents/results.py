"""What an evaluation's episodes come to: success rates with intervals, and their spread over seeds."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from agents.report.summary import interval, percent
from agents.statistics import wilson_interval


def summarise(episodes: list[dict[str, Any]], settings: dict[str, Any]) -> dict[str, Any]:
    """Per task: successes with their Wilson interval, first choices, failures, seconds for an action (mean, median and
    95 % quantile); over tasks: the mean."""
    tasks: dict[str, Any] = {}
    for task in settings["tasks"]:
        played = [e for e in episodes if e["task"] == task]
        chosen = [e for e in played if e["first_choice_correct"] is not None]
        times = [e["seconds_per_action"] for e in played if e["seconds_per_action"] is not None]
        every = [second for e in played for second in e.get("action_seconds") or []]
        successes = sum(e["success"] for e in played)
        tasks[task] = {
            "episodes": len(played),
            "successes": successes,
            "interval": wilson_interval(successes, len(played)),
            "first_choice": {
                "correct": sum(e["first_choice_correct"] for e in chosen),
                "of": len(chosen),
                "chance": float(np.mean([1 / e["choices"] for e in chosen])) if chosen else None,
            },
            "mean_steps": float(np.mean([e["steps"] for e in played])),
            "failures": dict(Counter(e["failure"] for e in played if e["failure"])),
            "seconds_per_action": float(np.mean(times)) if times else None,
            "seconds_median": float(np.median(every)) if every else None,
            "seconds_p95": float(np.percentile(every, 95)) if every else None,
        }
    return {
        "policy": settings["policy"],
        "checkpoint": settings["checkpoint"],
        "split": settings["split"] if settings.get("scenes") is None else "recorded",
        "seed": settings["seed"],
        "unseen": settings["env"].get("unseen", []),
        "tasks": tasks,
        "mean_success": float(np.mean([t["successes"] / t["episodes"] for t in tasks.values()])),
    }


def results_csv(summary: Mapping[str, Any]) -> str:
    """The tasks of a results.json as CSV, a row each."""
    rows = []
    for task, found in summary["tasks"].items():
        first = found["first_choice"]
        rows.append(
            {
                "task": task,
                **{key: found[key] for key in ("episodes", "successes")},
                "success": found["successes"] / found["episodes"],
                "low": found["interval"][0],
                "high": found["interval"][1],
                "first_choice": first["correct"] / first["of"] if first["of"] else None,
                "chance": first["chance"],
                **{key: found[key] for key in ("mean_steps", "seconds_per_action", "seconds_median", "seconds_p95")},
                "failures": "; ".join(f"{count} {reason}" for reason, count in found["failures"].items()),
            }
        )
    return to_csv(rows)


def spread(results: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Of each variant (or checkpoint) a row a task and, of several tasks, one over "all" of them: "solved" of all
    seeds' "episodes" with the ends "low" and "high" of its 95 % interval, the "mean" over seeds and their standard
    deviation "std" (None of one seed).

    Args:
        results: by variant, of each seed the tasks of its results.json.
    """
    rows = []
    for name, seeds in results.items():
        tasks = list(seeds[0])
        for task in [*tasks, "all"] if len(tasks) > 1 else tasks:
            chosen = [list(one.values()) if task == "all" else [one[task]] for one in seeds]
            rates = [float(np.mean([t["successes"] / t["episodes"] for t in one])) for one in chosen]
            solved, played = (sum(t[key] for one in chosen for t in one) for key in ("successes", "episodes"))
            low, high = wilson_interval(solved, played)
            std = float(np.std(rates, ddof=1)) if len(rates) > 1 else None
            row = {"variant": name, "task": task, "seeds": len(seeds), "solved": solved, "episodes": played}
            rows.append(row | {"low": low, "high": high, "mean": float(np.mean(rates)), "std": std})
    return rows


def spread_table(rows: Sequence[Mapping[str, Any]], what: str = "variant") -> list[list[str]]:
    """The rows of `spread` in words, under a header. what: the first column's."""
    table = [[what, "solved", "95 % interval", "mean", "std"]]
    for row in rows:
        std = "–" if row["std"] is None else f"{100 * row['std']:.1f}"
        name = f"{row['variant']}, {row['task']}"
        ends = interval((row["low"], row["high"]))
        table.append([name, f"{row['solved']}/{row['episodes']}", ends, percent(row["mean"]), std])
    return table


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of the same keys as CSV with a header; None is empty."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
