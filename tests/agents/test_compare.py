"""`manifield compare`: paired on the same scenes, and refused on others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agents.compare import compare, read_played
from manifield.command import main
from manifield.errors import InputError


def write(run: Path, solved: dict[str, str], name: str = "trained", **identity: object) -> Path:
    """An evaluation: by task a string of + and - for its episodes."""
    folder = run / "evaluation" / name
    folder.mkdir(parents=True)
    same = {"split": "test", "seed": 0, "env": {"image_size": 128}, "max_actions": 10, "weights": run.name}
    (folder / "identity.json").write_text(json.dumps(same | identity))
    rows = [
        {"task": task, "index": index, "success": sign == "+"}
        for task, signs in solved.items()
        for index, sign in enumerate(signs)
    ]
    (folder / "episodes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run


def test_scenes_that_one_solves_and_the_other_does_not(tmp_path, capsys):
    write(tmp_path / "a", {"push": "++++----", "open": "++"})
    write(tmp_path / "b", {"push": "+++++++-", "open": "-+"})
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].split() == ["A", str(tmp_path / "a")]
    push, together, both = (next(line for line in out if line.startswith(name)) for name in ("push", "open", "all"))
    assert "50 %" in push and "88 %" in push and "+38 points, 3 : 0, 0.25" in push  # 2 · 0.5³
    assert "-50 points, 0 : 1, 1.00" in together
    assert "+20 points, 3 : 1, 0.62" in both


def test_only_common_episodes_count(tmp_path):
    a, b = write(tmp_path / "a", {"push": "+-+-+-"}), write(tmp_path / "b", {"push": "+-"})
    table = compare([read_played(a, "trained"), read_played(b, "trained")])
    assert "50 %" in table and "4 episodes that not all of them played are left out" in table


@pytest.mark.parametrize("key", ["split", "seed", "max_actions"])
def test_other_scenes_are_refused(tmp_path, key):
    runs = [write(tmp_path / "a", {"push": "+"}), write(tmp_path / "b", {"push": "+"}, **{key: 7})]
    with pytest.raises(InputError, match=f"was evaluated with {key}=7"):
        compare([read_played(run, "trained") for run in runs])


def test_what_is_missing_is_named(tmp_path, capsys):
    a, b = write(tmp_path / "a", {"push": "+"}, "mine"), write(tmp_path / "b", {"open": "+"}, "mine")
    with pytest.raises(InputError, match="has no evaluation 'trained'; it has mine: name="):
        read_played(a, "trained")
    with pytest.raises(InputError, match=f"manifield evaluate run={tmp_path / 'c'}"):
        read_played(tmp_path / "c", "trained")
    with pytest.raises(InputError, match="have no episode in common"):
        compare([read_played(run, "mine") for run in (a, b)])
    assert main(["compare", str(a)]) == 2
    assert "give at least two runs" in capsys.readouterr().err
    (a / "evaluation/mine/episodes.jsonl").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        read_played(a, "mine")
