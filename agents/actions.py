"""Actions as classes and back: cells of a voxel grid, rotation bins, and the gripper's half-turn symmetry.

The published discretisation (PerAct, section 3.2) is `discretize_position` and `discretize_rotation` with their inverses;
it is exact and used as it is for the paper's presets. `ToolFrame` adds what a small data set needs on top: yaw relative
to the tool's present yaw, and one representative of the two orientations that are the same to a parallel gripper.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

HALF_TURN = Rotation.from_euler("z", np.pi)
"""A parallel gripper turned by this about its own z axis is the same gripper."""

YAW_WINDOW = -60.0
"""Degrees: of the two equal orientations the one with Euler z in [-60, 120) represents both. Grasps are usually aligned
or square to something, so that the cut lies where few labels are."""


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


def canonical(rotation: Rotation) -> Rotation:
    """Of a rotation and its half turn about the tool's z, the one whose Euler z lies in [-60°, 120°)."""
    yaw = rotation.as_euler("xyz", degrees=True)[2]
    return rotation if YAW_WINDOW <= yaw < YAW_WINDOW + 180.0 else rotation * HALF_TURN


def rotation_error(a: np.ndarray, b: np.ndarray, symmetric: bool = True) -> float:
    """Angle in radians between two orientations (quaternions xyzw), up to the gripper's half turn if `symmetric`."""
    first, second = Rotation.from_quat(a), Rotation.from_quat(b)
    angle = (first.inv() * second).magnitude()
    return float(min(angle, (first.inv() * second * HALF_TURN).magnitude()) if symmetric else angle)


class ToolFrame:
    """Rotation labels as the agent learns them.

    Args:
        relative_yaw: measure yaw from the tool's present yaw instead of from world x. Absolute yaw under augmentation
            must be inferred from proprioception and is learned badly from few demonstrations.
        symmetric: label the representative of the two equal orientations of a parallel gripper.
        bins: number of bins per Euler angle.
    """

    def __init__(self, relative_yaw: bool, symmetric: bool, bins: int = 72) -> None:
        self.relative_yaw, self.symmetric, self.bins = relative_yaw, symmetric, bins

    def _base(self, tool_quaternion: np.ndarray) -> Rotation:
        if not self.relative_yaw:
            return Rotation.identity()
        tool = Rotation.from_quat(tool_quaternion)
        if self.symmetric:
            tool = canonical(tool)
        return Rotation.from_euler("z", tool.as_euler("xyz")[2])

    def encode(self, quaternion: np.ndarray, tool_quaternion: np.ndarray) -> np.ndarray:
        """[3] fractional bins in [0, bins) of a goal orientation seen from the tool's present orientation."""
        rotation = self._base(tool_quaternion).inv() * Rotation.from_quat(quaternion)
        if self.symmetric:
            rotation = canonical(rotation)
        degrees = rotation.as_euler("xyz", degrees=True)
        return ((degrees + 180.0) * self.bins / 360.0) % self.bins

    def decode(self, index: np.ndarray, tool_quaternion: np.ndarray) -> np.ndarray:
        """[4] quaternion xyzw of (fractional) bins: the inverse of `encode`, up to the half turn if symmetric."""
        relative = Rotation.from_euler("xyz", np.asarray(index) * 360.0 / self.bins - 180.0, degrees=True)
        quaternion = (self._base(tool_quaternion) * relative).as_quat()
        return quaternion if quaternion[3] >= 0 else -quaternion
