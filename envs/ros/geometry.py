"""Poses as 4x4 matrices and as seven numbers (position, quaternion xyzw), and frames over time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.spatial.transform import Rotation, Slerp


def pose_matrix(vector: Sequence[float] | np.ndarray) -> np.ndarray:
    """[4, 4] of [7] position (metres) and quaternion xyzw (normalised here)."""
    values = np.asarray(vector, float)
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_quat(values[3:]).as_matrix()
    matrix[:3, 3] = values[:3]
    return matrix


def pose_vector(matrix: np.ndarray) -> np.ndarray:
    """[7] position and quaternion xyzw of a pose [4, 4]."""
    return np.concatenate([matrix[:3, 3], Rotation.from_matrix(matrix[:3, :3]).as_quat()])


def interpolate(first: np.ndarray, second: np.ndarray, share: float) -> np.ndarray:
    """[4, 4] between two poses: `share` 0 is the first, 1 the second; the rotation along the shortest arc."""
    matrix = np.eye(4)
    turn = Slerp([0.0, 1.0], Rotation.from_matrix(np.stack([first[:3, :3], second[:3, :3]])))
    matrix[:3, :3] = turn(share).as_matrix()
    matrix[:3, 3] = (1.0 - share) * first[:3, 3] + share * second[:3, 3]
    return matrix


def pose_distance(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Metres and radians between two poses [4, 4]."""
    turn = Rotation.from_matrix(first[:3, :3].T @ second[:3, :3]).magnitude()
    return float(np.linalg.norm(first[:3, 3] - second[:3, 3])), float(turn)
