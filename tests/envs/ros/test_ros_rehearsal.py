"""The environment and the rehearsal arm on a bus in memory: the whole chain without ROS."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from envs.interface import Action
from envs.ros.arm import BEGUN_TOPIC, RosEnvironment
from envs.ros.config import RosConfig
from envs.ros.sim_arm import SimArm
from tests.envs.ros.memory_bus import Bus, MemoryTransport

DOWN = np.array([1.0, 0.0, 0.0, 0.0])
# Patient sensors: this one process draws, moves and looks on a machine that may be busy.
PARTS = {
    "rehearsal": True,
    "arm": {"speed": 0.5},
    "limits": {"confirm": False},
    "sensing": {"picture_age": 2.0, "joint_age": 2.0, "stamp_age": 2.0},
}


@pytest.fixture
def rehearsal() -> Iterator[Bus]:
    """A bus with the rehearsal arm on it."""
    bus = Bus()
    robot = MemoryTransport(bus)
    robot.start()
    sim = SimArm(robot, RosConfig.of({"cameras": ["front"], "image_size": 64, **PARTS}), "push_buttons", camera_rate=5)
    sim.start()
    thread = threading.Thread(target=sim.spin, daemon=True)
    thread.start()
    yield bus
    sim.end()
    thread.join(10)


@pytest.fixture
def environment(rehearsal: Bus) -> Iterator[RosEnvironment]:
    with RosEnvironment("push_buttons", ["front"], 64, transport_override=MemoryTransport(rehearsal), **PARTS) as world:
        yield world


def test_an_episode_without_ros(environment: RosEnvironment) -> None:
    start = environment.reset(0, 0)
    assert start.descriptions[0].startswith("push") and environment.variation_count() == 50
    assert start.observation.cameras["front"].rgb.shape == (64, 64, 3)
    frames = []
    outcome = environment.step(Action(np.array([0.3, 0.2, 1.15]), DOWN, False, False), frames.append)
    assert outcome.failure is None and not outcome.success
    assert np.linalg.norm(outcome.observation.gripper_pose[:3] - [0.3, 0.2, 1.15]) < 0.005
    assert outcome.observation.gripper_open == 0.0 and len(frames) > 3
    refused = environment.step(Action(np.array([0.3, 0.2, 0.4]), DOWN, False, True))
    assert refused.failure is not None and refused.failure.startswith("refused: workspace")
    unreachable = environment.step(Action(np.array([0.69, 0.49, 1.59]), DOWN, False, False))
    assert unreachable.failure is not None and unreachable.failure.startswith("refused: ")
    assert environment.guard.latched is None
    again = environment.reset(1, 3)
    assert np.linalg.norm(again.observation.gripper_pose[:3] - outcome.observation.gripper_pose[:3]) > 0.1


class Forgetful(MemoryTransport):
    """Loses the first answers of the rehearsal arm, as a bus does whose listeners have not all been found yet."""

    def __init__(self, bus: Bus) -> None:
        super().__init__(bus)
        self.lost = 0

    def deliver(self, topic: str, kind: type[Any], wire: dict[str, Any], callback: Callable[[Any], None]) -> None:
        if topic == BEGUN_TOPIC and self.lost < 3:
            self.lost += 1
        else:
            super().deliver(topic, kind, wire, callback)


def test_an_answer_that_was_lost_is_given_again(rehearsal: Bus) -> None:
    """And the scene is not built a second time for it, which would move everything under the policy's eyes."""
    forgetful = Forgetful(rehearsal)
    with RosEnvironment("push_buttons", ["front"], 64, transport_override=forgetful, **PARTS) as world:
        world.reset(0, 0)
        assert forgetful.lost == 3
        answers = [json.loads(said.text) for topic, said in rehearsal.said if topic == BEGUN_TOPIC]
        assert len({answer["stamp"] for answer in answers if answer["request"]}) == 1
