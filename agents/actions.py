"""Actions as classes and back: cells of a voxel grid, rotation bins, and the gripper's half-turn symmetry.

The published discretisation (PerAct, section 3.2) is `discretize_position` and `discretize_rotation` with their
inverses; it is used as it is for the paper's presets. `RotationCode` adds what a small data set needs on top: a
parallel gripper turned by half a turn about its own axis is the same gripper, and labels should say so.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

HALF_TURN = Rotation.from_euler("z", np.pi)
"""A parallel gripper turned by this about its own z axis is the same gripper."""

NEARLY_DOWN = 10.0
"""Degrees from straight down within which both yaws of a symmetric gripper are right at once."""


def discretize_position(
    position: np.ndarray, low: np.ndarray, high: np.ndarray, shape: tuple[int, int, int] | np.ndarray
) -> np.ndarray:
    """[..., 3] int64 cell of a world position; outside positions go to the nearest cell.

    Args:
        position: [..., 3] metres. low, high: [3] corners of the grid. shape: cells along x, y, z.
    """
    cells = np.asarray(shape)
    index = np.floor((np.asarray(position) - low) / ((np.asarray(high) - low) / cells))
    return np.clip(index, 0, cells - 1).astype(np.int64)


def cell_centre(
    index: np.ndarray, low: np.ndarray, high: np.ndarray, shape: tuple[int, int, int] | np.ndarray
) -> np.ndarray:
    """[..., 3] world position of a cell's centre: the inverse of `discretize_position` up to half a cell."""
    return np.asarray(low) + (np.asarray(index) + 0.5) * (np.asarray(high) - low) / np.asarray(shape)


def discretize_rotation(quaternion: np.ndarray, bins: int = 72) -> np.ndarray:
    """[3] int64 bins of the extrinsic xyz Euler angles of a quaternion xyzw, nearest bin, ±180° are one bin."""
    degrees = Rotation.from_quat(quaternion).as_euler("xyz", degrees=True)
    return np.round((degrees + 180.0) * bins / 360.0).astype(np.int64) % bins


def undiscretize_rotation(index: np.ndarray, bins: int = 72) -> np.ndarray:
    """[4] quaternion xyzw, w ≥ 0, at the centre of the bins: the inverse of `discretize_rotation` up to half a bin."""
    quaternion = Rotation.from_euler("xyz", np.asarray(index) * 360.0 / bins - 180.0, degrees=True).as_quat()
    return quaternion if quaternion[3] >= 0 else -quaternion


def canonical_euler(quaternion: np.ndarray) -> np.ndarray:
    """[3] extrinsic xyz Euler angles in degrees of a quaternion or its half turn: the one with x in [0, 180].

    The half turn takes (x, y, z) to (-x, -y, z + 180): a gripper that points sideways has one such code, one that
    points straight down has two, with yaws half a turn apart.
    """
    degrees = Rotation.from_quat(quaternion).as_euler("xyz", degrees=True)
    return degrees if degrees[0] >= 0 else (Rotation.from_quat(quaternion) * HALF_TURN).as_euler("xyz", degrees=True)


def rotation_error(a: np.ndarray, b: np.ndarray, symmetric: bool = True) -> float:
    """Angle in radians between two orientations (quaternions xyzw), up to the gripper's half turn if `symmetric`."""
    first, second = Rotation.from_quat(a), Rotation.from_quat(b)
    angle = (first.inv() * second).magnitude()
    return float(min(angle, (first.inv() * second * HALF_TURN).magnitude()) if symmetric else angle)


class RotationCode:
    """Rotation labels as the agent learns them: a distribution over the bins of each Euler angle.

    Args:
        symmetric: a half turn about the tool's axis changes nothing (a parallel gripper).
        soft: spread a label over the neighbouring bins (a Gaussian of one bin) instead of one-hot.
        bins: number of bins per Euler angle.
    """

    def __init__(self, symmetric: bool, soft: bool, bins: int = 72) -> None:
        self.symmetric, self.soft, self.bins = symmetric, soft, bins

    def labels(self, quaternion: np.ndarray) -> np.ndarray:
        """[3, bins] float32 label distributions of an orientation."""
        degrees = self._euler(quaternion)
        label = self._around((degrees + 180.0) * self.bins / 360.0)
        if self.symmetric and 180.0 - abs(degrees[0]) < NEARLY_DOWN and abs(degrees[1]) < NEARLY_DOWN:
            label[2] = (label[2] + np.roll(label[2], self.bins // 2)) / 2
        return label.astype(np.float32)

    def _around(self, place: np.ndarray) -> np.ndarray:
        distance = (np.arange(self.bins) - place[:, None] + self.bins / 2) % self.bins - self.bins / 2
        if not self.soft:
            return (np.round(place)[:, None] % self.bins == np.arange(self.bins)).astype(float)
        label = np.exp(-(distance**2) / 2)
        return label / label.sum(axis=1, keepdims=True)

    def tool_yaw(self, quaternion: np.ndarray) -> float:
        """Yaw of an orientation in bins, in [0, bins); modulo half a turn where the gripper is symmetric."""
        period = self.bins // 2 if self.symmetric else self.bins
        return float((self._euler(quaternion)[2] + 180.0) * self.bins / 360.0 % period)

    def _euler(self, quaternion: np.ndarray) -> np.ndarray:
        if self.symmetric:
            return canonical_euler(quaternion)
        return Rotation.from_quat(quaternion).as_euler("xyz", degrees=True)

    def decode(self, index: np.ndarray) -> np.ndarray:
        """[4] quaternion xyzw at the centre of the bins [3]."""
        return undiscretize_rotation(index, self.bins)
