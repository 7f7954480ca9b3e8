"""The report from synthetic runs: complete, partial, broken, hostile."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from agents.report.page import summary_table, write_report
from agents.report.run_folder import read_run
from agents.report.strips import pick
from agents.statistics import wilson_interval
from manifield import command
from manifield.errors import InputError

TASKS = {
    "open_drawer": (18, 22, 1 / 3, {"wrong object": 2, "imprecise": 3, "in collision": 2}),
    "push_buttons": (15, 20, 0.25, {"wrong object": 6, "no path": 1, "imprecise": 3}),
    "slide_block_to_color_target": (24, 25, 0.25, {"ran out of steps": 1}),
}


def make_run(folder: Path, strips: bool = True) -> Path:
    """A finished run as train, evaluate and demo leave it, with numbers made up."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text("run: runs/demo\nsteps: 1600\nagent:\n  hidden: 256\n  note: <script>\n")
    (folder / "versions.json").write_text(json.dumps({"python": "3.11.7", "commit": "a" * 40 + "+dirty"}))
    (folder / "commands.txt").write_text("manifield collect seed=0\nmanifield train run=runs/demo\n")
    generator = np.random.default_rng(0)
    columns = ["step", "seconds", "samples_per_second", "loss", "loss_translation", "loss_rotation", "loss_gripper"]
    columns += ["learning_rate", "val_loss", "val_loss_translation"]
    lines = [",".join(columns)]
    for step in range(25, 1601, 25):
        parts = [5 * math.exp(-step / 300) + 0.4, 2 * math.exp(-step / 500) + 0.1, 0.5 * math.exp(-step / 200) + 0.003]
        parts = [part * generator.uniform(0.9, 1.1) for part in parts]
        checked = [sum(parts) * 1.2, parts[0] * 1.3] if step % 200 == 0 else ["", ""]
        row = [step, 0.3 * step, 26.0, sum(parts), *parts, 2e-3 * math.cos(step / 1600 * 1.5), *checked]
        lines.append(",".join(map(str, row)))
    (folder / "metrics.csv").write_text("\n".join([*lines, "1625,48"]))  # the last row was cut off by a kill
    for name, policy in (("untrained", "untrained"), ("test", "trained")):
        make_evaluation(folder / "evaluation" / name, policy, strips and policy == "trained")
    measures = {"translation_cm": {"median": 1.21, "p90": 3.4}, "rotation_deg": {"median": 4.0, "p90": 11.2}}
    measures |= {"gripper_accuracy": 1.0, "collision_accuracy": 0.9}
    (folder / "offline").mkdir()
    (folder / "offline" / "results.json").write_text(json.dumps({"key_frames": 12, "tasks": {"open_drawer": measures}}))
    return folder


def make_evaluation(folder: Path, policy: str, strips: bool) -> None:
    (folder / "strips").mkdir(parents=True)
    tasks: dict[str, Any] = {}
    episodes = []
    for task, (successes, first, chance, failures) in TASKS.items():
        if policy == "untrained":
            successes, first, failures = 1, round(chance * 25), {"imprecise": 24}
        tasks[task] = {
            "episodes": 25, "successes": successes, "interval": wilson_interval(successes, 25),
            "first_choice": {"correct": first, "of": 25, "chance": chance}, "mean_steps": 3.2,
            "failures": failures, "seconds_per_action": 0.41,
        }  # fmt: skip
        reasons = [None] * successes + [reason for reason, count in failures.items() for _ in range(count)]
        for index, reason in enumerate(reasons):
            strip = f"strips/{task}_{index}.png" if strips else None
            episodes.append(
                {"task": task, "index": index, "seed": 900 + index, "variation": index % 3, "success": reason is None,
                 "instruction": f"do <b>{task}</b> & more", "steps": 3, "failure": reason, "strip": strip}
            )  # fmt: skip
            if strip:
                colours = np.full((40, 90, 3), (index * 9, 90, 160), np.uint8)
                Image.fromarray(colours).save(folder / strip)
    mean = sum(task["successes"] for task in tasks.values()) / 75
    results = {"policy": policy, "split": "test", "seed": 0, "seconds": 240.5, "tasks": tasks, "mean_success": mean}
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "episodes.jsonl").write_text("\n".join(map(json.dumps, episodes)))


class Page(HTMLParser):
    """Collects what a page refers to and checks that its tags match."""

    VOID = ("meta", "link", "img", "br", "line", "rect", "circle", "polyline")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_a_complete_run_becomes_one_page(tmp_path: Path) -> None:
    page = write_report(make_run(tmp_path / "demo"), strips=2)
    assert page == tmp_path / "demo" / "report.html"
    text = page.read_text()
    parsed = Page(text)
    assert all(address.startswith(("data:", "#")) for address in parsed.addresses)
    assert not re.search(r"https?://|@import|url\(", text)
    assert parsed.tags.count("img") == 2 * 3 + 2 + 2 + 1  # two solved a task; two, two and one failed
    assert parsed.tags.count("script") == 0
    assert "&lt;script&gt;" in text and "do &lt;b&gt;open_drawer&lt;/b&gt; &amp; more" in text
    for part in ("65–84 %", "18 of 25", "wrong object", "held back", "1.21", "3.11.7", "manifield train run=runs/demo"):
        assert part in text, part
    assert "not run" not in text
    assert not re.search(r"\bnan\b", text, re.IGNORECASE)


def test_the_summary_table(tmp_path: Path) -> None:
    lines = summary_table(make_run(tmp_path / "demo", strips=False)).splitlines()
    assert lines[0].split() == "task success 95 % interval untrained first choice chance".split()
    assert lines[2].split() == "open_drawer 18/25 72 % 52–86 % 4 % 22/25 88 % 33 %".split()
    assert lines[-1].split() == "mean 76 % 65–84 % 4 % 89 % 28 %".split()
    assert len({len(line) for line in lines[1:6]}) == 1


def test_the_headline_is_a_trained_policys(tmp_path: Path) -> None:
    for policy in ("expert", "random", "untrained"):
        make_evaluation(tmp_path / "evaluation" / policy, policy, strips=False)
    assert read_run(tmp_path).main is None
    make_evaluation(tmp_path / "evaluation" / "trained", "trained", strips=False)
    make_evaluation(tmp_path / "evaluation" / "again", "trained", strips=False)
    run = read_run(tmp_path)
    assert run.main and run.main.name == "again"
    assert [e.label for e in run.evaluations] == ["again", "trained", "expert", "untrained", "random"]
    assert summary_table(run).splitlines()[0].split()[5:7] == ["untrained", "random"]


def test_parts_that_are_absent_are_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,loss\n1,2.0\n2,1.0\n")
    text = write_report(tmp_path).read_text()
    assert text.count("not run") == 7 and "no trained policy was evaluated" in text
    assert "no trained policy" in summary_table(tmp_path)
    Page(text)
    evaluated = tmp_path / "evaluated"
    (evaluated / "evaluation" / "quick").mkdir(parents=True)
    results = {"tasks": {"reach_target": {"episodes": 2, "successes": 2}}}
    (evaluated / "evaluation" / "quick" / "results.json").write_text(json.dumps(results))
    Page(write_report(evaluated).read_text())
    assert "reach_target      2/2  100 %       34–100 %" in summary_table(evaluated)
    make_evaluation(evaluated / "evaluation" / "lost", "trained", strips=True)
    for picture in (evaluated / "evaluation" / "lost").glob("strips/*_1.png"):
        picture.unlink()
    Page(write_report(evaluated).read_text())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("versions.json", "{", "not JSON"),
        ("versions.json", "[]", "expected a JSON object"),
        ("metrics.csv", "a,b\n1,2\n", "no column 'step'"),
        ("evaluation/x/results.json", "{}", "has no field 'tasks'"),
        ("evaluation/x/results.json", '{"tasks": {"a": {"episodes": 3}}}', "has no field 'successes'"),
        ("evaluation/x/results.json", '{"tasks": {"a": {"episodes": 1, "successes": 3}}}', "3 successes of 1"),
        ("evaluation/test/episodes.jsonl", "{\n{}", "line 1: not JSON"),
        ("evaluation/test/strips/open_drawer_0.png", "x", "not a readable picture"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    make_run(tmp_path)
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        write_report(tmp_path)
    assert name in str(caught.value)


def test_folders_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such run folder"):
        read_run(tmp_path / "none")
    with pytest.raises(InputError, match="nothing to report"):
        read_run(tmp_path)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path / "demo", strips=False)
    assert command.main(["report", f"run={tmp_path / 'demo'}"]) == 0
    assert f"report: {tmp_path / 'demo' / 'report.html'}" in capsys.readouterr().out


def test_metrics_after_a_restart_and_with_gaps(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,loss,val_loss\n1,5,\n2,4,7\n3,nan,\n2,3,6\n3,2,inf\n4,x\n")
    metrics = read_run(tmp_path).metrics
    assert metrics == {"loss": ([1, 2, 3], [5, 3, 2]), "val_loss": ([2], [6])}


def test_strips_are_picked_from_every_kind() -> None:
    kinds = [("a", 0)] * 5 + [("a", 1), ("b", 0)]
    episodes = [{"failure": failure, "variation": variation} for failure, variation in kinds]
    assert [(e["failure"], e["variation"]) for e in pick(episodes, 3)] == [("a", 0), ("b", 0), ("a", 1)]
    assert pick([], 3) == [] and pick(episodes, 0) == []
