"""`manifield evaluate scenes=FOLDER`: the scenes of recorded demonstrations, one after the other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rlbench_worlds import fake_rlbench

from agents.evaluation import _check_scenes
from agents.playing import Player
from demos.record import record_episode
from demos.store import episode_directory, open_episode, write_episode
from envs.rlbench.environment import RLBenchEnvironment
from manifield.configuration import compose
from manifield.errors import InputError


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """Three demonstrations of the stand-in's task, written as `collect` does."""
    with fake_rlbench(peract=True), RLBenchEnvironment("touch_block", ("front",), image_size=16) as world:
        for index in range(3):
            recording, _ = record_episode(world, 5, index, 1)
            assert recording is not None
            directory = episode_directory(tmp_path, "touch_block", index)
            write_episode(
                directory, recording.observations, recording.descriptions, recording.variation, recording.facts
            )
    return tmp_path


@pytest.mark.parametrize("peract", [True, False])
def test_episodes_are_played_on_the_recorded_scenes(recorded: Path, tmp_path: Path, peract: bool) -> None:
    env = {"_target_": "envs.rlbench.environment.RLBenchEnvironment", "cameras": ["front"], "image_size": 16}
    settings = {"policy": "random", "split": "test", "seed": 0, "scenes": str(recorded), "max_actions": 2}
    with fake_rlbench(peract):
        player = Player(settings | {"keep": True, "env": env}, tmp_path)
        for index in (2, 0):
            episode = open_episode(episode_directory(recorded, "touch_block", index))
            played = player(("touch_block", index), lambda: False)
            assert played["variation"] == episode.variation
            assert played["instruction"] in episode.descriptions
            kept = open_episode(episode_directory(tmp_path / "rollouts", "touch_block", index))
            for name in ("task_low_dim_state", "joint_positions"):
                np.testing.assert_allclose(getattr(kept.low_dim(0), name), getattr(episode.low_dim(0), name))
            np.testing.assert_array_equal(kept.view(0, "front").rgb, episode.view(0, "front").rgb)
        player.close()


def test_worlds_and_folders_that_do_not_fit(recorded: Path) -> None:
    from envs.mujoco.environment import MujocoEnvironment

    settings = {"scenes": str(recorded), "episodes": 4}
    with pytest.raises(InputError, match="MujocoEnvironment cannot go back to recorded scenes; give env=rlbench"):
        _check_scenes(MujocoEnvironment("push_buttons", ()), settings)
    with fake_rlbench(peract=True), RLBenchEnvironment("touch_block", ()) as world:
        with pytest.raises(InputError, match="holds 3 episodes of touch_block: give episodes=3 or fewer"):
            _check_scenes(world, settings)
        _check_scenes(world, settings | {"episodes": 3})


def test_default_is_new_scenes() -> None:
    assert compose("evaluate").scenes is None
