"""Our key-frames in RLBench's hands: planned motion, then the gripper; and its failures in our words."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import numpy as np

from envs.interface import Action

IK_TRIALS = 100  # random arm poses tried for a goal, as many as RLBench's own motions try


def to_vector(action: Action) -> np.ndarray:
    """[9] what `KeyFrameMode` takes: position, unit quaternion xyzw with w ≥ 0, gripper, ignore_collisions."""
    quaternion = np.asarray(action.quaternion, float)
    quaternion = quaternion / np.linalg.norm(quaternion) * (-1.0 if quaternion[3] < 0 else 1.0)
    flags = [float(action.gripper_open), float(action.ignore_collisions)]
    return np.concatenate([np.asarray(action.position, float), quaternion, flags])


class KeyFrameMode:
    """An action mode of RLBench's: `EndEffectorPoseViaPlanning` with or without regard to collisions, then `Discrete`.

    fallback: where no collision-free path is found, go without regard to collisions, as PerAct's RLBench always does.
    """

    def __init__(self, fallback: bool) -> None:
        arms = importlib.import_module("rlbench.action_modes.arm_action_modes")
        grippers = importlib.import_module("rlbench.action_modes.gripper_action_modes")
        self.arm_action_mode = arms.EndEffectorPoseViaPlanning()
        self.gripper_action_mode = grippers.Discrete()
        self._fallback = fallback
        # PerAct's branch is told with every action and falls back itself; the current one is told when it is made.
        self._told = "ignore_collisions" in inspect.signature(self.arm_action_mode.action).parameters
        self._invalid = importlib.import_module("rlbench.backend.exceptions").InvalidActionError

    def action(self, scene: Any, action: np.ndarray) -> None:
        pose, gripper, ignore = action[:7].copy(), action[7:8].copy(), bool(action[8] > 0.5)
        if self._told:
            self.arm_action_mode.action(scene, pose, ignore)
        else:
            self._move(scene, pose, ignore)
        self.gripper_action_mode.action(scene, gripper)

    def _move(self, scene: Any, pose: np.ndarray, ignore: bool) -> None:
        arm = self.arm_action_mode
        arm._collision_checking = not ignore
        try:
            arm.action(scene, pose)
        except self._invalid as error:
            if ignore or not self._fallback or error.__cause__ is None:  # None: refused before anything was planned
                raise
            arm._collision_checking = False
            arm.action(scene, pose)

    def action_shape(self, scene: Any) -> tuple[int]:
        return (9,)


def errors() -> tuple[type[Exception], ...]:
    """What RLBench and PyRep raise for an action that they cannot carry out."""
    pyrep = importlib.import_module("pyrep.errors")
    rlbench = importlib.import_module("rlbench.backend.exceptions")
    return (rlbench.InvalidActionError, pyrep.ConfigurationPathError, pyrep.ConfigurationError, pyrep.IKError)


def failure(error: BaseException, arm: Any, action: Action, collisions_counted: bool) -> str:
    """The word of `Outcome.failure` for one of `errors`.

    Args:
        arm: PyRep's, to find out whether the goal can be reached at all.
        collisions_counted: the last attempt was one without collisions.
    """
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None:
        causes.append(cause)
        cause = cause.__cause__
    kinds = {type(cause).__name__ for cause in causes}
    if not kinds & {"ConfigurationPathError", "ConfigurationError", "IKError"}:
        return "invalid"  # outside RLBench's workspace
    if not kinds & {"ConfigurationError", "IKError"}:
        return "no path"
    if collisions_counted:
        vector = to_vector(action)
        try:
            arm.solve_ik_via_sampling(
                vector[:3], quaternion=vector[3:7], ignore_collisions=True, trials=IK_TRIALS, max_configs=1
            )
        except importlib.import_module("pyrep.errors").ConfigurationError:
            return "unreachable"
        return "in collision"
    return "unreachable"
