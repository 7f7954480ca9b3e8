"""Augmentation that moves the scene as a whole: points, tool, goal and cameras by one rigid transform.

Everything is turned from the left, p → R p + t and orientation → R · orientation, so that it is right for any gripper
orientation. (The published code turns points by Rᵀ and the action by q · R, which agrees only for a gripper that points
straight down.)
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.spatial.transform import Rotation

from demos.dataset import Sample


def random_transform(rng: np.random.Generator, yaw: float, shift: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """[4, 4] rigid transform: yaw uniform in ±`yaw` (radians) about the vertical through `centre`, then a translation
    uniform in ±`shift` ([3] metres)."""
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler("z", rng.uniform(-yaw, yaw)).as_matrix()
    T[:3, 3] = centre - T[:3, :3] @ centre + rng.uniform(-1, 1, 3) * shift
    return T


def transform(sample: Sample, T: np.ndarray) -> Sample:
    """The same sample with its whole scene moved by T [4, 4]."""
    rotation = Rotation.from_matrix(T[:3, :3])
    return replace(
        sample,
        points=sample.points @ T[:3, :3].T.astype(np.float32) + T[:3, 3].astype(np.float32),
        tool_position=T[:3, :3] @ sample.tool_position + T[:3, 3],
        tool_quaternion=(rotation * Rotation.from_quat(sample.tool_quaternion)).as_quat(),
        position=T[:3, :3] @ sample.position + T[:3, 3],
        quaternion=(rotation * Rotation.from_quat(sample.quaternion)).as_quat(),
        motion=T @ sample.motion,
    )


def augment(
    sample: Sample,
    rng: np.random.Generator,
    low: np.ndarray,
    high: np.ndarray,
    yaw: float,
    shift: np.ndarray,
    tries: int = 20,
    margin: float = 0.01,
) -> Sample:
    """Move the scene at random so that the goal stays inside the box [low, high]; unmoved if no try does.

    Args:
        yaw: radians. shift: [3] metres. margin: metres that the goal keeps from the box's sides.
    """
    centre = (np.asarray(low) + np.asarray(high)) / 2
    for _ in range(tries):
        T = random_transform(rng, yaw, np.asarray(shift), centre)
        goal = T[:3, :3] @ sample.position + T[:3, 3]
        if (goal > np.asarray(low) + margin).all() and (goal < np.asarray(high) - margin).all():
            return transform(sample, T)
    return sample


def thin(sample: Sample, rng: np.random.Generator, points: int) -> Sample:
    """At most `points` of the sample's points, drawn without replacement."""
    if len(sample.points) <= points:
        return sample
    chosen = rng.choice(len(sample.points), points, replace=False)
    return replace(sample, points=sample.points[chosen], colours=sample.colours[chosen])
