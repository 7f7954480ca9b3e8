"""Is an arm configuration free? MuJoCo's own collision check, on a copy of the scene."""

from __future__ import annotations

import copy

import mujoco
import numpy as np

from envs.mujoco import panda
from envs.mujoco.simulation import Simulation

_LEVERS = np.array([0.8, 0.8, 0.6, 0.6, 0.35, 0.25, 0.1])  # metres from each joint to the finger tips, above the table
_STRAY = 0.002  # metres that the arm in motion strays from its path
_FINEST = 0.006  # metres of the tips' way between checked configurations, however thin the margin
_TOUCH = 5e-4  # metres of overlap (or of margin) that count as nothing
_SELF_MARGIN = 0.003  # metres that the arm's links keep from each other: what the servos may stray
_DEPARTURE = 0.3  # radians from the start within which what is too close at the start may remain so


class CollisionChecker:
    """Checks configurations of the arm against the scene as it stands when `prepare` is called.

    Attributes:
        checks: configurations checked since `prepare`; what planning time is measured in, because a clock would make
            results depend on how busy the machine is.
    """

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._model = copy.copy(simulation.model)
        self._data = mujoco.MjData(self._model)
        model = self._model
        robot = {model.body(name).id for name in panda.ROBOT_BODIES}
        hand = {model.body(name).id for name in panda.HAND_BODIES}
        self._of_robot = np.isin(model.geom_bodyid, list(robot))
        self._of_hand = np.isin(model.geom_bodyid, list(hand))
        self._is_fixed = model.body_weldid[model.geom_bodyid] == 0
        self.checks = 0

    def prepare(self, margin: float) -> None:
        """Take over the simulation's state. `margin`: metres that the robot keeps from everything else."""
        simulation, model = self._simulation, self._model
        self.checks = 0
        self._margin = margin
        self._start = simulation.joints
        self._data.qpos[:] = simulation.data.qpos
        self._moving = self._of_robot.copy()
        self._held_address: int | None = None
        held = simulation.held_body()
        if held is not None:
            self._moving |= model.body_rootid[model.geom_bodyid] == held
            self._held_address = int(model.jnt_qposadr[model.body_jntadr[held]])
            position, rotation = simulation.tool_pose()
            self._held_position = rotation.T @ (simulation.data.xpos[held] - position)
            self._held_rotation = rotation.T @ simulation.data.xmat[held].reshape(3, 3)
        self._of_held = self._moving & ~self._of_robot
        self._levers = _LEVERS
        if self._of_held.any():
            centres = simulation.data.geom_xpos[self._of_held] - simulation.tool_pose()[0]
            reaches = np.linalg.norm(centres, axis=1) + model.geom_rbound[self._of_held]
            self._levers = _LEVERS + reaches.max()
        model.geom_margin[:] = np.where(self._moving, margin, 0.0)
        model.geom_gap[:] = 0.0
        # What is close already may be so at first, but not much closer: an arm must be able to leave a contact.
        self._allowed: dict[tuple[int, int], float] = {}
        for first, second, distance in self._contacts(self._start):
            pair = (first, second)
            self._allowed[pair] = min(distance, self._allowed.get(pair, np.inf))
        # Between two configurations that keep the margin, nothing can come nearer by more than half the way.
        self._edge_step = max(2 * (margin - _STRAY), _FINEST)

    def is_free(self, joints: np.ndarray) -> bool:
        """Whether the arm at `joints` [7], with what it holds, stays clear of the scene and of itself."""
        return not any(self._is_forbidden(*contact, joints) for contact in self._contacts(joints))

    def is_hand_free(self, joints: np.ndarray) -> bool:
        """Whether the hand at `joints` [7], with what it holds, stays clear of the scene, wherever the arm is."""
        with_hand = self._of_hand | self._of_held
        return not any(
            with_hand[first] != with_hand[second]
            and not (self._of_robot[first] and self._of_robot[second])
            and self._is_forbidden(first, second, distance, joints)
            for first, second, distance in self._contacts(joints)
        )

    def is_line_free(self, start: np.ndarray, goal: np.ndarray) -> bool:
        """Whether every configuration on the straight joint line from `start` (not checked) to `goal` is free."""
        count = int(np.ceil(np.abs(goal - start) @ self._levers / self._edge_step))
        return all(self.is_free(start + (goal - start) * k / count) for k in _coarse_to_fine(count))

    def _is_forbidden(self, first: int, second: int, distance: float, joints: np.ndarray) -> bool:
        """Whether a contact of `_contacts` at `joints` is more than the start's own, close to the start."""
        at_start = self._allowed.get((first, second))
        if at_start is None or np.abs(joints - self._start).max() > _DEPARTURE:
            return True
        return distance < at_start - _TOUCH

    def _contacts(self, joints: np.ndarray) -> list[tuple[int, int, float]]:
        """Forbidden contacts (geom, geom, distance) at `joints`."""
        self.checks += 1
        model, data = self._model, self._data
        data.qpos[self._simulation.arm_positions] = joints
        mujoco.mj_kinematics(model, data)
        if self._held_address is not None:
            self._carry_held(self._held_address)
        mujoco.mj_collision(model, data)
        if not data.ncon:
            return []
        pairs, distances = data.contact.geom[: data.ncon], data.contact.dist[: data.ncon]
        first, second = pairs[:, 0], pairs[:, 1]
        both_move = self._moving[first] & self._moving[second]
        matters = self._moving[first] | self._moving[second]
        matters &= ~(self._is_fixed[first] & self._is_fixed[second])  # the robot's base stands on the table
        matters &= ~(self._of_held[first] & self._of_hand[second]) & ~(self._of_hand[first] & self._of_held[second])
        matters &= distances < np.where(both_move, min(_SELF_MARGIN, self._margin), self._margin) - _TOUCH
        return [(int(first[i]), int(second[i]), float(distances[i])) for i in np.flatnonzero(matters)]

    def _carry_held(self, address: int) -> None:
        """Move what is held with the tool; `address`: of its free joint in qpos."""
        model, data = self._model, self._data
        rotation = data.site_xmat[self._simulation.tool].reshape(3, 3)
        quaternion = np.zeros(4)
        mujoco.mju_mat2Quat(quaternion, (rotation @ self._held_rotation).ravel())
        data.qpos[address : address + 3] = data.site_xpos[self._simulation.tool] + rotation @ self._held_position
        data.qpos[address + 3 : address + 7] = quaternion
        mujoco.mj_kinematics(model, data)


def _coarse_to_fine(count: int) -> list[int]:
    """1..count in the order of bisection: collisions are found sooner than from one end."""
    order, spans = [], [(1, count)]
    for low, high in spans:
        if low <= high:
            middle = (low + high) // 2
            order.append(middle)
            spans += [(low, middle - 1), (middle + 1, high)]
    return order
