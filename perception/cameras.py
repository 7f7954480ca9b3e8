"""The one place for camera geometry: intrinsics, projection, back-projection, look-at poses.

Conventions as in `envs.interface`: OpenCV axes (x right, y down, z forward), `T_world_camera`, depth along z in metres,
pixel (u, v) looks along ((u - cx) / fx, (v - cy) / fy, 1).
"""

from __future__ import annotations

import numpy as np


def intrinsics_from_fov(fov_y: float, height: int, width: int) -> np.ndarray:
    """[3, 3] intrinsics of a pinhole camera with square pixels and vertical field of view `fov_y` (radians).

    Pixel centres lie at integers, so the optical axis passes at ((width - 1) / 2, (height - 1) / 2).
    """
    focal = 0.5 * height / np.tan(0.5 * fov_y)
    return np.array([[focal, 0.0, (width - 1) / 2], [0.0, focal, (height - 1) / 2], [0.0, 0.0, 1.0]])


def look_at(position: np.ndarray, target: np.ndarray) -> np.ndarray:
    """[4, 4] `T_world_camera` of a camera at `position` that looks at `target`, world z up in the picture."""
    forward = np.asarray(target, float) - np.asarray(position, float)
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    if np.linalg.norm(right) < 1e-6:  # straight up or down: any roll is upright, take world x
        right = np.array([1.0, 0.0, 0.0])
    right /= np.linalg.norm(right)
    T_world_camera = np.eye(4)
    T_world_camera[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    T_world_camera[:3, 3] = position
    return T_world_camera


def back_project(depth: np.ndarray, intrinsics: np.ndarray, T_world_camera: np.ndarray) -> np.ndarray:
    """World points of every pixel.

    Args:
        depth: [H, W] metres along the camera's z.
        intrinsics: [3, 3]. T_world_camera: [4, 4].

    Returns:
        [H, W, 3] float32 world points.
    """
    height, width = depth.shape
    x = (np.arange(width) - intrinsics[0, 2]) / intrinsics[0, 0]
    y = (np.arange(height) - intrinsics[1, 2]) / intrinsics[1, 1]
    # The inverse of what `project` applies. It equals the rotation but for rounding (stored poses are orthonormal to
    # 1e-7), and RLBench inverts too: points on the face between two cells then fall into the same one.
    rotation = np.linalg.inv(T_world_camera[:3, :3].T)
    points = np.empty((height, width, 3), np.float32)
    for axis, (right, down, ahead) in enumerate(rotation):
        ray = right * x + (down * y + ahead)[:, None]
        points[..., axis] = ray * depth + T_world_camera[axis, 3]
    return points


def project(points: np.ndarray, intrinsics: np.ndarray, T_world_camera: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and depths of world points.

    Args:
        points: [..., 3] world metres.

    Returns:
        uv [..., 2] pixels (not rounded) and depth [...] metres; a point behind the camera has a depth ≤ 0 and its
        pixel means nothing.
    """
    local = (points - T_world_camera[:3, 3]) @ T_world_camera[:3, :3]
    z = local[..., 2]
    safe = np.where(np.abs(z) < 1e-9, 1e-9, z)
    uv = np.stack(
        [
            intrinsics[0, 0] * local[..., 0] / safe + intrinsics[0, 2],
            intrinsics[1, 1] * local[..., 1] / safe + intrinsics[1, 2],
        ],
        axis=-1,
    )
    return uv, z
