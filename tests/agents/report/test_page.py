"""The report from synthetic runs: complete, partial, broken, hostile."""

from __future__ import annotations

import json
import math
import re
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from agents.report.page import summary_table, write_report
from agents.report.pictures import film_strip
from agents.report.run_folder import read_run
from agents.report.strips import pick
from agents.report.summary import evaluation_table
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
    (folder / "commands.txt").write_text("manifield collect tasks=[a,b]\nmanifield train 'tasks=[a,b]' run=runs/demo\n")
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
    measures = {"transitions": 12, "translation_cm_median": 1.21, "gripper_accuracy": 0.9, "collision_accuracy": None}
    (folder / "offline").mkdir()
    (folder / "offline" / "results.json").write_text(json.dumps({"data": "d", "tasks": {"open_drawer": measures}}))
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
                 "instruction": f"do <b>{task}</b> & more", "steps": 3 if reason is None else 8, "failure": reason,
                 "first_choice_correct": reason != "wrong object", "strip": strip}
            )  # fmt: skip
            if strip:
                frames = [np.full((40, 40, 3), 20 * i, np.uint8) for i in range(4 if reason is None else 9)]
                Image.fromarray(film_strip(frames, ["x"] * len(frames))).save(folder / strip)
    mean = sum(task["successes"] for task in tasks.values()) / 75
    results = {"policy": policy, "split": "test", "seed": 0, "seconds": 240.5, "tasks": tasks, "mean_success": mean}
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "episodes.jsonl").write_text("\n".join(map(json.dumps, episodes)))


class Page(HTMLParser):
    """Collects what a page refers to and checks that its tags match."""

    VOID = ("meta", "link", "img", "br", "wbr", "line", "circle", "polyline")

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
    solved, failed = 2 * 3, 2 + 2 + 1  # strips of four frames, and of nine that are cut in the middle
    assert parsed.tags.count("img") == 4 * solved + 5 * failed
    assert text.count("… 4 frames …") == 5
    assert text.count("key-frame 8</div>") == 5 and "key-frame 4<" not in text  # the end is shown, not the middle
    assert text.count("key-frame 1, wrong choice</div>") == 2
    assert parsed.tags.count("script") == 0
    assert "&lt;script&gt;" in text and "do &lt;b&gt;open_drawer&lt;/b&gt; &amp; more" in text
    parts = ["65–84 %", "18/25", "wrong object", "held back", "1.21", "3.11.7", ">position error, median, cm<"]
    parts += ["manifield collect &#x27;tasks=[a,b]&#x27;\nmanifield train &#x27;tasks=[a,b]&#x27; run=runs/demo"]
    parts += ["UTC", "training</span>", "took 8 min 00 s", "Loss: rotation", ">training step</text>"]
    for part in parts:
        assert part in text, part
    assert not re.search(r"\bnan\b|not evaluated", text, re.IGNORECASE)


def test_every_link_leads_somewhere(tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "metrics.csv").write_text("step,loss\n1,2.0\n2,1.0\n")
    for page in (write_report(make_run(tmp_path / "demo")), write_report(bare)):
        text = page.read_text()
        assert re.findall(r'href="#(.+?)"', text) == re.findall(r'<section id="(.+?)">', text)
        assert "<section" in text and not re.search(r"</h2>\s*</section>", text)


def test_the_summary_table(tmp_path: Path) -> None:
    run = make_run(tmp_path / "demo", strips=False)
    lines = summary_table(run).splitlines()
    assert lines[0].split() == "task solved success 95 % interval first choice chance untrained".split()
    assert lines[2].split() == "open_drawer 18/25 72 % 52–86 % 88 % 33 % 4 %".split()
    assert lines[-1].split() == "mean 57/75 76 % 65–84 % 89 % 28 % 4 %".split()
    assert len({len(line) for line in lines[1:6]}) == 1
    table = re.search(r"<table.*?</table>", write_report(run).read_text())
    assert table
    cells = re.findall(r"<t[hd]>(.*?)</t[hd]>", table.group().replace("<wbr>", "").replace("&nbsp;", " "))
    assert [cell for line in lines if "--" not in line for cell in re.split(r"  +", line)] == cells


def test_the_table_of_one_evaluation(tmp_path: Path) -> None:
    make_evaluation(tmp_path / "evaluation" / "trained", "trained", strips=False)
    lines = evaluation_table(json.loads((tmp_path / "evaluation/trained/results.json").read_text())).splitlines()
    assert lines[0].split() == "task solved success 95 % interval first choice chance failures".split()
    assert lines[2].endswith("33 %  2 wrong object, 3 imprecise, 2 in collision")
    assert lines[-1].split() == "mean 57/75 76 % 65–84 % 89 % 28 %".split()


def test_the_headline_is_a_trained_policys(tmp_path: Path) -> None:
    for policy in ("expert", "random", "untrained"):
        make_evaluation(tmp_path / "evaluation" / policy, policy, strips=False)
    assert read_run(tmp_path).main is None
    assert "the trained policy is not evaluated yet" in write_report(tmp_path).read_text()
    for name in ("trained", "again"):
        make_evaluation(tmp_path / "evaluation" / name, "trained", strips=False)
    run = read_run(tmp_path)
    assert run.main and run.main.name == "trained"
    assert [e.label for e in run.evaluations] == ["trained", "again", "expert", "untrained", "random"]
    assert summary_table(run).splitlines()[0].split()[-3:] == ["expert", "untrained", "random"]
    assert "other evaluations by task" in write_report(run).read_text()


def test_a_run_that_is_not_evaluated_says_how_to(tmp_path: Path) -> None:
    run = tmp_path / "my run"
    run.mkdir()
    (run / "metrics.csv").write_text("step,loss,loss_gripper\n1,2.0,\n2,1.0,0.5\n")
    text = write_report(run).read_text()
    command = f"manifield evaluate 'run={run}'"
    assert f"not evaluated yet: <code>{escape(command)}</code>" in text
    assert summary_table(run) == f"not evaluated yet: {command}"
    assert text.count("<section") == 1 and text.count("<polyline") == 1
    assert "<th>Loss: gripper open or closed</th><td>0.5</td><td>cross-entropy in nats</td>" in text
    Page(text)


def test_one_task_needs_neither_charts_nor_a_mean(tmp_path: Path) -> None:
    folder = tmp_path / "evaluation" / "quick"
    folder.mkdir(parents=True)
    choice = {"correct": 2, "of": 2, "chance": 1.0}  # one thing is there: nothing to choose
    results = {"tasks": {"reach_target": {"episodes": 2, "successes": 2, "first_choice": choice}}}
    (folder / "results.json").write_text(json.dumps(results))
    text = write_report(tmp_path).read_text()
    Page(text)
    assert summary_table(tmp_path).splitlines()[0].split() == "task solved success 95 % interval".split()
    assert "reach_target     2/2    100 %       34–100 %" in summary_table(tmp_path)
    for absent in ('class="bars"', 'class="stack', ">mean<", "First choice", "Failures", "hardest task"):
        assert absent not in text, absent


def test_strips_that_are_lost_or_not_wanted(tmp_path: Path) -> None:
    run = make_run(tmp_path / "demo")
    assert "Film strips" not in write_report(run, strips=0).read_text()
    for picture in run.glob("evaluation/test/strips/*"):
        picture.unlink()
    assert "Film strips" not in write_report(run).read_text()


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
    (tmp_path / "config.yaml").write_text("steps: 3\n")  # stopped before its first checkpoint
    with pytest.raises(InputError, match="nothing to report yet, neither trained nor evaluated: manifield train run="):
        read_run(tmp_path)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path / "demo", strips=False)
    assert command.main(["report", f"run={tmp_path / 'demo'}"]) == 0
    assert f"report: {tmp_path / 'demo' / 'report.html'}" in capsys.readouterr().out
    for strips in ("-1", "1001", "many", "null"):
        assert command.main(["report", f"run={tmp_path / 'demo'}", f"strips={strips}"]) == 2
        assert "strips" in capsys.readouterr().err


def test_metrics_after_a_restart_and_with_gaps(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,loss,val_loss\n1,5,\n2,4,7\n3,nan,\n2,3,6\n3,2,inf\n4,x\n")
    metrics = read_run(tmp_path).metrics
    assert metrics == {"loss": ([1, 2, 3], [5, 3, 2]), "val_loss": ([2], [6])}


def test_strips_are_picked_from_every_kind() -> None:
    kinds = [("a", 0)] * 5 + [("a", 1), ("b", 0)]
    episodes = [{"failure": failure, "variation": variation} for failure, variation in kinds]
    assert [(e["failure"], e["variation"]) for e in pick(episodes, 3)] == [("a", 0), ("b", 0), ("a", 1)]
    assert pick([], 3) == [] and pick(episodes, 0) == []
