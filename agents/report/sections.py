"""The report's sections, each a piece of HTML from what was found in the run's folder, or "" where there is nothing."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from agents.report import charts
from agents.report.colours import outcome_colour, policy_colour
from agents.report.markup import figure, legend, table
from agents.report.run_folder import Evaluation, RunFolder, TaskResult
from agents.report.summary import COLUMNS, interval, mean_cells, percent, result_rows

FIRST_CHOICE = (
    "First choice: how often the first key-frame goes to the object or side that the instruction names. Chance is "
    "that of a policy that picks any of them blindly; where there is nothing to choose, both are left empty."
)

# What the reasons of failure mean; those of an action end the episode, which is how RLBench evaluates too.
REASONS = {
    "wrong object": "the first key-frame went to something else than the instruction names",
    "not solved in time": "the key-frames that an episode may have were used up",
    "in collision": "the arm would hit something at the goal",
    "no path": "no way to the goal without a collision was found",
    "unreachable": "the arm cannot take the goal's pose",
    "invalid": "the goal lay outside the workspace",
    "spoiled": "the task can no longer be solved (RLBench's fail conditions)",
}

# Measures of recorded episodes in words, with the factor from the file's unit.
MEASURES = {
    "transitions": ("predictions", 1),
    "translation_cm_median": ("position error, median, cm", 1),
    "translation_cm_p90": ("position error, 90 % below, cm", 1),
    "rotation_deg_median": ("rotation error, median, degrees", 1),
    "rotation_deg_p90": ("rotation error, 90 % below, degrees", 1),
    "gripper_accuracy": ("gripper right, %", 100),
    "collision_accuracy": ("collision flag right, %", 100),
}


def success(run: RunFolder) -> str:
    """Bars with whiskers and the first choice beside chance, then the table, then other evaluations' in short."""
    shown = [*([run.main] if run.main else []), *run.compared]
    rates, choices = [], []
    for name in dict.fromkeys(name for evaluation in shown for name in evaluation.tasks):
        measured = [e for e in shown if name in e.tasks]
        rates.append(charts.Group(name, [_success_bar(e, name) for e in measured]))
        bars = [_choice_bar(e, name) for e in measured if e.tasks[name].first_choice]
        chance = next((e.tasks[name].chance for e in measured if e.tasks[name].chance is not None), None)
        if bars:
            choices.append(charts.Group(name, bars, chance, f"{name}: chance {percent(chance)}"))
    parts = []
    if sum(len(group.bars) for group in rates) > 1:  # a single bar says nothing that the number does not
        figures = figure("Episodes solved", "with 95 % intervals", charts.rate_bars(rates))
        if choices:
            figures += figure("First choice right", "dashed: chance", charts.rate_bars(choices))
        parts.append(f'<div class="two">{figures}</div>')
    if run.main:
        parts.append(_results(run.main, run.compared))
    others = [e for e in run.evaluations if e not in shown]
    if others:
        rows = [(e.label, *mean_cells(e)) for e in ([run.main] if run.main else []) + others]
        parts.append(table(("evaluation", *COLUMNS), rows, "other evaluations, means over tasks"))
        tables = "".join(_results(e) for e in others)
        parts.append(f"<details><summary>other evaluations by task</summary>{tables}</details>")
    if choices:
        parts.append(f'<p class="note">{FIRST_CHOICE}</p>')
    return "\n".join(parts)


def _success_bar(evaluation: Evaluation, name: str) -> charts.Bar:
    task = evaluation.tasks[name]
    counts = f"{task.successes} of {task.episodes}"
    title = f"{name}, {evaluation.label}: {counts}, 95 % interval {interval(task.interval)}"
    return charts.Bar(evaluation.label, task.rate, policy_colour(evaluation.policy), title, *task.interval)


def _choice_bar(evaluation: Evaluation, name: str) -> charts.Bar:
    correct, of = evaluation.tasks[name].first_choice or (0, 1)
    title = f"{name}, {evaluation.label}: {correct} of {of} right, chance {percent(evaluation.tasks[name].chance)}"
    return charts.Bar(evaluation.label, correct / of, policy_colour(evaluation.policy), title)


def _results(evaluation: Evaluation, compared: Sequence[Evaluation] = ()) -> str:
    header, *rows = result_rows(evaluation, compared)
    caption = ", ".join([evaluation.label, *scenes(evaluation)])
    return table(header, rows, caption, last_is_total=rows[-1][0] == "mean")


def scenes(evaluation: Evaluation) -> list[str]:
    """["test scenes", "seed 0"], as far as known."""
    facts = [f"{evaluation.split} scenes" if evaluation.split else ""]
    facts.append(f"seed {evaluation.seed}" if evaluation.seed is not None else "")
    return [fact for fact in facts if fact]


def failures(run: RunFolder) -> str:
    """What became of the episodes of the headline's evaluation: bars for several tasks, and a table."""
    main = run.main
    if main is None or all(task.successes == task.episodes for task in main.tasks.values()):
        return ""
    reasons = [reason for reason, _ in sum((Counter(t.failures) for t in main.tasks.values()), Counter()).most_common()]
    outcomes = {name: _outcomes(task, reasons) for name, task in main.tasks.items()}
    parts = [part for part in ("solved", *reasons, "unexplained") if any(dict(o).get(part) for o in outcomes.values())]
    rows = [(name, *(str(dict(outcome).get(part, 0)) for part in parts)) for name, outcome in outcomes.items()]
    chart = ""
    if len(outcomes) > 1 and len(parts) > 1:
        colours = {part: outcome_colour(part) for part in parts}
        key = legend([(colours[part], part) for part in parts])
        chart = figure("Episodes by outcome", main.label, key + charts.stacked_bars(list(outcomes.items()), colours))
    meanings = "; ".join(f"{escape(part)}: {REASONS[part]}" for part in parts if part in REASONS)
    note = f'<p class="note">{meanings[0].upper()}{meanings[1:]}.</p>' if meanings else ""
    return chart + table(("task", *parts), rows) + note


def _outcomes(task: TaskResult, reasons: Sequence[str]) -> list[tuple[str, int]]:
    known = [("solved", task.successes), *((reason, task.failures.get(reason, 0)) for reason in reasons)]
    rest = task.episodes - sum(count for _, count in known)
    return [*known, ("unexplained", max(0, rest))]


def offline(run: RunFolder) -> str:
    """Errors on recorded episodes: one row a task, one column a measure, whatever measures there are."""
    tasks = {name: found for name, found in run.offline.get("tasks", {}).items() if isinstance(found, Mapping)}
    if not tasks:
        return ""
    columns = list(dict.fromkeys(column for found in tasks.values() for column in found))
    header = [MEASURES[column][0] if column in MEASURES else column.replace("_", " ") for column in columns]
    rows = [(name, *(_measure(column, found.get(column)) for column in columns)) for name, found in tasks.items()]
    data = (
        f"recordings in {run.offline['data']}; one prediction for each key-frame and phrasing"
        if "data" in run.offline
        else ""
    )
    return table(("task", *header), rows, data, last_is_total=rows[-1][0] == "all")


def _measure(column: str, value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    if column in MEASURES:
        value *= MEASURES[column][1]
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def commands(run: RunFolder) -> str:
    """The lines of RUN/commands.txt, quoted so that every shell takes them as they are (zsh expands brackets)."""
    lines = "\n".join(_quoted(line) for line in run.commands.splitlines() if line.strip())
    return f"<pre>{escape(lines)}</pre>" if lines else ""


def _quoted(line: str) -> str:
    try:
        return shlex.join(shlex.split(line))
    except ValueError:  # an unfinished quotation: better shown as it is than guessed at
        return line


def versions(run: RunFolder) -> str:
    """What RUN/versions.json says."""
    rows = [(str(name), str(value)) for name, value in run.versions.items()]
    return table(None, rows, numbers=False) if rows else ""


def configuration(run: RunFolder) -> str:
    """RUN/config.yaml, folded away."""
    text = run.config.strip()
    count = text.count("\n") + 1
    return f"<details><summary>config.yaml, {count} lines</summary><pre>{escape(text)}</pre></details>" if text else ""
