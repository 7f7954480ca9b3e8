"""An observation belongs to one moment and to sound sensors; every way of not being sound is told apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from envs.ros.messages import CameraInfo
from envs.ros.rectify import square, square_intrinsics, undistorted
from envs.ros.sensing import SensorFault
from perception.cameras import project
from tests.envs.ros.robot_feed import RobotFeed, make_config


@pytest.fixture
def robot() -> RobotFeed:
    feed = RobotFeed(make_config(("front", "wrist")))
    feed.run(0.3)
    return feed


def kinds(robot: RobotFeed) -> set[str]:
    return {fault.kind for fault in robot.sensors.faults()}


def test_a_healthy_robot(robot: RobotFeed) -> None:
    assert kinds(robot) == set()
    seen = robot.sensors.observe()
    observation = seen.observation
    assert set(observation.cameras) == {"front", "wrist"} and seen.age == 0.0
    view = observation.cameras["front"]
    assert view.rgb.shape == (16, 16, 3) and np.allclose(view.depth, 1.5)
    # The base is at (-0.3, 0, 0.752) in the world, the camera at (1, 0, 0.8) in the base.
    assert np.allclose(view.T_world_camera[:3, 3], [0.7, 0.0, 1.552])
    assert np.allclose(observation.joint_positions, robot.joints)
    assert np.allclose(observation.gripper_pose[:3], robot.scene.tool_pose(robot.joints)[:3, 3])
    assert observation.gripper_open == 1.0 and np.allclose(observation.gripper_joint_positions, 0.04)


def test_nothing_heard_yet() -> None:
    feed = RobotFeed(make_config())
    assert kinds(feed) == {"emergency stop", "stale"}
    with pytest.raises(SensorFault, match="nothing heard on /e_stop yet"):
        feed.sensors.observe(timeout=0.0)


@pytest.mark.parametrize(
    ("changes", "seconds", "kind"),
    [
        ({"joints": False}, 0.12, "stale"),
        ({"color": False}, 0.16, "stale"),
        ({"depth": False}, 0.16, "stale"),
        ({"skew": 0.2}, 0.05, "skew"),
        ({"skew": -0.4}, 0.05, "old"),
        ({"depth_lag": 0.2}, 0.3, "mismatch"),
        ({"pressed": True}, 0.02, "emergency stop"),
        ({"stop": False}, 1.1, "emergency stop"),
        ({"positions": np.full(7, np.nan)}, 0.02, "invalid"),
    ],
)
def test_every_fault_is_told_apart(robot: RobotFeed, changes: dict[str, Any], seconds: float, kind: str) -> None:
    robot.run(seconds, **changes)
    assert kind in kinds(robot)
    with pytest.raises(SensorFault, match=kind):
        robot.sensors.observe(timeout=0.0)
    robot.run(0.5)  # well again, apart from a jump, which a person has to look at
    assert kinds(robot) == set()


def test_a_jump_stays_until_it_is_forgiven(robot: RobotFeed) -> None:
    robot.run(0.01, positions=robot.joints + [0.5, 0, 0, 0, 0, 0, 0])
    robot.run(0.5)
    assert kinds(robot) == {"jump"}
    robot.sensors.forgive()
    assert kinds(robot) == set()


def test_a_fast_joint_has_not_jumped(robot: RobotFeed) -> None:
    for _ in range(50):
        robot.joints = robot.joints + 0.02  # 2 rad/s
        robot.run(0.01)
    assert kinds(robot) == set()


def test_after_a_reconnection_nothing_old_counts(robot: RobotFeed) -> None:
    session = robot.sensors.observe().session
    robot.transport.drop()
    assert kinds(robot) == {"connection"}
    robot.transport.start()
    assert "stale" in kinds(robot)
    robot.run(0.1)
    assert robot.sensors.observe().session == session + 1


def test_newer_than_a_motion(robot: RobotFeed) -> None:
    with pytest.raises(SensorFault, match="since the last motion"):
        robot.sensors.observe(after=robot.wall(), timeout=0.0)
    before = robot.wall()
    robot.run(0.02)
    assert robot.sensors.observe(after=before).stamp > before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"depth_value": 0}, "only 0% of the pixels have depth"),
        ({"tf": False}, "frames"),
    ],
)
def test_pictures_that_are_of_no_use(changes: dict[str, Any], words: str) -> None:
    feed = RobotFeed(make_config())
    feed.run(0.2, **changes)
    with pytest.raises(SensorFault, match=words):
        feed.sensors.observe(timeout=0.0)


def test_a_calibration_that_is_none_is_not_taken() -> None:
    feed = RobotFeed(make_config())
    feed.run(0.2, intrinsics=np.full((3, 3), np.nan))
    assert kinds(feed) == {"calibration"}


def test_camera_poses_from_the_config() -> None:
    pose = [0.5, 0.1, 0.9, 1.0, 0.0, 0.0, 0.0]
    feed = RobotFeed(make_config(frames={"cameras": {"front": {"frame": "panda_link0", "pose": pose}}}))
    feed.run(0.2)
    view = feed.sensors.observe().observation.cameras["front"]
    assert np.allclose(view.T_world_camera[:3, 3], [0.2, 0.1, 1.652])


def test_square_pictures_keep_their_geometry() -> None:
    """A point projects to the same place in the scene's picture, whichever picture one projects into."""
    intrinsics = np.array([[600.0, 0, 321.0], [0, 610.0, 243.0], [0, 0, 1]])
    small = square_intrinsics(intrinsics, 480, 640, 120)
    uv, _ = project(np.array([0.1, -0.05, 1.0]), intrinsics, np.eye(4))
    small_uv, _ = project(np.array([0.1, -0.05, 1.0]), small, np.eye(4))
    assert np.allclose((uv - [80, 0] + 0.5) / 4 - 0.5, small_uv)
    ramp = np.tile(np.arange(640, dtype=np.float32), (480, 1))
    assert np.allclose(square(ramp, 120, smooth=False)[0], 80 + 4 * np.arange(120) + 2)
    color = np.repeat(ramp[..., None] / 3, 3, axis=2).astype(np.uint8)
    assert square(color, 120, smooth=True).shape == (120, 120, 3)


def test_lens_distortion_is_taken_out() -> None:
    """A grid of dots drawn through Brown's model lands where the pinhole model says."""
    intrinsics = np.array([[120.0, 0, 79.5], [0, 120.0, 59.5], [0, 0, 1]])
    info = CameraInfo(0, "", 120, 160, intrinsics, np.array([-0.2, 0.05, 0.001, -0.002, 0.0]))
    color, depth = np.zeros((120, 160, 3), np.uint8), np.ones((120, 160), np.float32)
    rays = [(x, y) for x in (-0.4, 0.0, 0.35) for y in (-0.3, 0.1, 0.3)]
    k1, k2, p1, p2, _ = info.distortion
    for x, y in rays:
        r2 = x * x + y * y
        radial = 1 + k1 * r2 + k2 * r2 * r2
        u = (x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)) * 120 + 79.5
        v = (y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y) * 120 + 59.5
        color[round(v) - 1 : round(v) + 2, round(u) - 1 : round(u) + 2] = 255
        depth[round(v) - 1 : round(v) + 2, round(u) - 1 : round(u) + 2] = 2
    straight, straight_depth = undistorted(color, depth, info)
    for x, y in rays:
        u, v = round(x * 120 + 79.5), round(y * 120 + 59.5)
        assert straight[v, u].max() > 100 and straight_depth[v, u] == 2
    assert undistorted(color, depth, CameraInfo(0, "", 120, 160, intrinsics))[0] is color
