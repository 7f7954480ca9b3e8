"""The cabinet where it never stands otherwise."""

from __future__ import annotations

import numpy as np

from envs.mujoco.environment import MujocoEnvironment


def test_new_positions_are_none_of_the_usual_ones_and_can_be_opened(make_environment):
    usual, elsewhere = make_environment("open_drawer"), make_environment("open_drawer", unseen="new_position")
    assert all(_is_usual(_cabinet(usual, seed)) for seed in range(20))
    assert not any(_is_usual(_cabinet(elsewhere, seed)) for seed in range(20))
    for variation in range(3):
        elsewhere.reset(100 + variation, variation)
        for action in elsewhere.expert():
            outcome = elsewhere.step(action)
        assert outcome.success


def _is_usual(position: np.ndarray) -> bool:
    return 0.08 <= position[0] <= 0.26 and -0.28 <= position[1] <= -0.10


def _cabinet(environment: MujocoEnvironment, seed: int) -> np.ndarray:
    """[3] where the cabinet stands in the scene of `seed`."""
    environment.reset(seed, 0)
    return environment.simulation.position("cabinet")
