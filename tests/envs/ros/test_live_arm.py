"""The rehearsal arm through the whole chain: observe, plan, check, carry out; each transport, each controller."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from envs.mujoco.environment import MujocoEnvironment
from envs.ros.geometry import pose_distance, pose_matrix
from tests.envs.ros.conftest import CAMERAS, Make, Rig, far_action

pytestmark = pytest.mark.ros
BOTH = ("rclpy", "rosbridge")


def error(pose: np.ndarray, action: object) -> tuple[float, float]:
    goal = pose_matrix(np.concatenate([action.position, action.quaternion]))  # type: ignore[attr-defined]
    turned = goal @ np.diag([-1.0, -1.0, 1.0, 1.0])
    return min(pose_distance(pose_matrix(pose), goal), pose_distance(pose_matrix(pose), turned), key=lambda e: e[1])


@pytest.mark.parametrize("transport", BOTH)
def test_it_is_seen_as_the_simulator_shows_it(rig: Rig, deploy: Make, transport: str) -> None:
    """The observation over ROS is the simulator's own, but for millimetres of depth and a frame's rounding."""
    over_ros = deploy(transport).observe()
    with MujocoEnvironment("push_buttons", CAMERAS, 128) as simulator:
        direct = simulator.reset(0, 0).observation
    assert np.allclose(over_ros.joint_positions, direct.joint_positions, atol=5e-3)
    assert np.allclose(over_ros.gripper_pose[:3], direct.gripper_pose[:3], atol=3e-3)
    assert over_ros.gripper_open == direct.gripper_open
    for name, view in direct.cameras.items():
        seen = over_ros.cameras[name]
        assert np.allclose(seen.intrinsics, view.intrinsics)
        distance, turn = pose_distance(seen.T_world_camera, view.T_world_camera)
        assert distance < 3e-3 and turn < 5e-3
        near = view.depth < 2.9
        assert np.median(np.abs(seen.depth - view.depth)[near]) < 2e-3
        assert np.median(np.abs(seen.rgb.astype(int) - view.rgb)) == 0


@pytest.mark.parametrize("transport", BOTH)
def test_a_key_frame_is_carried_out(rig: Rig, deploy: Make, transport: str) -> None:
    environment = deploy(transport, arm={"speed": 1.0})
    action = far_action(environment, gripper_open=False)
    frames = []
    outcome = environment.step(action, frames.append)
    assert outcome.failure is None
    distance, turn = error(outcome.observation.gripper_pose, action)
    assert distance < 0.005 and turn < 0.05
    assert outcome.observation.gripper_open == 0.0
    assert len(frames) > 10
    outcome = environment.step(replace(far_action(environment), gripper_open=True))
    assert outcome.failure is None and outcome.observation.gripper_open == 1.0


def test_frankas_own_gripper(rig: Rig, deploy: Make) -> None:
    environment = deploy("rclpy", arm={"speed": 1.0}, gripper={"driver": "franka"})
    for opened in (False, True):
        outcome = environment.step(far_action(environment, gripper_open=opened))
        assert outcome.failure is None and bool(outcome.observation.gripper_open) == opened


@pytest.mark.parametrize("transport", BOTH)
def test_a_cartesian_controller(rig: Rig, deploy: Make, transport: str) -> None:
    environment = deploy(transport, arm={"speed": 1.0, "execution": "pose"})
    here = environment.observe().gripper_pose
    action = far_action(environment, position=here[:3] + [0.05, 0.05, -0.05], quaternion=here[3:])
    outcome = environment.step(action)
    assert outcome.failure is None
    assert error(outcome.observation.gripper_pose, action)[0] < 0.006


def test_compressed_pictures_over_the_bridge(bridge: object, deploy: Make, ros_python: str) -> None:
    """A second rehearsal arm, which sends JPEG and PNG."""
    topics = {name: f"/packed/{{camera}}/{name}/image_raw" for name in ("color", "depth")}
    topics["info"] = "/packed/{camera}/color/camera_info"
    packed = Rig("env.topics.compressed=true", *(f"env.topics.{name}={path}" for name, path in topics.items()))
    try:
        environment = deploy("rosbridge", topics={"compressed": True, **topics})
        view = environment.observe().cameras["front"]
        with MujocoEnvironment("push_buttons", CAMERAS, 128) as simulator:
            direct = simulator.reset(0, 0).observation.cameras["front"]
        near = direct.depth < 2.9
        assert np.median(np.abs(view.depth - direct.depth)[near]) < 2e-3
        assert np.abs(view.rgb.astype(int) - direct.rgb).mean() < 4
    finally:
        packed.close()


@pytest.mark.parametrize("transport", BOTH)
def test_the_scripted_expert_solves_its_task(rig: Rig, deploy: Make, transport: str) -> None:
    """The expert's key-frames for the same scene, carried out over ROS, solve it: the rehearsal arm says so itself."""
    environment = deploy(transport, arm={"speed": 1.0})
    with MujocoEnvironment("push_buttons", (), 128) as simulator:
        simulator.reset(3, 0)
        environment.reset(3, 0)
        outcome = None
        begin = time.monotonic()
        for action in simulator.expert():
            simulator.step(action)
            outcome = environment.step(action)
            assert outcome.failure is None, outcome.failure
            if outcome.success:
                break
    print(f"{transport}: solved after {time.monotonic() - begin:.1f} s")
    assert outcome is not None and outcome.success
