"""Several looks at one scene, each moved a little, that vote on the action.

The agent was trained on moved scenes, and its rare large errors differ from move to move: the action that most others
come close to is seldom one of them. (Not published.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from agents.actions import rotation_error
from agents.tensors import Prediction
from envs.interface import Action

YAW, SHIFT = np.radians(30.0), np.array([0.03, 0.03, 0.01])
"""Largest turn (radians) and shift (metres) of a scene."""
TOGETHER, FAR = 0.015, 0.06
"""Metres within which actions count as the same, and from which on they are just different."""
ARM = 0.06
"""Metres that a radian of orientation counts for."""


def moves(count: int, centre: np.ndarray) -> list[np.ndarray]:
    """[4, 4] rigid transforms, the first of which moves nothing: turns about the vertical through `centre`, evenly
    spread, with shifts that differ. Always the same ones."""
    steps = np.arange(count) / max(count - 1, 1)
    turns = [0.0, *np.delete(np.linspace(-YAW, YAW, count), count // 2)][:count]
    result = []
    for number, turn in enumerate(turns):
        T = np.eye(4)
        T[:3, :3] = Rotation.from_euler("z", turn).as_matrix()
        wave = 2 * np.pi * steps[number] * np.array([1.0, 2.0, 3.0])
        shift = SHIFT * np.sin(wave + np.array([0.0, 1.0, 2.0])) if number else np.zeros(3)
        T[:3, 3] = centre - T[:3, :3] @ centre + shift
        result.append(T)
    return result


def moved_back(action: Action, T: np.ndarray) -> Action:
    """An action in a scene that was moved by T, as one in the unmoved scene."""
    turn = Rotation.from_matrix(T[:3, :3].T)
    quaternion = (turn * Rotation.from_quat(action.quaternion)).as_quat()
    return replace(
        action,
        position=T[:3, :3].T @ (action.position - T[:3, 3]),
        quaternion=quaternion if quaternion[3] >= 0 else -quaternion,
    )


def elect(votes: Sequence[Action], symmetric: bool) -> Action:
    """The action that the others come closest to, its position the mean of those that agree with it.

    Args:
        symmetric: a gripper turned by half a turn is the same gripper.
    """
    if len(votes) == 1:
        return votes[0]
    positions = np.array([vote.position for vote in votes])
    distance = np.linalg.norm(positions[:, None] - positions, axis=-1)
    angle = [[rotation_error(a.quaternion, b.quaternion, symmetric) for b in votes] for a in votes]
    cost = np.minimum(distance + ARM * np.array(angle), FAR)
    best = int(cost.sum(axis=1).argmin())
    together = [k for k in range(len(votes)) if cost[best, k] <= TOGETHER]
    return replace(
        votes[best],
        position=positions[together].mean(axis=0),
        gripper_open=sum(votes[k].gripper_open for k in together) * 2 > len(together),
        ignore_collisions=sum(votes[k].ignore_collisions for k in together) * 2 > len(together),
    )


def rows(prediction: Prediction, which: torch.Tensor) -> Prediction:
    """The answers to some samples of a batch."""
    chosen: dict[str, Any] = {
        name: [part[which] for part in value] if isinstance(value, list) else value[which]
        for name, value in vars(prediction).items()
    }
    return Prediction(**chosen)
