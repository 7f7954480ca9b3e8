"""Why an episode failed: what an agent did is laid beside what the expert would have done at the same moments."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from agents.actions import rotation_error
from envs.interface import Action, Environment, NoExpert
from envs.rollout import Rollout

PRECISE, ELSEWHERE = 0.02, 0.08
"""Metres from the expert's key-frame: from the first on it is imprecise, from the second on another place is meant."""
TURNED = np.radians(15)


@dataclass(frozen=True)
class Departure:
    """The first key-frame that is not the expert's. number: of those before it. metres, radians: how far it is off.
    gripper: whether the gripper is to do the same."""

    number: int
    metres: float
    radians: float
    gripper: bool

    @property
    def reason(self) -> str:
        """In the words of `failure`."""
        if self.metres > ELSEWHERE:
            return "elsewhere"
        if self.metres > PRECISE:
            return "imprecise"
        return "rotation" if self.radians > TURNED else "gripper"

    def to_mapping(self) -> dict[str, Any]:
        """For a line of episodes.jsonl."""
        centimetres, degrees = round(100 * self.metres, 2), round(float(np.degrees(self.radians)), 1)
        return {"keyframe": self.number, "cm": centimetres, "deg": degrees, "gripper_right": self.gripper}


class Reference:
    """An expert that watches an agent act and notes its first departure, after which the two cannot be compared: the
    expert goes on from states that its own key-frames led to.

    Args:
        environment: after `reset`. Where it has no expert, nothing is noted.
    """

    def __init__(self, environment: Environment) -> None:
        self.departure: Departure | None = None
        self._number = 0
        self._expert: Iterator[Action] | None = None
        try:
            self._expert = environment.expert()
        except NoExpert:
            pass

    def compare(self, action: Action) -> None:
        """Note an action that is about to be carried out."""
        if self._expert is None:
            return
        try:
            wanted = next(self._expert, None)
        except NoExpert:
            wanted = None
        if wanted is None:
            self._expert = None
            return
        metres = float(np.linalg.norm(np.asarray(action.position) - wanted.position))
        radians = rotation_error(action.quaternion, wanted.quaternion)
        gripper = bool(action.gripper_open) == bool(wanted.gripper_open)
        if metres > PRECISE or radians > TURNED or not gripper:
            self.departure, self._expert = Departure(self._number, metres, radians, gripper), None
        self._number += 1


def failure(played: Rollout, first_choice_right: bool | None, departure: Departure | None, limit: int) -> str | None:
    """One reason for an episode that was not solved, None for one that was: "wrong object" if the first key-frame went
    to something else than what the instruction names; else why the last action could not be carried out; else how the
    first departure from the expert was one ("elsewhere", "imprecise", "rotation", "gripper"); else "time out", or "gave
    up" where the policy had no further action before its `limit` of key-frames."""
    if played.success:
        return None
    if first_choice_right is False:
        return "wrong object"
    if played.failure is not None:
        return played.failure
    if departure is not None:
        return departure.reason
    return "time out" if len(played.actions) >= limit else "gave up"
