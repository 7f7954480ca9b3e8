"""The arm against the published kinematics, and the inverse kinematics against the forward ones."""

from __future__ import annotations

import numpy as np
import pytest

from envs.mujoco import panda
from envs.mujoco.ik import InverseKinematics, rotation_matrix, rotation_vector
from envs.mujoco.scene import ROBOT_BASE

# Franka's own table (modified Denavit-Hartenberg): a, d, alpha of joint 1 to 7, then the flange.
DENAVIT_HARTENBERG = (
    (0.0, 0.333, 0.0),
    (0.0, 0.0, -np.pi / 2),
    (0.0, 0.316, np.pi / 2),
    (0.0825, 0.0, np.pi / 2),
    (-0.0825, 0.384, -np.pi / 2),
    (0.0, 0.0, np.pi / 2),
    (0.088, 0.0, np.pi / 2),
    (0.0, 0.107, 0.0),
)


def published_tool_pose(joints: np.ndarray) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, 3] = ROBOT_BASE
    for (a, d, alpha), q in zip(DENAVIT_HARTENBERG, [*joints, 0.0], strict=True):
        ca, sa, cq, sq = np.cos(alpha), np.sin(alpha), np.cos(q), np.sin(q)
        pose = pose @ np.array(
            [[cq, -sq, 0, a], [sq * ca, cq * ca, -sa, -d * sa], [sq * sa, cq * sa, ca, d * ca], [0, 0, 0, 1]]
        )
    hand = np.eye(4)
    hand[:3, :3] = rotation_matrix(np.array([0.0, 0.0, -np.pi / 4]))
    return pose @ hand @ panda.T_HAND_TOOL


@pytest.fixture
def kinematics(simulate) -> InverseKinematics:
    return InverseKinematics(simulate())


def test_forward_kinematics_agree_with_the_published_table(kinematics, simulate):
    simulation = simulate()
    rng = np.random.default_rng(0)
    for joints in rng.uniform(simulation.joint_low, simulation.joint_high, (20, 7)):
        position, rotation = kinematics.forward(joints)
        expected = published_tool_pose(joints)
        np.testing.assert_allclose(position, expected[:3, 3], atol=1e-6)
        np.testing.assert_allclose(rotation, expected[:3, :3], atol=1e-6)


def test_start_pose_is_rlbenchs(simulate):
    position, rotation = simulate().tool_pose()
    # RLBench's scene mounts its arm slightly differently: the same joints bring its tool to (0.278, -0.008, 1.472).
    np.testing.assert_allclose(position, [0.2785, -0.0082, 1.472], atol=0.04)
    np.testing.assert_allclose(rotation[:, 1], [0, 1, 0], atol=1e-4)
    assert rotation[2, 2] < -0.95 and rotation[0, 0] < -0.95


def test_arm_stands_still_without_commands(simulate):
    simulation = simulate()
    before = simulation.joints.copy()
    simulation.step(1.0)
    np.testing.assert_allclose(simulation.joints, before, atol=1e-4)
    assert np.abs(simulation.joint_speeds).max() < 1e-3


def test_inverse_kinematics_round_trip(kinematics, simulate):
    simulation = simulate()
    rng = np.random.default_rng(1)
    low, high = simulation.joint_low, simulation.joint_high
    for joints in rng.uniform(low + 0.3 * (high - low), high - 0.3 * (high - low), (20, 7)):
        position, rotation = kinematics.forward(joints)
        found = kinematics.solve(position, rotation, joints + rng.normal(0, 0.15, 7))
        assert found is not None
        assert (found >= low).all() and (found <= high).all()
        reached, axes = kinematics.forward(found)
        assert np.linalg.norm(reached - position) < 5e-4
        assert np.linalg.norm(rotation_vector(rotation @ axes.T)) < 5e-3


def test_out_of_reach_has_no_solution(kinematics):
    assert kinematics.solve(np.array([1.5, 0.0, 1.0]), np.diag([-1.0, 1.0, -1.0]), panda.START) is None


def test_rotation_vector_round_trip():
    rng = np.random.default_rng(2)
    for _ in range(20):
        vector = rng.normal(size=3)
        vector *= rng.uniform(0, 3.1) / np.linalg.norm(vector)
        np.testing.assert_allclose(rotation_vector(rotation_matrix(vector)), vector, atol=1e-9)
    np.testing.assert_array_equal(rotation_matrix(np.zeros(3)), np.eye(3))
