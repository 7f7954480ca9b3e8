"""From the rehearsal arm into a bag, and out of it as a demonstration: what was seen live is what the bag gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from demos.bags.bag import Bag
from demos.bags.convert import convert, demonstrate
from demos.bags.recorder import Recorder
from demos.store import open_episode
from envs.interface import Observation
from envs.mujoco.environment import MujocoEnvironment
from envs.ros.config import RosConfig
from envs.ros.connect import make_transport
from manifield.configuration import compose
from tests.envs.ros.conftest import Bridge, Make, Rig, described

pytestmark = pytest.mark.ros
TAKE = compose("convert", ["bags=none"]).take
# Robot, recorder and a policy share one machine here, and how fast that is is not what is tested.
PATIENT = {"picture_age": 1.0, "joint_age": 1.0, "stamp_age": 2.0}


def same_moment(found: Observation, live: Observation) -> None:
    """Whether an observation of the bag is that of a live policy, the arm at rest in both."""
    assert np.abs(found.joint_positions - live.joint_positions).max() < 2e-3
    assert np.abs(found.gripper_pose[:3] - live.gripper_pose[:3]).max() < 1e-3
    assert found.gripper_open == live.gripper_open
    for name, view in live.cameras.items():
        seen = found.cameras[name]
        assert np.abs(seen.T_world_camera - view.T_world_camera).max() < 2e-3
        assert np.median(np.abs(seen.depth - view.depth)) < 1e-3
        assert np.median(np.abs(seen.rgb.astype(int) - view.rgb)) == 0


@pytest.mark.parametrize("transport", ["rclpy", "rosbridge"])
def test_a_take_of_the_rehearsal_arm_becomes_a_demonstration(
    rig: Rig, deploy: Make, bridge: Bridge, transport: str, tmp_path: Path
) -> None:
    environment = deploy("rclpy", arm={"speed": 1.0}, sensing=PATIENT)
    way = {"name": transport} | ({"port": bridge.port} if transport == "rosbridge" else {})
    robot = RosConfig.of(described(transport=way, sensing=PATIENT))
    bus = make_transport(robot.transport, "recorder")
    recorder = Recorder(bus, robot)
    path, decided, goals = tmp_path / "bags" / "take_0", [], []
    with MujocoEnvironment("push_buttons", (), 128) as simulator, bus:
        descriptions = simulator.reset(3, 0).descriptions
        environment.reset(3, 0)
        recorder.wait(15.0)
        recorder.open(path, {"task": "push_buttons", "instruction": descriptions[0]})
        for action in simulator.expert():
            simulator.step(action)
            decided.append(environment.observe())  # where a policy would decide
            goals.append(action)
            outcome = environment.step(action)
            assert outcome.failure is None, outcome.failure
        environment.observe()
        counts = recorder.close()
    assert recorder.lost == 0 and all(counts[topic] > 20 for topic in recorder.needed)

    with Bag(path) as bag:
        assert bag.counts == counts
        demonstration = demonstrate(bag, robot, TAKE)
    assert len(demonstration.keyframes) == len(goals)
    for source, live in zip([0, *demonstration.keyframes[:-1]], decided, strict=True):
        same_moment(demonstration.observations[source], live)
    for target, action in zip(demonstration.keyframes, goals, strict=True):
        reached = demonstration.observations[target]
        assert np.linalg.norm(reached.gripper_pose[:3] - action.position) < 0.01
        assert bool(reached.gripper_open) == action.gripper_open
    config = OmegaConf.merge(compose("convert", ["bags=none"]), {"data": str(tmp_path / "data")})
    convert(path, config, robot)  # type: ignore[arg-type]
    stored = open_episode(tmp_path / "data" / "push_buttons" / "all_variations" / "episodes" / "episode0")
    assert stored.descriptions == [descriptions[0]] and len(stored) == len(demonstration.observations)
