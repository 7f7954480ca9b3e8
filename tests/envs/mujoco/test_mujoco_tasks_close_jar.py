"""close_jar: colours, and what does and does not count as a lid that is screwed on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from envs.colors import COLORS
from envs.interface import Outcome
from envs.mujoco.environment import MujocoEnvironment
from envs.mujoco.tasks.base import facing_down, key_frame
from envs.mujoco.tasks.close_jar import SCREWED

SEED = 11


@pytest.fixture
def environment(make_environment) -> MujocoEnvironment:
    environment = make_environment("close_jar")
    environment.reset(SEED, 0)
    return environment


def _lid_on(environment: MujocoEnvironment, start_yaw: float = 0.6) -> np.ndarray:
    """Let the expert put the lid on, held at `start_yaw`; the tool's position [3] then."""
    actions = list(environment.expert())[:-1]
    rotation = facing_down(start_yaw)
    for action in actions:
        key = key_frame(action.position, rotation, action.gripper_open, action.ignore_collisions)
        assert environment.step(key).failure is None
    return np.asarray(actions[-1].position)


def _turn(environment: MujocoEnvironment, position: np.ndarray, yaw: float, is_open: bool) -> Outcome:
    return environment.step(key_frame(position, facing_down(yaw), is_open, ignore_collisions=True))


def test_instructions(make_environment):
    start = make_environment("close_jar").reset(0, 5)
    assert start.descriptions == [
        "close the navy jar",
        "screw on the navy jar lid",
        "grasping the lid, lift it from the table and use it to seal the navy jar",
        "pick up the lid from the table and put it on the navy jar",
    ]


def test_named_jar_has_its_color_and_the_other_another(make_environment):
    environment = make_environment("close_jar")
    for variation, color in enumerate(COLORS.values()):
        environment.reset(variation, variation)
        model, target = environment.simulation.model, environment._task.target
        seen = [model.geom_rgba[model.body(f"jar{i}").geomadr[0], :3] for i in range(2)]
        np.testing.assert_allclose(seen[target], color, atol=1e-6)
        assert np.abs(seen[1 - target] - color).max() > 0.2


def test_turning_the_lid_clockwise_and_letting_go_succeeds(environment):
    seat = _lid_on(environment)
    assert not _turn(environment, seat, -0.6, is_open=False).success  # still held
    assert environment._task.turned == pytest.approx(1.2, abs=0.1)
    assert _turn(environment, seat, -0.6, is_open=True).success
    assert environment.step(key_frame(seat + [0, 0, 0.1], facing_down(-0.6), True)).success


@pytest.mark.parametrize("end_yaw", [0.6, 1.2, 0.0], ids=["not turned", "turned the wrong way", "turned by half"])
def test_a_lid_that_only_lies_on_the_jar_does_not_count(environment, end_yaw):
    seat = _lid_on(environment)
    assert not _turn(environment, seat, end_yaw, is_open=True).success
    assert environment._task._is_on(environment.simulation, 0, 0.003, 0.99)
    assert environment._task.turned < SCREWED


def test_turning_in_the_air_does_not_count(environment):
    seat = _lid_on(environment)
    above = seat + [0, 0, 0.06]
    for position, yaw in ((above, 0.6), (above, -0.6), (seat, -0.6)):
        outcome = _turn(environment, position, yaw, is_open=False)
        assert outcome.failure is None
    assert not _turn(environment, seat, -0.6, is_open=True).success
    assert environment._task.turned < 0.1


def test_two_small_turns_add_up_and_a_turn_back_takes_off(environment):
    seat, turns = _lid_on(environment, 0.3), []
    for yaw, is_open in ((-0.3, True), (0.3, True), (0.3, False), (-0.3, False), (0.0, True)):
        outcome = _turn(environment, seat, yaw, is_open)
        turns.append(environment._task.turned)
    np.testing.assert_allclose(turns, [0.6, 0.6, 0.6, 1.2, 0.9], atol=0.1)
    assert outcome.success


def test_lid_on_the_other_jar_does_not_count(environment):
    environment._task.target = 1
    actions = list(environment.expert())
    environment._task.target = 0
    outcomes = [environment.step(action) for action in actions]
    assert environment._task.turned > SCREWED and not outcomes[-1].success
    environment._task.target = 1
    assert environment.step(replace(actions[3], gripper_open=True)).success


@pytest.mark.parametrize("size", ["smaller", "larger"])
def test_other_sizes_and_new_positions_can_be_solved(make_environment, size):
    environment = make_environment("close_jar", unseen=(size, "new_position"))
    environment.reset(SEED, 3)
    assert abs(environment.simulation.position("lid")[1]) > 0.3
    assert [environment.step(action).success for action in environment.expert()][-1]
