"""What a calibration is worth: errors that were put in are found again, in a scene of the simulator."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from envs.interface import Action, Observation
from envs.mujoco.environment import MujocoEnvironment
from envs.ros.calibration.agreement import Surface, agreement, agreements, fit, surface
from envs.ros.calibration.check import Check, check, write_pictures
from envs.ros.calibration.hand import appearance, boxes_of, hand_depth, opened
from envs.ros.calibration.hand_eye import motion
from envs.ros.geometry import pose_distance, pose_matrix
from manifield.configuration import compose
from manifield.errors import InputError

FRANKA_HAND = boxes_of(compose("calibrate", []).gripper)
LOW, HIGH = (-0.3, -0.5, 0.7), (0.7, 0.5, 1.6)
SHIFTED = motion(np.array([0.004, -0.003, 0.005, 0.009, -0.007, 0.006]))
SHIFTED[:3, 3] += [0.25, 0.0, 0.9] - SHIFTED[:3, :3] @ [0.25, 0.0, 0.9]  # a turn about the middle of the scene


@pytest.fixture(scope="module")
def seen() -> Observation:
    """The hand over a table with things on it, before all cameras."""
    with MujocoEnvironment("stack_blocks", ("front", "left_shoulder", "wrist"), 128) as environment:
        environment.reset(1, 0)
        quaternion = Rotation.from_euler("xz", [180, 35], degrees=True).as_quat()
        outcome = environment.step(Action(np.array([0.3, 0.1, 0.95]), quaternion, True, False))
        assert outcome.failure is None
        return outcome.observation


def moved(seen: Observation, camera: str, T: np.ndarray) -> Observation:
    """The observation with one camera believed to stand elsewhere."""
    view = seen.cameras[camera]
    return replace(seen, cameras=seen.cameras | {camera: replace(view, T_world_camera=T @ view.T_world_camera)})


def test_true_cameras_agree(seen: Observation) -> None:
    found = check(seen, FRANKA_HAND, LOW, HIGH)
    assert {(pair.first, pair.second) for pair in found.pairs} == {
        ("front", "left_shoulder"),
        ("front", "wrist"),
        ("left_shoulder", "wrist"),
    }
    for pair in found.pairs:
        assert pair.median < 0.0005 and pair.most < 0.003 and pair.shift < 0.002 and pair.turn < 0.003
    assert found.worst < 0.005 and "good" in found.verdict()


def test_a_camera_that_stands_elsewhere_is_found_by_the_clouds(seen: Observation) -> None:
    bad = check(moved(seen, "front", SHIFTED), FRANKA_HAND, LOW, HIGH)
    with_front = [pair for pair in bad.pairs if pair.first == "front"]
    assert with_front and all(pair.most > 0.004 for pair in with_front)
    other = next(pair for pair in bad.pairs if pair.first != "front")
    assert other.most < 0.003
    assert bad.worst > 0.01 and "calibrate again" in bad.verdict()


def test_the_motion_between_two_clouds_is_found_where_shapes_fix_it() -> None:
    """Three walls of a corner fix all six directions."""
    rng = np.random.default_rng(0)
    points, normals = [], []
    for axis in range(3):
        wall = rng.uniform(0, 0.4, (2000, 3))
        wall[:, axis] = 0.0
        points.append(wall)
        normals.append(np.tile(np.eye(3)[axis], (2000, 1)))
    corner = Surface(np.concatenate(points), np.concatenate(normals))
    away = motion(np.array([0.02, -0.015, 0.01, 0.008, 0.01, -0.006]))
    found, free = fit(corner, corner.moved(away))
    metres, radians = pose_distance(found, np.linalg.inv(away))
    assert free == 0 and metres < 0.0005 and radians < 0.001
    one_wall = Surface(corner.points[:2000], corner.normals[:2000])
    found, free = fit(one_wall, one_wall.moved(motion(np.array([0.0, 0, 0, 0.005, 0.02, 0.01]))))
    assert free == 3  # along the wall, and about its normal, nothing is fixed: and nothing moved
    assert np.allclose(found[:3, 3], [-0.005, 0, 0], atol=2e-4)


def test_clouds_that_share_too_little_say_nothing(seen: Observation) -> None:
    assert agreements(seen.cameras, (5, 5, 5), (6, 6, 6)) == []
    empty = surface(seen.cameras["front"], (5, 5, 5), (6, 6, 6))
    assert agreement("a", "b", {"a": empty, "b": surface(seen.cameras["wrist"], LOW, HIGH)}) is None
    nothing = Check([], {"front": None})
    assert "nothing could be compared" in nothing.verdict() and "not in the picture" in nothing.table()


def test_surfaces_lie_on_the_table_and_face_the_camera(seen: Observation) -> None:
    table = surface(seen.cameras["front"], (0.0, -0.4, 0.74), (0.6, 0.4, 0.757))
    assert len(table.points) > 500
    assert np.abs(np.median(table.points[:, 2]) - 0.752) < 1e-3
    assert np.median(table.normals[:, 2]) > 0.999


def test_where_the_hand_appears(seen: Observation) -> None:
    T, hand = pose_matrix(seen.gripper_pose), opened(FRANKA_HAND, seen.gripper_joint_positions)
    for camera in ("front", "wrist"):
        found = appearance(camera, seen.cameras[camera], T, hand)
        assert found is not None and found.seen > 0.5 and found.distance < 0.004, camera
        bad = moved(seen, camera, SHIFTED).cameras[camera]
        # Where this camera puts things that stand where the hand is.
        true = SHIFTED[:3, :3] @ T[:3, 3] + SHIFTED[:3, 3] - T[:3, 3]
        off = appearance(camera, bad, T, hand)
        assert off is not None and np.linalg.norm(off.shift - true) < 0.006, camera
    away = moved(seen, "front", motion(np.array([0, 0, 0, 0, 0, 3.0]))).cameras["front"]
    assert appearance("front", away, T, hand) is None


def test_the_hand_is_drawn_where_it_is_seen(seen: Observation, tmp_path: Path) -> None:
    view = seen.cameras["front"]
    depth = hand_depth(view, pose_matrix(seen.gripper_pose), opened(FRANKA_HAND, seen.gripper_joint_positions))
    shown = np.isfinite(depth)
    assert shown.sum() > 60 and np.median(np.abs(depth[shown] - view.depth[shown])) < 0.004
    paths = write_pictures(tmp_path / "out", seen, FRANKA_HAND)
    assert [path.name for path in paths] == ["check_front.png", "check_left_shoulder.png", "check_wrist.png"]
    picture = np.asarray(Image.open(paths[0]))
    assert picture.shape == (640, 640, 3) and (picture == [0, 229, 255]).all(axis=-1).sum() > 100


def test_boxes_that_are_none_are_named() -> None:
    for entry in (
        {"centre": [0, 0, 0]},
        {"centre": [0, 0], "half": [1, 1, 1]},
        {"centre": [0, 0, 0], "half": [1, 1, 0]},
        3,
    ):
        with pytest.raises(InputError, match="gripper.0"):
            boxes_of([entry])  # type: ignore[list-item]
