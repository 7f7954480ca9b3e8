"""Frames over time: interpolation, chains in any direction, and refusals that say what is missing."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from envs.ros.frames import FrameTree, NoTransform
from envs.ros.geometry import interpolate, pose_distance, pose_matrix, pose_vector
from envs.ros.messages import Transform

SECOND = 10**9


def random_pose(rng: np.random.Generator) -> np.ndarray:
    return pose_matrix([*rng.normal(size=3), *Rotation.random(random_state=rng.integers(2**31)).as_quat()])


def test_pose_and_its_seven_numbers() -> None:
    pose = random_pose(np.random.default_rng(0))
    assert np.allclose(pose_matrix(pose_vector(pose)), pose)
    distance, turn = pose_distance(pose, pose @ pose_matrix([0, 0, 0.5, 0, 0, np.sin(0.2), np.cos(0.2)]))
    assert distance == pytest.approx(0.5) and turn == pytest.approx(0.4)


def test_interpolation_is_exact_for_a_screw() -> None:
    first = np.eye(4)
    second = pose_matrix([1.0, 0, 0, 0, 0, np.sin(0.5), np.cos(0.5)])
    middle = interpolate(first, second, 0.25)
    assert np.allclose(middle[:3, 3], [0.25, 0, 0])
    assert np.allclose(Rotation.from_matrix(middle[:3, :3]).as_rotvec(), [0, 0, 0.25])


def test_chains_in_any_direction() -> None:
    rng = np.random.default_rng(1)
    base_hand, hand_cam, base_marker = (random_pose(rng) for _ in range(3))
    tree = FrameTree()
    tree.add(Transform(0, "hand", "cam", hand_cam), is_static=True)
    tree.add(Transform(SECOND, "base", "hand", base_hand))
    tree.add(Transform(0, "base", "marker", base_marker), is_static=True)
    assert np.allclose(tree.lookup("base", "cam"), base_hand @ hand_cam)
    assert np.allclose(tree.lookup("cam", "marker"), np.linalg.inv(base_hand @ hand_cam) @ base_marker)
    assert np.allclose(tree.lookup("cam", "cam"), np.eye(4))


def test_where_it_was_then() -> None:
    tree = FrameTree()
    for k in (2, 0, 1):  # out of order, as it happens on a network
        tree.add(Transform(k * SECOND, "base", "hand", pose_matrix([k, 0, 0, 0, 0, 0, 1])))
    assert tree.lookup("base", "hand", SECOND // 2)[0, 3] == pytest.approx(0.5)
    assert tree.lookup("base", "hand", 2 * SECOND)[0, 3] == 2
    assert tree.lookup("base", "hand", 2 * SECOND + 5, tolerance=10)[0, 3] == 2
    with pytest.raises(NoTransform, match="0.500 s behind"):
        tree.lookup("base", "hand", 5 * SECOND // 2, tolerance=10)
    with pytest.raises(NoTransform, match="known only from"):
        tree.lookup("base", "hand", -1)


def test_history_is_bounded() -> None:
    tree = FrameTree(history=SECOND)
    for k in range(1000):
        tree.add(Transform(k * SECOND // 100, "base", "hand", np.eye(4)))
    assert tree.newest("hand") == 999 * SECOND // 100
    with pytest.raises(NoTransform):
        tree.lookup("base", "hand", 8 * SECOND)
    assert len(tree._moving["hand"][0]) <= 101


def test_what_is_missing_is_said() -> None:
    tree = FrameTree()
    tree.add(Transform(0, "base", "hand", np.eye(4)))
    tree.add(Transform(0, "map", "table", np.eye(4)))
    with pytest.raises(NoTransform, match="frame cam is not known; known: base, hand, map, table"):
        tree.lookup("base", "cam")
    with pytest.raises(NoTransform, match="not connected"):
        tree.lookup("base", "table")
    tree.add(Transform(0, "hand", "base", np.eye(4)))
    with pytest.raises(NoTransform, match="circle"):
        tree.lookup("base", "hand")
