"""`manifield report`: everything known about a run on one HTML page without references to anything outside it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from agents.report import sections
from agents.report.run_folder import RunFolder, read_run
from agents.report.strips import strips_section
from agents.report.summary import percent, summary_table
from manifield.progress import duration

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["run", "summary_table", "write_report"]

TEMPLATE = Path(__file__).with_name("template.html")


def run(config: DictConfig) -> None:
    """Write RUN/report.html and print the table and the page's path. config: `configs/report.yaml`."""
    found = read_run(config.run)
    page = write_report(found, strips=config.strips)
    print(summary_table(found))
    print(f"\nreport: {page.resolve()}")


def write_report(found: RunFolder | str | Path, strips: int = 4) -> Path:
    """Write RUN/report.html and return its path.

    Args:
        found: a run's folder, or what `read_run` made of it.
        strips: most film strips of successes, and of failures, for each task.
    """
    found = found if isinstance(found, RunFolder) else read_run(found)
    parts: list[tuple[str, str]] = [
        ("Success", sections.success(found)),
        ("Failures", sections.failures(found)),
        ("Film strips", strips_section(found, strips)),
        ("Training", sections.curves(found)),
        ("Held-back recordings", sections.offline(found)),
        ("How to repeat it", sections.commands(found)),
        ("Versions", sections.versions(found)),
        ("Configuration", sections.configuration(found)),
    ]
    body = "\n".join(
        f'<section id="{_anchor(title)}"><h2>{escape(title)}</h2>\n{content}</section>' for title, content in parts
    )
    links = " ".join(f'<a href="#{_anchor(title)}">{escape(title)}</a>' for title, _ in parts)
    page = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(f"{found.folder.resolve().name} · manifield"),
        name=escape(found.folder.resolve().name),
        subtitle=escape(_subtitle(found)),
        tiles=_tiles(found),
        links=links,
        body=body,
    )
    target = found.folder / "report.html"
    half = target.with_suffix(".html.part")  # a reader never meets half a page
    half.write_text(page, encoding="utf-8")
    half.replace(target)
    return target


def _subtitle(found: RunFolder) -> str:
    parts = [time.strftime("%-d %B %Y, %H:%M", time.localtime(found.changed))]
    if found.main:
        parts += [f"{len(found.main.tasks)} tasks", f"{sum(t.episodes for t in found.main.tasks.values())} episodes"]
        parts += [f"{found.main.split} seeds"] if found.main.split else []
    commit = str(found.versions.get("commit", ""))
    if commit and commit != "unknown":
        parts.append(f"commit {commit[:10]}{'+dirty' if commit.endswith('+dirty') else ''}")
    return " · ".join(parts)


def _tiles(found: RunFolder) -> str:
    """The handful of numbers that a reader looks for first."""
    tiles: list[tuple[str, str, str]] = []
    main = found.main
    if main:
        low, high = main.interval
        against = "".join(f", {baseline.policy} {percent(baseline.mean)}" for baseline in found.baselines)
        tiles.append(("mean success", percent(main.mean), f"95 %: {100 * low:.0f}–{100 * high:.0f} %{against}"))
        worst = min(main.tasks.items(), key=lambda item: item[1].rate, default=None)
        if worst and len(main.tasks) > 1:
            tiles.append(("hardest task", percent(worst[1].rate), worst[0]))
        tiles += _choice_tile(list(main.tasks.values()))
    else:
        tiles.append(("mean success", "—", "no trained policy was evaluated"))
    losses = found.metrics.get("loss")
    if losses and losses[0]:
        seconds = found.metrics.get("seconds", ([], []))[1]
        tiles.append(("training", f"{losses[0][-1]:,.0f}".replace(",", " "), "steps" + _took(seconds[-1:])))
    if main and main.seconds is not None:
        speed = [task.seconds_per_action for task in main.tasks.values() if task.seconds_per_action is not None]
        per_action = f"{sum(speed) / len(speed):.2g} s per action" if speed else "closed loop"
        tiles.append(("evaluation", duration(main.seconds), per_action))
    if main and main.seed is not None:
        tiles.append(("seed", str(main.seed), f"{main.split} split" if main.split else ""))
    return "".join(
        f'<div class="tile"><span class="what">{escape(what)}</span><span class="big">{escape(big)}</span>'
        f'<span class="note">{escape(note).replace(" %", "&nbsp;%")}</span></div>'
        for what, big, note in tiles
    )


def _choice_tile(tasks: Sequence[Any]) -> list[tuple[str, str, str]]:
    measured = [task for task in tasks if task.first_choice]
    if not measured:
        return []
    rate = sum(task.first_choice[0] / task.first_choice[1] for task in measured) / len(measured)
    known = [task.chance for task in measured if task.chance is not None]
    note = f"chance {percent(sum(known) / len(known))}" if len(known) == len(measured) else "right object first"
    return [("first choice", percent(rate), note)]


def _took(seconds: Sequence[float]) -> str:
    return f" in {duration(seconds[0])}" if seconds else ""


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")
