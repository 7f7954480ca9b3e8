"""`manifield report`: everything known about a run on one HTML page without references to anything outside it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from agents.report import sections
from agents.report.charts import number
from agents.report.curves import curves
from agents.report.markup import words
from agents.report.run_folder import Evaluation, RunFolder, read_run
from agents.report.strips import strips_section
from agents.report.summary import evaluate_command, interval, mean_choice, not_evaluated, percent, summary_table
from agents.report.views import training_section, views_section
from manifield.errors import within
from manifield.files import write_whole
from manifield.progress import duration

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["run", "summary_table", "write_report"]

TEMPLATE = Path(__file__).with_name("template.html")


def run(config: DictConfig) -> None:
    """Write RUN/report.html and print the table and the page's path. config: `configs/report.yaml`."""
    within(config, strips=(0, 1000), views=(0, 1000))
    found = read_run(config.run)
    page = write_report(found, strips=config.strips, views=config.views)
    print(summary_table(found))
    print(f"\nreport: {page.resolve()}")


def write_report(found: RunFolder | str | Path, strips: int = 4, views: int = 3) -> Path:
    """Write RUN/report.html and return its path.

    Args:
        found: a run's folder, or what `read_run` made of it.
        strips: most film strips of successes, and of failures, for each task; 0 for none.
        views: most rendered views for each task; 0 for none.
    """
    found = found if isinstance(found, RunFolder) else read_run(found)
    parts = [
        ("Success", sections.success(found)),
        ("Failures", sections.failures(found)),
        ("Film strips", strips_section(found, strips)),
        ("Training", curves(found)),
        ("Seen on the way", training_section(found)),
        ("Recorded episodes", sections.offline(found)),
        ("Views never given", views_section(found, views)),
        ("How to repeat it", sections.commands(found)),
        ("Versions", sections.versions(found)),
        ("Configuration", sections.configuration(found)),
    ]
    parts = [(title, content) for title, content in parts if content]
    body = "\n".join(
        f'<section id="{_anchor(title)}"><h2>{escape(title)}</h2>\n{content}</section>' for title, content in parts
    )
    links = " ".join(f'<a href="#{_anchor(title)}">{escape(title)}</a>' for title, _ in parts)
    page = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(f"{found.folder.resolve().name} · manifield"),
        name=words(found.folder.resolve().name),
        subtitle=escape(_subtitle(found)),
        tiles=_tiles(found),
        links=links,
        body=body,
    )
    target = found.folder / "report.html"
    write_whole(target, page)
    return target


def small_page(name: str, subtitle: str, parts: Sequence[tuple[str, str]]) -> str:
    """A page of its own, of sections (title, HTML)."""
    body = "\n".join(f"<section><h2>{escape(title)}</h2>\n{content}</section>" for title, content in parts)
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(f"{name} · manifield"),
        name=escape(name),
        subtitle=escape(f"{subtitle}, {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}"),
        tiles="",
        links="",
        body=body,
    )


def _subtitle(found: RunFolder) -> str:
    parts = [time.strftime("report written %Y-%m-%d %H:%M UTC", time.gmtime())]
    commit = str(found.versions.get("commit", ""))
    if commit and commit != "unknown":
        parts.append(f"trained with commit {commit[:10]}{'+dirty' if commit.endswith('+dirty') else ''}")
    return " · ".join(parts)


def _tiles(found: RunFolder) -> str:
    """The handful of numbers that a reader looks for first: what, how much, a note (HTML)."""
    main = found.main
    if main:
        tiles = _result_tiles(main, found.compared)
    else:
        command = f"{escape(not_evaluated(found))}: <code>{escape(evaluate_command(found))}</code>"
        tiles = [("mean success", "–", command)]
    losses = found.metrics.get("loss")
    if losses and losses[0]:
        seconds = found.metrics.get("seconds", ([], []))[1]
        took = f"took {duration(max(seconds))}" if seconds else ""
        tiles.append(("training", f"{number(losses[0][-1])} steps", took))
    return "".join(
        f'<div class="tile"><span class="what">{what}</span><span class="big">{big}</span>'
        f'<span class="note">{note}</span></div>'
        for what, big, note in tiles
    )


def _result_tiles(main: Evaluation, compared: Sequence[Evaluation]) -> list[tuple[str, str, str]]:
    against = "".join(f"<br>{words(f'{other.label} {percent(other.mean)}')}" for other in compared)
    tiles = [("mean success", percent(main.mean), words(f"95 % interval {interval(main.interval)}") + against)]
    worst, best = (pick(main.tasks.items(), key=lambda item: item[1].rate) for pick in (min, max))
    if worst[1].rate < best[1].rate:
        tiles.append(("hardest task", percent(worst[1].rate), words(worst[0])))
    choice, chance = mean_choice(list(main.tasks.values()))
    if choice:
        tiles.append(("first choice right", choice, f"chance {chance}" if chance else ""))
    times = [f"took {duration(main.seconds)}"] if main.seconds is not None else []
    speed = [task.seconds_per_action for task in main.tasks.values() if task.seconds_per_action is not None]
    times += [f"{sum(speed) / len(speed):.2g} s per action"] if speed else []
    tasks = f"{len(main.tasks)} task" + ("s" if len(main.tasks) > 1 else "")
    lines = (tasks, ", ".join(sections.scenes(main)), ", ".join(times))
    episodes = sum(task.episodes for task in main.tasks.values())
    return [*tiles, ("evaluation", f"{episodes} episodes", "<br>".join(escape(line) for line in lines if line))]


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")
