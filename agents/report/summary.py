"""A run's results as a table in plain text, for the end of a command."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from agents.report.run_folder import RunFolder, TaskResult, read_run


def summary_table(run: str | Path | RunFolder) -> str:
    """Success per task with its 95 % interval, beside the baselines', and the first choice beside chance."""
    run = run if isinstance(run, RunFolder) else read_run(run)
    main, baselines = run.main, run.baselines
    if main is None:
        return f"{run.folder}: no trained policy was evaluated"
    header = ["task", "success", "", "95 % interval"]
    header += [baseline.policy for baseline in baselines]
    choices = any(task.first_choice for task in main.tasks.values())
    if choices:
        header += ["first choice", "", "chance"]
    rows = []
    for name, task in main.tasks.items():
        row = [name, f"{task.successes}/{task.episodes}", percent(task.rate), interval(task.interval)]
        row += [percent(baseline.tasks[name].rate) if name in baseline.tasks else "" for baseline in baselines]
        if choices:
            row += [*first_choice(task), percent(task.chance)]
        rows.append(row)
    mean = ["mean", "", percent(main.mean), interval(main.interval)]
    mean += [percent(baseline.mean) for baseline in baselines]
    if choices:
        mean += ["", *mean_choice(list(main.tasks.values()))]
    return align([header, *rows, mean], rules=(1, len(rows) + 1))


def mean_choice(tasks: Sequence[TaskResult]) -> tuple[str, str]:
    """Means over tasks of the first choice's accuracy and of its chance, as percentages; "" where unknown."""
    rates = [task.first_choice[0] / task.first_choice[1] for task in tasks if task.first_choice]
    chances = [task.chance for task in tasks if task.first_choice and task.chance is not None]
    return (
        percent(sum(rates) / len(rates) if rates else None),
        percent(sum(chances) / len(chances) if chances and len(chances) == len(rates) else None),
    )


def first_choice(task: TaskResult) -> tuple[str, str]:
    """("22/25", "88 %"), or empty texts where it was not measured."""
    if not task.first_choice:
        return "", ""
    correct, of = task.first_choice
    return f"{correct}/{of}", percent(correct / of)


def percent(share: float | None) -> str:
    """0.72 as "72 %"; "" for None."""
    return "" if share is None else f"{100 * share:.0f} %"


def interval(ends: tuple[float, float]) -> str:
    """(0.52, 0.86) as "52–86 %"."""
    return f"{100 * ends[0]:.0f}–{100 * ends[1]:.0f} %"


def align(rows: Sequence[Sequence[str]], rules: Sequence[int] = ()) -> str:
    """Columns side by side, the first to the left and the others to the right, with rules above the rows named."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for index, row in enumerate(rows):
        if index in rules:
            lines.append("-" * (sum(widths) + 2 * (len(widths) - 1)))
        cells = [row[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
