"""The environment and the rehearsal arm on a bus in memory: the whole chain without ROS."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from envs.interface import Action
from envs.ros.arm import RosEnvironment
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
def environment() -> Iterator[RosEnvironment]:
    bus = Bus()
    robot = MemoryTransport(bus)
    robot.start()
    sim = SimArm(robot, RosConfig.of({"cameras": ["front"], "image_size": 64, **PARTS}), "push_buttons", camera_rate=5)
    sim.start()
    thread = threading.Thread(target=sim.spin, daemon=True)
    thread.start()
    world = RosEnvironment("push_buttons", ["front"], 64, transport_override=MemoryTransport(bus), **PARTS)
    yield world
    world.close()
    sim.end()
    thread.join(10)


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
