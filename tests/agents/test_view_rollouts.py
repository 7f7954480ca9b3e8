"""`manifield evaluate keep=true`: rollouts on disk as episodes, which change nothing about the evaluation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.playing import Player, kept_episode
from demos.store import open_episode
from demos.view.replay import find_shown


def play(out: Path, keep: bool) -> dict[str, Any]:
    env = {"_target_": "envs.mujoco.environment.MujocoEnvironment", "cameras": ["front"], "image_size": 16}
    settings = {
        "policy": "expert",
        "split": "dev",
        "seed": 0,
        "env": env,
        "max_actions": 4,
        "keep": keep,
        "device": "cpu",
        "scenes": None,
    }
    player = Player(settings, out)
    try:
        return player(("open_drawer", 0), lambda: False)
    finally:
        player.close()


def test_a_kept_rollout_is_the_evaluated_one(tmp_path: Path) -> None:
    out = tmp_path / "evaluation" / "expert"
    plain = play(out, keep=False)
    assert not (out / "rollouts").exists()
    assert play(out, keep=True) == plain
    directory = kept_episode(out, "open_drawer", 0)
    assert find_shown(tmp_path) == [directory]
    facts = json.loads((directory / "manifield.json").read_text())
    assert {key: facts[key] for key in plain} == plain
    episode = open_episode(directory)
    assert len(episode) > 10 and plain["instruction"] in episode.descriptions
    reached = episode.gripper_pose[:, None, :3] - np.array(facts["actions"])[:, :3]
    assert (np.linalg.norm(reached, axis=-1).min(axis=0) < 0.02).all()  # the tool came to every goal
    play(out, keep=True)  # again, as after a kill between the episode and its line in the log
    assert len(open_episode(directory)) == len(episode)


@pytest.fixture(autouse=True)
def folders(tmp_path: Path) -> None:
    (tmp_path / "evaluation" / "expert" / "strips").mkdir(parents=True)
