"""`--multirun`: which jobs the words make, before any of them is done."""

from __future__ import annotations

from pathlib import Path

import pytest

from manifield import command, sweep
from manifield.errors import InputError


def test_every_combination_has_its_words_and_its_folder():
    found = sweep.jobs("train", ["learning_rate=0.1,0.2", "run=runs/s", "seed=range(2)", "tasks=[a,b]"])
    assert [name for name, _ in found] == [
        f"learning_rate={rate},seed={seed}" for rate in ("0.1", "0.2") for seed in (0, 1)
    ]
    assert found[1][1] == ["learning_rate=0.1", "seed=1", "tasks=[a,b]", "run=runs/s/learning_rate=0.1_seed=1"]
    groups = sweep.jobs("train", ["field=none,laptop", "tasks=[a],[b,c]"])
    assert [words[:2] for _, words in groups] == [
        [f"field={field}", f"tasks={tasks}"] for field in ("none", "laptop") for tasks in ("[a]", "[b,c]")
    ]


def test_runs_of_a_sweep_are_found(tmp_path):
    for name in ("b", "a"):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
    (tmp_path / "notes").mkdir()
    found = sweep.jobs("evaluate", [f"run={tmp_path}/*", "episodes=3"])
    assert [words for _, words in found] == [[f"run={tmp_path / n}", "episodes=3"] for n in ("a", "b")]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["report", "run=a,b"], "report cannot be swept, only train and evaluate"),
        (["train", "seed=1"], "nothing to sweep over; give several values, such as learning_rate="),
        (["train", "sed=1,2"], "unknown key 'sed'"),
        (["train", "seed=1,x"], "seed=x: expected a whole number"),
        (["train", "agent=laptop,perakt"], "unknown choice for agent 'perakt'"),
    ],
)
def test_mistakes_cost_no_job(words, message, capsys, monkeypatch):
    monkeypatch.setattr(sweep, "perform", lambda *_: pytest.fail("a job was done"))
    assert command.main([words[0], "--multirun", *words[1:]]) == 2
    assert message in capsys.readouterr().err


def test_jobs_are_done_in_a_row_and_put_into_a_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sweep, "perform", lambda verb, words: words)
    monkeypatch.setattr(sweep, "load", lambda target: lambda done: f"table of {[(n, str(p), w) for n, p, w in done]}")
    assert command.main(["train", "--multirun", f"run={tmp_path}", "seed=0,1"]) == 0
    printed = capsys.readouterr().out
    assert f"[2/2] manifield train seed=1 run={tmp_path / 'seed=1'}" in printed
    words = ["seed=0", f"run={tmp_path / 'seed=0'}"]
    assert f"table of {[('seed=0', str(Path(tmp_path / 'seed=0')), words)]}"[:-1] in printed
    with pytest.raises(InputError):
        sweep.jobs("train", ["seed"])
