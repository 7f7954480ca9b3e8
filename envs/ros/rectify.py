"""From a camera's picture to what a policy was trained on: lens distortion taken out, cropped to a square, scaled."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image as Picture

from envs.ros.messages import CameraInfo

_NO_DISTORTION = 1e-6
_MODELS = ("plumb_bob", "rational_polynomial", "")


class CannotRectify(ValueError):
    """The calibration is of a kind that is not known; the message names it."""


def square_intrinsics(intrinsics: np.ndarray, height: int, width: int, size: int) -> np.ndarray:
    """[3, 3] intrinsics after the middle square of a height x width picture was scaled to size x size."""
    side = min(height, width)
    scale = size / side
    changed = np.array(intrinsics, float)
    for axis, extent in ((0, width), (1, height)):
        start = (extent - side) // 2
        changed[axis] *= scale
        changed[axis, 2] = (intrinsics[axis, 2] - start + 0.5) * scale - 0.5  # pixel centres lie at integers
    return changed


def square(array: np.ndarray, size: int, smooth: bool) -> np.ndarray:
    """The middle square of a picture [H, W(, 3)], scaled to size x size. smooth: average (colour) or pick (depth)."""
    height, width = array.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    cut = array[top : top + side, left : left + side]
    if side == size:
        return np.ascontiguousarray(cut)
    if smooth and array.dtype == np.uint8:
        way = Picture.Resampling.BOX if size < side else Picture.Resampling.BILINEAR
        return np.asarray(Picture.fromarray(np.ascontiguousarray(cut)).resize((size, size), way))
    # The pixel in whose area the new one's centre lies: depths of two surfaces must not be averaged.
    picks = np.minimum(((np.arange(size) + 0.5) * side / size).astype(int), side - 1)
    return np.ascontiguousarray(cut[picks][:, picks])


def undistorted(color: np.ndarray, depth: np.ndarray, info: CameraInfo) -> tuple[np.ndarray, np.ndarray]:
    """Both pictures as a camera without lens distortion, but with the same intrinsics, would have taken them.

    Raises:
        CannotRectify: another distortion model than Brown's (plumb_bob, rational_polynomial).
    """
    if np.abs(info.distortion).max(initial=0.0) < _NO_DISTORTION:
        return color, depth
    if info.distortion_model not in _MODELS:
        raise CannotRectify(
            f"lens distortion of model {info.distortion_model} is not known: publish rectified pictures"
        )
    coefficients = np.zeros(8)  # k1 k2 p1 p2 k3, and k4 k5 k6 of the rational model
    coefficients[: len(info.distortion)] = info.distortion[:8]
    u, v = _source_pixels(info.height, info.width, tuple(info.intrinsics.ravel()), tuple(coefficients))
    rows, columns = np.rint(v).astype(int), np.rint(u).astype(int)
    inside = (rows >= 0) & (rows < info.height) & (columns >= 0) & (columns < info.width)
    rows, columns = rows.clip(0, info.height - 1), columns.clip(0, info.width - 1)
    straight_depth = np.where(inside, depth[rows, columns], 0).astype(depth.dtype)
    left, top = np.floor(u).clip(0, info.width - 2).astype(int), np.floor(v).clip(0, info.height - 2).astype(int)
    right, down = (u - left).clip(0, 1)[..., None], (v - top).clip(0, 1)[..., None]
    mixed = (1 - down) * ((1 - right) * color[top, left] + right * color[top, left + 1])
    mixed += down * ((1 - right) * color[top + 1, left] + right * color[top + 1, left + 1])
    return np.rint(mixed * inside[..., None]).astype(np.uint8), straight_depth


@lru_cache(maxsize=32)
def _source_pixels(
    height: int, width: int, intrinsics: tuple[float, ...], distortion: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Where in the distorted picture each pixel of the straight one lies: u, v [H, W] (Brown's model)."""
    fx, _, cx, _, fy, cy = intrinsics[:6]
    k1, k2, p1, p2, k3, k4, k5, k6 = distortion
    y, x = np.meshgrid((np.arange(height) - cy) / fy, (np.arange(width) - cx) / fx, indexing="ij")
    r2 = x * x + y * y
    radial = (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
    bent_x = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
    bent_y = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
    return bent_x * fx + cx, bent_y * fy + cy
