"""The report's sections, each a piece of HTML from what was found in the run's folder, or "not run"."""

from __future__ import annotations

import colorsys
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from agents.report import charts
from agents.report.run_folder import Evaluation, RunFolder, TaskResult
from agents.report.summary import first_choice, interval, mean_choice, percent

NOT_RUN = '<p class="absent">not run</p>'
SERIES = 5  # colours that the page defines as --series-0 …

# Parts of the loss that every agent here has, in the order of reading; others follow by name.
FIRST_CURVES = ("loss", "loss_translation", "loss_rotation", "loss_gripper", "loss_collision")
NOT_CURVES = ("seconds",)


def success(run: RunFolder) -> str:
    """Bars with whiskers for every evaluation, the first choice beside chance, and the table."""
    if not run.evaluations:
        return NOT_RUN
    shown = run.evaluations[:SERIES]
    tasks = list(dict.fromkeys(name for evaluation in shown for name in evaluation.tasks))
    rates, choices = [], []
    for name in tasks:
        measured = [(i, e) for i, e in enumerate(shown) if name in e.tasks]
        rates.append(charts.Group(name, [_success_bar(e, i, name) for i, e in measured]))
        bars = [_choice_bar(e, i, name) for i, e in measured if e.tasks[name].first_choice]
        chance = next((e.tasks[name].chance for _, e in measured if e.tasks[name].chance is not None), None)
        if bars:
            choices.append(charts.Group(name, bars, chance, f"{name}: chance {percent(chance)}"))
    names = [(f"var(--series-{i})", e.label) for i, e in enumerate(shown)]
    chart = charts.rate_bars(rates, "success per task")
    figures = _figure("Episodes solved, with 95 % intervals", chart, legend(names))
    if choices:
        figures += _figure(
            "First key-frame at the right object",
            charts.rate_bars(choices, "accuracy of the first choice per task"),
            legend([*names, ("dashed", "chance")]),
        )
    return f'<div class="two">{figures}</div>\n{"".join(_table(evaluation, run) for evaluation in run.evaluations)}'


def _success_bar(evaluation: Evaluation, index: int, name: str) -> charts.Bar:
    task = evaluation.tasks[name]
    counts = f"{task.successes} of {task.episodes}"
    title = f"{name}, {evaluation.label}: {counts}, 95 % interval {interval(task.interval)}"
    return charts.Bar(task.rate, percent(task.rate), index, title, *task.interval)


def _choice_bar(evaluation: Evaluation, index: int, name: str) -> charts.Bar:
    correct, of = evaluation.tasks[name].first_choice or (0, 1)
    title = f"{name}, {evaluation.label}: {correct} of {of} right, chance {percent(evaluation.tasks[name].chance)}"
    return charts.Bar(correct / of, percent(correct / of), index, title)


def _table(evaluation: Evaluation, run: RunFolder) -> str:
    header = ("task", "solved", "success", "95 %", "first choice", "", "chance", "key-frames", "s per action")
    rows = [
        (
            name,
            f"{task.successes} of {task.episodes}",
            percent(task.rate),
            interval(task.interval),
            *first_choice(task),
            percent(task.chance),
            "" if task.mean_steps is None else f"{task.mean_steps:.1f}",
            "" if task.seconds_per_action is None else f"{task.seconds_per_action:.2g}",
        )
        for name, task in evaluation.tasks.items()
    ]
    choice = mean_choice(list(evaluation.tasks.values()))
    mean = ("mean", "", percent(evaluation.mean), interval(evaluation.interval), "", *choice, "", "")
    facts = [f"{evaluation.split} split" if evaluation.split else ""]
    facts.append(f"seed {evaluation.seed}" if evaluation.seed is not None else "")
    caption = ", ".join([evaluation.label, *(fact for fact in facts if fact)])
    return table(header, [*rows, mean], caption, last_is_total=True)


def failures(run: RunFolder) -> str:
    """What became of the episodes of the headline's evaluation, as stacked bars and a table."""
    main = run.main
    if main is None:
        return NOT_RUN
    reasons = [reason for reason, _ in sum((Counter(t.failures) for t in main.tasks.values()), Counter()).most_common()]
    outcomes = {name: _outcomes(task, reasons) for name, task in main.tasks.items()}
    parts = [part for part in ("solved", *reasons, "unexplained") if any(dict(o).get(part) for o in outcomes.values())]
    colours = {part: _reason_colour(i) for i, part in enumerate(part for part in parts if part != "solved")}
    colours["solved"] = "var(--series-0)"
    chart = charts.stacked_bars(list(outcomes.items()), colours, "outcomes of episodes per task")
    rows = [(name, *(str(dict(outcome).get(part, 0)) for part in parts)) for name, outcome in outcomes.items()]
    key = legend([(colours[part], part) for part in parts])
    return _figure(f"Episodes by outcome, {main.label}", chart, key) + table(("task", *parts), rows)


def _outcomes(task: TaskResult, reasons: Sequence[str]) -> list[tuple[str, int]]:
    known = [("solved", task.successes), *((reason, task.failures.get(reason, 0)) for reason in reasons)]
    rest = task.episodes - sum(count for _, count in known)
    return [*known, ("unexplained", max(0, rest))]


def _reason_colour(index: int) -> str:
    """Warm to cool, as far apart as eight can be, on light and dark ground alike."""
    hue = (0.07, 0.0, 0.13, 0.85, 0.75, 0.45, 0.35, 0.55)[index % 8]
    red, green, blue = colorsys.hls_to_rgb(hue, 0.56, 0.62)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"


def curves(run: RunFolder) -> str:
    """A small chart for every column of metrics.csv; a validation column joins the one it validates."""
    names = [name for name in run.metrics if name not in NOT_CURVES]
    if not names:
        return NOT_RUN
    training = [name for name in names if not (name.startswith("val_") and name.removeprefix("val_") in names)]
    order = {name: i for i, name in enumerate(FIRST_CURVES)}
    training.sort(key=lambda name: (order.get(name, len(order) + (not name.startswith("loss"))), name))
    drawn = []
    for name in training:
        series = [charts.Series("training" if not name.startswith("val_") else "held back", *run.metrics[name])]
        if f"val_{name}" in run.metrics:
            series.append(charts.Series("held back", *run.metrics[f"val_{name}"], 1))
        drawn.append(charts.line_chart(name.replace("_", " "), series))
    both = any(f"val_{name}" in run.metrics for name in training)
    names_of_lines = legend([("var(--series-0)", "training"), ("var(--series-1)", "held back")]) if both else ""
    return f'{names_of_lines}<div class="grid-of-charts">{"".join(drawn)}</div>'


def offline(run: RunFolder) -> str:
    """Errors on held-back recordings: one row a task, one column a measure, whatever measures there are."""
    if not run.offline:
        return NOT_RUN
    facts = {} if "tasks" not in run.offline else run.offline
    facts = {name: value for name, value in facts.items() if not isinstance(value, Mapping | list)}
    tasks = run.offline.get("tasks", run.offline)
    tasks = {name: dict(_flatten(found)) for name, found in tasks.items() if isinstance(found, Mapping)}
    if not tasks:
        return NOT_RUN
    columns = list(dict.fromkeys(column for found in tasks.values() for column in found))
    rows = [(name, *(_measure(column, found.get(column)) for column in columns)) for name, found in tasks.items()]
    about = ", ".join(f"{name.replace('_', ' ')} {_measure(name, value)}" for name, value in facts.items())
    return table(("task", *(column.replace("_", " ").replace(".", ", ") for column in columns)), rows, about)


def _flatten(found: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for name, value in found.items():
        if isinstance(value, Mapping):
            flat += _flatten(value, f"{prefix}{name}.")
        elif not isinstance(value, list):
            flat.append((f"{prefix}{name}", value))
    return flat


def _measure(name: str, value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    if "accuracy" in name and isinstance(value, int | float) and 0 <= value <= 1:
        return percent(value)
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def commands(run: RunFolder) -> str:
    """The lines of RUN/commands.txt."""
    return f"<pre>{escape(run.commands.strip())}</pre>" if run.commands.strip() else NOT_RUN


def versions(run: RunFolder) -> str:
    """What RUN/versions.json says."""
    if not run.versions:
        return NOT_RUN
    return table(None, [(str(name), str(value)) for name, value in run.versions.items()], numbers=False)


def configuration(run: RunFolder) -> str:
    """RUN/config.yaml, folded away."""
    if not run.config.strip():
        return NOT_RUN
    lines = run.config.strip().count("\n") + 1
    return f"<details><summary>config.yaml, {lines} lines</summary><pre>{escape(run.config.strip())}</pre></details>"


def table(
    header: Sequence[str] | None,
    rows: Sequence[Sequence[str]],
    caption: str = "",
    last_is_total: bool = False,
    numbers: bool = True,
) -> str:
    """An HTML table; its first column names the row. numbers: the other columns are aligned to the right."""
    head = f"<thead><tr>{''.join(f'<th>{escape(cell)}</th>' for cell in header)}</tr></thead>" if header else ""
    lines = []
    for index, row in enumerate(rows):
        total = ' class="total"' if last_is_total and index == len(rows) - 1 else ""
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        lines.append(f"<tr{total}><th>{escape(row[0])}</th>{cells}</tr>")
    about = f"<caption>{escape(caption)}</caption>" if caption else ""
    kind = "numbers" if numbers else "texts"
    return f'<div class="wide"><table class="{kind}">{about}{head}<tbody>{"".join(lines)}</tbody></table></div>\n'


def legend(entries: Sequence[tuple[str, str]]) -> str:
    """Names of colours. The colour "dashed" stands for a dashed line."""
    items = []
    for colour, name in entries:
        key = '<i class="dashed"></i>' if colour == "dashed" else f'<i style="background:{colour}"></i>'
        items.append(f"<span>{key}{escape(name)}</span>")
    return f'<p class="legend">{"".join(items)}</p>'


def _figure(title: str, chart: str, key: str) -> str:
    return f"<figure><figcaption>{escape(title)}</figcaption>{key}{chart}</figure>\n"
