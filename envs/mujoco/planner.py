"""From a pose of the tool to a joint path: collision-free, or straight with contact allowed.

Collision-free: solve the inverse kinematics from several seeds, try the straight joint line to each solution, then
RRT-Connect (Kuffner and LaValle, 2000) and shortcuts. Work is bounded by counts of collision checks, never by a clock,
and its random numbers start from the same seed in every call: equal scenes give equal paths.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from envs.mujoco.collision import CollisionChecker
from envs.mujoco.ik import InverseKinematics, rotation_matrix, rotation_vector
from envs.mujoco.panda import COMFORTABLE
from envs.mujoco.simulation import Simulation

MARGINS = (0.012, 0.004, 0.0)  # metres, tried in this order
MAX_CHECKS = 6_000  # of configurations per goal and margin, about 0.3 s
_SEEDS = 24
_GOALS = 4
_STEP = 0.5  # radians a tree grows at once
_SHORTCUTS = 60
_LINE_STEP = 0.02  # metres between solved poses on a straight line
_LINE_TURN = 0.2  # radians
_LARGEST_JUMP = 0.6  # radians: a joint that turns more between neighbouring poses has changed the arm's posture


@dataclass(frozen=True)
class Plan:
    """A joint path [N, 7] that begins at the present position, or why there is none.

    failure: None; "unreachable": no joint positions are known that reach the pose; "in collision": the hand, or what it
        holds, would be inside something there; "no path": the hand fits, but the arm does not get there freely.
    is_straight: on a straight line, of the tool or of the joints, that may touch what is in the way.
    """

    path: np.ndarray | None
    failure: str | None = None
    is_straight: bool = False


class Planner:
    """Plans for the arm of one simulation, from the state in which it is at each call."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self.kinematics = InverseKinematics(simulation)
        self._checker = CollisionChecker(simulation)

    def plan_free(self, position: np.ndarray, rotation: np.ndarray) -> Plan:
        """A collision-free path that brings the tool to a world pose ([3] metres, [3, 3])."""
        rng = np.random.default_rng(0)
        start = self._simulation.joints
        solutions = self._solutions(position, rotation, start, rng)
        if not solutions:
            return Plan(None, "unreachable")
        for margin in MARGINS:
            self._checker.prepare(margin)
            goals = [goal for goal in solutions if self._checker.is_free(goal)][:_GOALS]
            if not goals:
                continue
            for goal in goals:
                if self._checker.is_line_free(start, goal):
                    return Plan(np.stack([start, goal]))
            path = self._connect(start, goals, rng)
            if path is not None:
                return Plan(self._shorten(path, rng))
        return Plan(None, "no path" if self._checker.is_hand_free(solutions[0]) else "in collision")

    def plan_line(self, position: np.ndarray, rotation: np.ndarray) -> Plan:
        """A straight line of the tool to a world pose, whatever is in the way."""
        start_position, start_rotation = self._simulation.tool_pose()
        turn = rotation_vector(rotation @ start_rotation.T)
        shift = position - start_position
        count = int(
            np.ceil(max(float(np.linalg.norm(shift)) / _LINE_STEP, float(np.linalg.norm(turn)) / _LINE_TURN, 1.0))
        )
        path = [self._simulation.joints]
        for k in range(1, count + 1):
            waypoint = start_position + shift * k / count
            joints = self.kinematics.solve(waypoint, rotation_matrix(turn * k / count) @ start_rotation, path[-1])
            if joints is None or np.abs(joints - path[-1]).max() > _LARGEST_JUMP:
                return Plan(None, "unreachable")
            path.append(joints)
        return Plan(np.stack(path), is_straight=True)

    def plan_contact(self, position: np.ndarray, rotation: np.ndarray) -> Plan:
        """A path that may touch things: the straight line, else a free path, else a straight joint line."""
        plan = self.plan_line(position, rotation)
        if plan.failure is None:
            return plan
        plan = self.plan_free(position, rotation)
        if plan.failure is None or plan.failure == "unreachable":
            return plan
        start = self._simulation.joints
        goals = self._solutions(position, rotation, start, np.random.default_rng(0))
        return Plan(np.stack([start, goals[0]]), is_straight=True)

    def _solutions(
        self, position: np.ndarray, rotation: np.ndarray, start: np.ndarray, rng: np.random.Generator
    ) -> list[np.ndarray]:
        """Different joint positions that reach the pose, nearest to the present ones first."""
        found: list[np.ndarray] = []
        low, high = self._simulation.joint_low + 0.05, self._simulation.joint_high - 0.05
        for k in range(2 * _SEEDS):
            if found and k >= _SEEDS:
                break
            if k == 0:
                seed = start
            elif k == 1:
                seed = COMFORTABLE
            else:
                seed = np.clip(COMFORTABLE + rng.normal(0.0, 0.8, 7), low, high)
            joints = self.kinematics.solve(position, rotation, seed)
            if joints is not None and all(np.abs(joints - other).max() > 0.1 for other in found):
                found.append(joints)
                if len(found) == 2 * _GOALS:
                    break
        return sorted(found, key=lambda joints: float(np.abs(joints - start).max()))

    def _connect(self, start: np.ndarray, goals: list[np.ndarray], rng: np.random.Generator) -> list[np.ndarray] | None:
        """RRT-Connect: a tree from the start and one from all goals grow towards each other."""
        trees = (_Tree([start]), _Tree(goals))
        low, high = self._simulation.joint_low + 0.01, self._simulation.joint_high - 0.01
        limit = self._checker.checks + MAX_CHECKS
        side = 0
        while self._checker.checks < limit:
            node, _ = self._grow(trees[side], rng.uniform(low, high), once=True)
            if node is not None:
                other, reached = self._grow(trees[1 - side], trees[side].nodes[node], once=False)
                if reached and other is not None:
                    here, there = trees[side].branch(node), trees[1 - side].branch(other)
                    return here[::-1] + there[1:] if side == 0 else there[::-1] + here[1:]
            side = 1 - side
        return None

    def _grow(self, tree: _Tree, target: np.ndarray, once: bool) -> tuple[int | None, bool]:
        """Grow from the nearest node towards `target`: the last new (or nearest) node and whether it got there."""
        nearest = tree.nearest(target)
        grown = None
        while True:
            offset = target - tree.nodes[nearest]
            length = float(np.linalg.norm(offset))
            if length < 1e-9:
                return nearest, True
            goal = tree.nodes[nearest] + offset * min(1.0, _STEP / length)
            if not self._checker.is_line_free(tree.nodes[nearest], goal):
                return grown, False
            nearest = grown = tree.add(goal, nearest)
            if length <= _STEP:
                return grown, True
            if once:
                return grown, False

    def _shorten(self, path: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        """Replace stretches between random points of the path by straight joint lines where these are free."""
        limit = self._checker.checks + MAX_CHECKS
        for _ in range(_SHORTCUTS):
            if len(path) < 3 or self._checker.checks > limit:
                break
            along = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(path, axis=0)).max(axis=1))])
            lengths = np.sort(rng.uniform(0.0, along[-1], 2))
            first, last = np.clip(np.searchsorted(along, lengths) - 1, 0, len(path) - 2)
            if first == last:
                continue
            start, goal = (
                path[i] + (path[i + 1] - path[i]) * (length - along[i]) / max(along[i + 1] - along[i], 1e-9)
                for i, length in zip((first, last), lengths, strict=True)
            )
            if self._checker.is_line_free(start, goal):
                path = path[: first + 1] + [start, goal] + path[last + 1 :]
        return np.stack(path)


class _Tree:
    """Joint positions and where each was reached from; -1 marks a root."""

    def __init__(self, roots: list[np.ndarray]) -> None:
        self.nodes = list(roots)
        self._parents = [-1] * len(roots)

    def nearest(self, target: np.ndarray) -> int:
        return int(np.argmin(((np.stack(self.nodes) - target) ** 2).sum(axis=1)))

    def add(self, node: np.ndarray, parent: int) -> int:
        self.nodes.append(node)
        self._parents.append(parent)
        return len(self.nodes) - 1

    def branch(self, node: int) -> list[np.ndarray]:
        """Nodes from `node` back to its root."""
        branch = []
        while node >= 0:
            branch.append(self.nodes[node])
            node = self._parents[node]
        return branch
