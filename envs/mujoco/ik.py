"""Inverse kinematics of the arm: damped least squares with a pull towards the comfortable middle in the null space."""

from __future__ import annotations

import mujoco
import numpy as np

from envs.mujoco.panda import COMFORTABLE
from envs.mujoco.simulation import Simulation

POSITION_TOLERANCE = 2e-4  # metres
ROTATION_TOLERANCE = 2e-3  # radians
_ITERATIONS = 120
_LARGEST_TURN = 0.3  # radians a joint may turn in one iteration: the linear model is not good for more
_NULL_SPACE_PULL = 0.02


def rotation_vector(rotation: np.ndarray) -> np.ndarray:
    """[3] axis times angle (radians, at most pi) of a rotation matrix [3, 3]."""
    quaternion, vector = np.zeros(4), np.zeros(3)
    mujoco.mju_mat2Quat(quaternion, np.ascontiguousarray(rotation).ravel())
    mujoco.mju_quat2Vel(vector, quaternion, 1.0)
    return vector


def rotation_matrix(vector: np.ndarray) -> np.ndarray:
    """[3, 3] rotation about `vector` by its length (radians)."""
    angle = np.linalg.norm(vector)
    if angle < 1e-12:
        return np.eye(3)
    quaternion, matrix = np.zeros(4), np.zeros(9)
    mujoco.mju_axisAngle2Quat(quaternion, vector / angle, angle)
    mujoco.mju_quat2Mat(matrix, quaternion)
    return matrix.reshape(3, 3)


class InverseKinematics:
    """Solves for the arm of one simulation, on a state of its own: the simulation is not touched."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._data = mujoco.MjData(simulation.model)
        self._jacobian = np.zeros((6, simulation.model.nv))

    def forward(self, joints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """World position [3] and rotation [3, 3] of the tool at joint positions [7]."""
        self._data.qpos[self._simulation.arm_positions] = joints
        mujoco.mj_kinematics(self._simulation.model, self._data)
        tool = self._simulation.tool
        return self._data.site_xpos[tool].copy(), self._data.site_xmat[tool].reshape(3, 3).copy()

    def solve(self, position: np.ndarray, rotation: np.ndarray, seed: np.ndarray) -> np.ndarray | None:
        """Joint positions [7] that bring the tool to a world pose, starting from `seed` [7]; None if none is found."""
        simulation, model, data, jacobian = self._simulation, self._simulation.model, self._data, self._jacobian
        joints = np.clip(seed, simulation.joint_low + 1e-3, simulation.joint_high - 1e-3)
        for _ in range(_ITERATIONS):
            reached, axes = self.forward(joints)
            error = np.concatenate([position - reached, rotation_vector(rotation @ axes.T)])
            if np.linalg.norm(error[:3]) < POSITION_TOLERANCE and np.linalg.norm(error[3:]) < ROTATION_TOLERANCE:
                return joints
            mujoco.mj_comPos(model, data)
            mujoco.mj_jacSite(model, data, jacobian[:3], jacobian[3:], simulation.tool)
            arm = jacobian[:, simulation.arm_velocities]
            damping = 1e-3 + 0.02 * min(1.0, float(np.linalg.norm(error)))
            inverse = arm.T @ np.linalg.inv(arm @ arm.T + damping**2 * np.eye(6))
            comfort = _NULL_SPACE_PULL * (COMFORTABLE - joints)
            turn = inverse @ error + comfort - inverse @ (arm @ comfort)
            largest = np.abs(turn).max()
            if largest > _LARGEST_TURN:
                turn *= _LARGEST_TURN / largest
            joints = np.clip(joints + turn, simulation.joint_low + 1e-3, simulation.joint_high - 1e-3)
        return None
