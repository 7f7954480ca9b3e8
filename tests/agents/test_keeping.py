"""Which checkpoints of a run stay, and which one is meant."""

from __future__ import annotations

import json

import pytest

from agents.checkpoint import choose_checkpoints
from agents.keeping import Keeping, best_first
from manifield.errors import InputError

LOSSES = {100: 3.0, 200: 1.0, 300: 2.0, 400: 2.5, 500: 1.0}
FOUND = {step: {"val_loss": loss, "val_gripper": 1 / loss} for step, loss in LOSSES.items()}


def test_the_newest_the_best_and_one_now_and_then_stay():
    assert Keeping(2).staying(FOUND) == {400, 500}
    assert Keeping(1, every=300).staying(FOUND) == {300, 500}
    assert Keeping(1, best="val_loss").staying(FOUND) == {200, 500}  # of equals the earlier
    assert Keeping(1, 300, "val_gripper").staying(FOUND) == {200, 300, 500}
    assert Keeping(3).staying({7: {}}) == {7}


def test_small_losses_and_errors_are_good_and_large_shares_and_psnr_are():
    found = {1: {"val_translation_cm": 2.0, "val_field_psnr": 20.0}, 2: {"val_translation_cm": 1.0}, 3: {}}
    assert best_first(found, "val_translation_cm") == [2, 1]
    assert best_first(found | {4: {"val_field_psnr": 25.0}}, "val_field_psnr") == [4, 1]
    assert best_first(found, "val_gripper") == []


def test_checkpoints_by_step_best_last_and_all(tmp_path):
    for step, measures in FOUND.items():
        folder = tmp_path / f"checkpoints/step_{step:06d}"
        folder.mkdir(parents=True)
        needed = {"agent": {}, "language_identity": "", "tasks": [], "cameras": [], "image_size": [16, 16]}
        meta = needed | {"step": step, "metrics": measures, "config": {"best": "val_loss"}}
        (folder / "agent.json").write_text(json.dumps(meta))

    def steps(which: object) -> list[int]:
        return [int(p.name.removeprefix("step_")) for p in choose_checkpoints(tmp_path, which)]

    assert steps(None) == steps("last") == [500]
    assert steps("best") == steps(200) == [200]
    assert steps("all") == sorted(FOUND)
    assert steps(["best", 400, "last"]) == [200, 400, 500]
    one = tmp_path / "checkpoints/step_000300"
    assert choose_checkpoints(one, None) == choose_checkpoints(one, "last") == [one]
    with pytest.raises(InputError, match="has those of steps 100, 200, 300, 400, 500; or give last, best or all"):
        choose_checkpoints(tmp_path, [250])
    with pytest.raises(InputError, match="is one checkpoint; give the run's folder"):
        choose_checkpoints(one, "all")
    unkept = needed | {"step": 500, "config": {}}
    (tmp_path / "checkpoints/step_000500/agent.json").write_text(json.dumps(unkept))
    with pytest.raises(InputError, match="was trained without best="):
        choose_checkpoints(tmp_path, "best")
