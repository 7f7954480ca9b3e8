"""RLBench's flag `ignore_collisions` for takes, which nobody has told it: may the way to this key-frame touch things?

A motion counts as one in contact if its goal lies close to something that the cameras saw when it began, other than the
robot's own hand there: to grasp, to press and to put down are such, to go to a place above is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.spatial.transform import Rotation

from envs.interface import Observation
from perception.voxels import fuse

# What in the tool's frame (z out of the hand) is taken for the robot's own: the hand and the wrist behind it, and with
# a closed gripper what it holds.
HAND = np.array([[-0.13, -0.13, -0.35], [0.13, 0.13, 0.012]])
HELD = np.array([[-0.06, -0.06, 0.0], [0.06, 0.06, 0.08]])
FEW = 5  # points, of a noisy cloud, that are nothing yet


def with_contact(
    observations: Sequence[Observation],
    keyframes: Sequence[int],
    distance: float,
    low: Sequence[float] | np.ndarray,
    high: Sequence[float] | np.ndarray,
) -> list[Observation]:
    """The same observations with the flag set on the frames that lead to goals in contact, as RLBench does.

    Args:
        keyframes: ascending, the last is the last frame's. distance: metres from the tool's goal within which something
            counts as close. low, high: box of the workspace, world metres.
    """
    result, begin = list(observations), 0
    for end in keyframes:
        touches = is_close(observations[begin], observations[end].gripper_pose[:3], distance, low, high)
        for k in range(begin, end):
            result[k] = replace(observations[k], ignore_collisions=touches)
        begin = end
    if len(result) > 1:
        result[-1] = replace(result[-1], ignore_collisions=result[-2].ignore_collisions)
    return result


def is_close(
    observation: Observation,
    goal: np.ndarray,
    distance: float,
    low: Sequence[float] | np.ndarray,
    high: Sequence[float] | np.ndarray,
) -> bool:
    """Whether the tool at `goal` [3] would be within `distance` of what is seen, apart from the hand where it is."""
    points, _ = fuse(observation, np.asarray(low), np.asarray(high), None, distance / 4)
    position, rotation = observation.gripper_pose[:3], Rotation.from_quat(observation.gripper_pose[3:]).as_matrix()
    local = (points - position) @ rotation
    own = ((local > HAND[0]) & (local < HAND[1])).all(axis=1)
    if observation.gripper_open < 0.5:
        own |= ((local > HELD[0]) & (local < HELD[1])).all(axis=1)
    return bool((np.linalg.norm(points[~own] - goal, axis=1) < distance).sum() >= FEW)
