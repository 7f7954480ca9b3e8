"""RLBench's camera axes and ours: the conversion happens here and nowhere else.

RLBench's cameras look along +z with x left and y up, which shows as negative focal lengths; ours are OpenCV's (x right,
y down). Converting flips signs only, so it loses nothing in either direction.
"""

from __future__ import annotations

import numpy as np


def flip_axes(intrinsics: np.ndarray, extrinsics: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A pinhole with its negative focal lengths made positive by turning the camera's axes: the same rays.

    Args:
        intrinsics: [3, 3], extrinsics: [4, 4] camera to world, with RLBench's axes (or already OpenCV's: unchanged).

    Returns:
        intrinsics and T_world_camera with OpenCV's axes.
    """
    signs = np.where(np.diag(intrinsics)[:2] < 0, -1.0, 1.0)
    upright = intrinsics.copy()
    upright[[0, 1], [0, 1]] *= signs
    return upright, extrinsics * [*signs, 1.0, 1.0]


def to_rlbench(intrinsics: np.ndarray, T_world_camera: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The inverse of `flip_axes`: a pinhole with OpenCV's axes as RLBench describes it."""
    negative = intrinsics.copy()
    negative[[0, 1], [0, 1]] *= -1.0
    return negative, T_world_camera * [-1.0, -1.0, 1.0, 1.0]
