"""Results as a table: the same columns, names and order in the terminal and on the page."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agents.report.run_folder import Evaluation, RunFolder, TaskResult, read_run, to_evaluation

# Of an evaluation: episodes solved of those played, their share, how often the first choice was right, chance of that.
COLUMNS = ("solved", "success", "95 % interval", "first choice", "chance")


def summary_table(run: str | Path | RunFolder) -> str:
    """The headline's results beside the expert's and the baselines', or how to get them."""
    run = run if isinstance(run, RunFolder) else read_run(run)
    if run.main is None:
        return f"{not_evaluated(run)}: {evaluate_command(run)}"
    return align(result_rows(run.main, run.compared))


def evaluation_table(results: dict[str, Any]) -> str:
    """What results.json of one evaluation holds, with a last column for the reasons of failure."""
    evaluation = to_evaluation(results, Path("results.json"))
    rows = result_rows(evaluation)
    told = [", ".join(f"{n} {reason}" for reason, n in task.failures.items()) for task in evaluation.tasks.values()]
    told = ["failures", *told, *([""] if len(told) > 1 else [])]
    longest = max(map(len, told))  # texts are read from the left
    return align([[*row, text.ljust(longest)] for row, text in zip(rows, told, strict=True)])


def not_evaluated(run: RunFolder) -> str:
    """Why a run has no headline."""
    return "the trained policy is not evaluated yet" if run.evaluations else "not evaluated yet"


def evaluate_command(run: RunFolder) -> str:
    """What fills the page, ready for a shell."""
    return f"manifield evaluate {shlex.quote(f'run={run.folder}')}"


def result_rows(evaluation: Evaluation, compared: Sequence[Evaluation] = ()) -> list[list[str]]:
    """Header, a row a task and, for several tasks, their mean: `COLUMNS`, then the success of the evaluations it is
    compared with; the first choice only where it was measured."""
    tasks = evaluation.tasks
    rows = [["task", *COLUMNS, *(other.label for other in compared)]]
    for name, task in tasks.items():
        own = (f"{task.successes}/{task.episodes}", percent(task.rate), interval(task.interval), *first_choice(task))
        rows.append([name, *own, *(percent(e.tasks[name].rate) if name in e.tasks else "" for e in compared)])
    if len(tasks) > 1:
        rows.append(["mean", *mean_cells(evaluation), *(percent(other.mean) for other in compared)])
    if not any(task.first_choice for task in tasks.values()):
        rows = [[*row[:4], *row[6:]] for row in rows]
    return rows


def mean_cells(evaluation: Evaluation) -> list[str]:
    """`COLUMNS` over all tasks."""
    tasks = list(evaluation.tasks.values())
    solved = f"{sum(task.successes for task in tasks)}/{sum(task.episodes for task in tasks)}"
    return [solved, percent(evaluation.mean), interval(evaluation.interval), *mean_choice(tasks)]


def first_choice(task: TaskResult) -> tuple[str, str]:
    """How often the first choice was right, and chance, as percentages; "" where unknown."""
    if not task.first_choice:
        return "", ""
    correct, of = task.first_choice
    return percent(correct / of), percent(task.chance)


def mean_choice(tasks: Sequence[TaskResult]) -> tuple[str, str]:
    """Means over tasks of the first choice's accuracy and of its chance, as percentages; "" where unknown."""
    rates = [task.first_choice[0] / task.first_choice[1] for task in tasks if task.first_choice]
    chances = [task.chance for task in tasks if task.first_choice and task.chance is not None]
    return (
        percent(sum(rates) / len(rates) if rates else None),
        percent(sum(chances) / len(chances) if chances and len(chances) == len(rates) else None),
    )


def percent(share: float | None) -> str:
    """0.72 as "72 %"; "" for None."""
    return "" if share is None else f"{100 * share:.0f} %"


def interval(ends: tuple[float, float]) -> str:
    """(0.52, 0.86) as "52–86 %"."""
    return f"{100 * ends[0]:.0f}–{100 * ends[1]:.0f} %"


def align(rows: Sequence[Sequence[str]]) -> str:
    """Columns side by side, the first to the left and the others to the right, with rules below header and above a
    mean."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    lines = []
    for index, row in enumerate(rows):
        if index == 1 or row[0] == "mean":
            lines.append(rule)
        cells = [row[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
