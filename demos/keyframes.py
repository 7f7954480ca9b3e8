"""Key-frames: the few frames of a demonstration that an agent learns to predict (PerAct's rule, section 3.2).

A frame is a key-frame when the gripper changed, when the arm came to rest, or when the demonstration ends.
"""

from __future__ import annotations

import numpy as np

REST_SPEED = 0.1  # rad/s: the arm rests when no joint is faster
PAUSE = 4  # frames after a stop in which no other stop counts


def find_keyframes(joint_velocities: np.ndarray, gripper_open: np.ndarray) -> list[int]:
    """Indices of the key-frames, ascending; the last frame is always one, frame 0 never (unless it is the only one).

    Args:
        joint_velocities: [T, 7] rad/s.
        gripper_open: [T] 1.0 open, 0.0 closed.

    A stop needs the gripper unchanged from two frames before to one frame after. Near the start PerAct's indices i-1
    and i-2 are negative and so look at the end of the demonstration; that is kept here, because whoever compares with
    published results needs the same key-frames.
    """
    length = len(gripper_open)
    if length < 2:
        return []
    resting = (np.abs(joint_velocities) <= REST_SPEED).all(axis=1)
    keyframes: list[int] = []
    wait = 0
    for i in range(length):
        stopped = (
            wait <= 0
            and i < length - 2
            and bool(resting[i])
            and gripper_open[i - 2] == gripper_open[i - 1] == gripper_open[i] == gripper_open[i + 1]
        )
        wait = PAUSE if stopped else wait - 1
        if i > 0 and (stopped or i == length - 1 or gripper_open[i] != gripper_open[i - 1]):
            keyframes.append(i)
    if len(keyframes) > 1 and keyframes[-2] == keyframes[-1] - 1:
        del keyframes[-2]
    return keyframes
