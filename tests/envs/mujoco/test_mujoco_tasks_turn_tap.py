"""The tap: which handle is the left one, how far it must turn, and that the other one is left alone."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from envs.mujoco.environment import MujocoEnvironment
from envs.mujoco.simulation import Simulation


@pytest.fixture
def environment(make_environment) -> MujocoEnvironment:
    environment = make_environment("turn_tap")
    environment.reset(2, 0)
    return environment


def turn(environment: MujocoEnvironment, **angles: float) -> bool:
    """Set the handles to angles (radians); returns whether the task is solved then."""
    simulation = environment.simulation
    for name, angle in angles.items():
        simulation.data.joint(name).qpos[:] = angle
    mujoco.mj_forward(simulation.model, simulation.data)
    return environment._task.success(simulation)


def test_instructions(environment):
    assert environment.reset(0, 0).descriptions[0] == "turn left tap"
    assert environment.reset(0, 1).descriptions[:3] == [
        "turn right tap",
        "rotate the right tap",
        "grasp the right tap and turn it",
    ]


def test_left_is_left_of_whoever_stands_before_the_spout(environment):
    for seed in range(10):
        environment.reset(seed, 0)
        simulation = environment.simulation
        tube = max(range(simulation.model.ngeom), key=lambda geom: _height_over_tap(simulation, geom))
        looking = simulation.position("tap") - simulation.data.geom_xpos[tube]  # from the spout to the foot
        left = simulation.site("left") - simulation.position("tap")
        assert looking[0] * left[1] - looking[1] * left[0] > 0


def _height_over_tap(simulation: Simulation, geom: int) -> float:
    """Metres, of a part of the tap that is not over its foot; others are lowest of all."""
    if simulation.model.geom_bodyid[geom] != simulation.model.body("tap").id:
        return -np.inf
    offset = simulation.data.geom_xpos[geom] - simulation.position("tap")
    return offset[2] if np.linalg.norm(offset[:2]) > 0.03 else -np.inf


def test_what_counts(environment):
    environment._task.turned = 1.7  # between the fingers
    assert not turn(environment, left=0.0, right=0.0)
    assert not turn(environment, left=1.5, right=0.0)
    assert turn(environment, left=1.6, right=0.0)
    assert turn(environment, left=1.6, right=0.3)
    assert not turn(environment, left=1.6, right=1.6)
    assert not turn(environment, left=0.0, right=1.6)


def test_a_handle_that_is_knocked_round_does_not_count(environment):
    assert not turn(environment, left=1.6, right=0.0)
    environment.simulation.step(0.1)
    assert environment.simulation.joint("left") > 1.57 and environment._task.turned == 0.0


@pytest.mark.parametrize("variation", [0, 1])
def test_handle_follows_the_hand_and_stays(environment, variation):
    name = ("left", "right")[variation]
    for seed in (31, 32):
        environment.reset(seed, variation)
        turned = []
        for action in environment.expert():
            outcome = environment.step(action)
            turned.append(environment.simulation.joint(name))
        assert turned == pytest.approx([0.0, 0.0, 0.92, 1.84], abs=0.06)
        assert outcome.success
        environment.simulation.step(1.0)
        assert environment._task.success(environment.simulation)


def test_new_positions_are_none_of_the_usual_ones_and_can_be_turned(make_environment, environment):
    elsewhere = make_environment("turn_tap", unseen="new_position")
    usual = [_aside(environment, seed) for seed in range(12)]
    new = [_aside(elsewhere, seed) for seed in range(12)]
    assert max(usual) < 0.18 < min(new)
    for action in elsewhere.expert():
        outcome = elsewhere.step(action)
    assert outcome.success


def _aside(environment: MujocoEnvironment, seed: int) -> float:
    """Metres, of the tap from the line straight before the robot."""
    environment.reset(seed, seed % 2)
    return abs(environment.simulation.position("tap")[1])
