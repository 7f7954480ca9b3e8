"""Is an arm configuration free? MuJoCo's own collision check, on a copy of the scene."""

from __future__ import annotations

import copy

import mujoco
import numpy as np

from envs.mujoco import panda
from envs.mujoco.simulation import Simulation

_EDGE_STEP = 0.025  # radians between checked configurations: about 2 cm at the finger tips
_TOUCH = 5e-4  # metres of overlap (or of margin) that count as nothing


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
        self._data.qpos[:] = simulation.data.qpos
        self._moving = self._of_robot.copy()
        self._held_address: int | None = None
        held = simulation.held_body()
        if held is not None:
            self._moving |= model.geom_bodyid == held
            self._held_address = int(model.jnt_qposadr[model.body_jntadr[held]])
            position, rotation = simulation.tool_pose()
            self._held_position = rotation.T @ (simulation.data.xpos[held] - position)
            self._held_rotation = rotation.T @ simulation.data.xmat[held].reshape(3, 3)
        self._of_held = self._moving & ~self._of_robot
        model.geom_margin[:] = np.where(self._moving, margin, 0.0)
        model.geom_gap[:] = 0.0
        # What touches already may go on touching, but not more deeply: an arm must be able to leave a contact.
        self._allowed: dict[tuple[int, int], float] = {}
        for first, second, distance in self._contacts(simulation.joints):
            pair = (first, second)
            self._allowed[pair] = min(distance, self._allowed.get(pair, np.inf))

    def is_free(self, joints: np.ndarray) -> bool:
        """Whether the arm at `joints` [7], with what it holds, stays clear of the scene and of itself."""
        for first, second, distance in self._contacts(joints):
            if distance < self._allowed.get((first, second), np.inf) - 1e-3:
                return False
        return True

    def is_line_free(self, start: np.ndarray, goal: np.ndarray) -> bool:
        """Whether every configuration on the straight joint line from `start` (not checked) to `goal` is free."""
        count = int(np.ceil(np.abs(goal - start).max() / _EDGE_STEP))
        return all(self.is_free(start + (goal - start) * k / count) for k in _coarse_to_fine(count))

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
        matters &= distances < np.where(both_move, -_TOUCH, self._margin - _TOUCH)
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
