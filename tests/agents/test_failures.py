"""Reasons for failure: an agent beside an expert."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from agents.failures import Departure, Reference, failure
from envs.interface import Action, NoExpert
from envs.rollout import Rollout

GOAL = Action(np.array([0.2, 0.1, 0.9]), np.array([1.0, 0, 0, 0]), True, False)


class World:
    """Has an expert that wants two key-frames; `asked` counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def expert(self):
        for action in (GOAL, replace(GOAL, gripper_open=False)):
            self.asked += 1
            yield action


def moved(metres: float = 0.0, degrees: float = 0.0, gripper_open: bool = True) -> Action:
    turn = Rotation.from_quat(GOAL.quaternion) * Rotation.from_euler("z", degrees, degrees=True)
    return Action(GOAL.position + [metres, 0, 0], turn.as_quat(), gripper_open, False)


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        (moved(0.05), "imprecise"),
        (moved(0.2, 40), "elsewhere"),
        (moved(0.01, 40), "rotation"),
        (moved(0.05, 40), "imprecise"),
        (moved(gripper_open=False), "gripper"),
    ],
)
def test_the_first_departure_is_named_and_ends_the_comparison(action, reason):
    world = World()
    reference = Reference(world)
    reference.compare(moved(0.005, 5))
    assert reference.departure is None
    second = replace(action, gripper_open=not action.gripper_open)  # the second key-frame closes the gripper
    reference.compare(second)
    reference.compare(moved(0.5))
    assert reference.departure is not None
    assert (reference.departure.number, reference.departure.reason) == (1, reason)
    assert world.asked == 2
    assert reference.departure.to_mapping()["keyframe"] == 1


def test_half_a_turn_is_the_same_gripper_and_after_the_expert_all_is_well():
    reference = Reference(World())
    for action in (moved(degrees=180), moved(gripper_open=False), moved(0.5)):
        reference.compare(action)
    assert reference.departure is None


def test_a_world_without_an_expert_says_nothing():
    class Silent:
        def expert(self):
            raise NoExpert("a real arm")

    class Late:
        def expert(self):
            raise NoExpert("no way")
            yield

    for world in (Silent(), Late()):
        reference = Reference(world)
        reference.compare(moved(0.5))
        assert reference.departure is None


def test_one_reason_each_the_plainest_first():
    off = Departure(1, 0.05, 0.0, True)
    assert failure(Rollout(success=True), False, off, 10) is None
    assert failure(Rollout(failure="no path"), False, off, 10) == "wrong object"
    assert failure(Rollout(failure="no path"), True, off, 10) == "no path"
    assert failure(Rollout(actions=[GOAL]), None, off, 10) == "imprecise"
    assert failure(Rollout(actions=[GOAL] * 10), True, None, 10) == "time out"
    assert failure(Rollout(actions=[GOAL]), True, None, 10) == "gave up"
