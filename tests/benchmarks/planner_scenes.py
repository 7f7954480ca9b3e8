"""Motion problems whose answer is known by construction: in scenes with walls and shelves, and with no way at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import mujoco
import numpy as np

from envs.mujoco import panda
from envs.mujoco.cameras import RLBENCH_CAMERAS
from envs.mujoco.collision import CollisionChecker
from envs.mujoco.ik import InverseKinematics, rotation_matrix
from envs.mujoco.scene import ROBOT_BASE, TABLE_HEIGHT, WORKSPACE, base_scene, box
from envs.mujoco.simulation import Simulation

Build = Callable[[mujoco.MjSpec], None]

CLEARANCE = 0.012  # metres to everything else, kept by the way that makes a goal feasible
_SAMPLES, _MOST_SAMPLES, _HARD_GOALS = 120, 3000, 6  # that the tree grows towards; hard ones to be reached
_STEP = 0.3  # radians between neighbouring configurations of that way
_DOWN = np.diag([-1.0, 1.0, -1.0])
_INTO = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])  # tool level, away from the robot's base
_GREY = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Problem:
    """Bring the tool from the joint positions `start` [7] to a world pose ([3] metres, [3, 3])."""

    start: np.ndarray
    position: np.ndarray
    rotation: np.ndarray


def simulate(build: Build) -> Simulation:
    """The base scene with what `build` adds to it."""
    spec = base_scene(RLBENCH_CAMERAS)
    build(spec)
    return Simulation(spec)


def place(simulation: Simulation, joints: np.ndarray) -> None:
    """Put the arm at rest at joint positions [7], everything else at rest where it stands."""
    simulation.data.qpos[simulation.arm_positions] = joints
    simulation.data.ctrl[simulation.arm_servos] = joints
    simulation.data.qvel[:] = 0.0
    mujoco.mj_forward(simulation.model, simulation.data)


class TouchLog:
    """Remembers, while a simulation runs, what the robot and the thing it holds touched: pairs of geom names or ids."""

    def __init__(self, simulation: Simulation, held: str | None = None) -> None:
        model = simulation.model
        self.touched: set[tuple[str, str]] = set()
        robot = [model.body(name).id for name in panda.ROBOT_BODIES]
        hand = [model.body(name).id for name in panda.HAND_BODIES]
        self._robot, self._hand = np.isin(model.geom_bodyid, robot), np.isin(model.geom_bodyid, hand)
        self._held = model.body_rootid[model.geom_bodyid] == (model.body(held).id if held else -1)
        self._fixed = model.body_weldid[model.geom_bodyid] == 0
        simulation.watchers.append(self._watch)

    def _watch(self, simulation: Simulation) -> None:
        contact, model = simulation.data.contact, simulation.model
        for first, second in contact.geom[contact.dist < 0.0]:
            moves = self._robot[[first, second]] | self._held[[first, second]]
            is_grasp = self._held[[first, second]].any() and self._hand[[first, second]].any()
            if moves.any() and not self._fixed[[first, second]].all() and not is_grasp:
                self.touched.add((model.geom(first).name or str(first), model.geom(second).name or str(second)))


# Feasible goals


def feasible_problems(
    kind: str, rng: np.random.Generator, count: int, clearance: float = CLEARANCE
) -> tuple[Simulation, list[Problem]]:
    """A random scene of a kind in `KINDS`, and `count` problems in it that can be solved.

    A tree of configurations grows from the start pose along joint lines that keep `clearance` (metres); start and goal
    of a problem are two of its nodes, so that a free way between them is known. Every second goal lies where the
    scene makes it hard: in the shelf, beside and behind the wall.
    """
    build, draw_hard = KINDS[kind](rng)
    simulation = simulate(build)
    kinematics, checker = InverseKinematics(simulation), CollisionChecker(simulation)
    checker.prepare(clearance)
    nodes, is_hard = _grow_tree(simulation, kinematics, checker, draw_hard, rng)
    poses = [kinematics.forward(node) for node in nodes]
    inside = np.array([((p > WORKSPACE[0]) & (p < WORKSPACE[1])).all() for p, _ in poses])
    starts = np.flatnonzero(inside)
    problems = []
    for k in range(count):
        goals = np.flatnonzero(inside & (is_hard == (k % 2 == 0)))
        goal, start = rng.choice(goals), rng.choice(starts)
        problems.append(Problem(nodes[start], *poses[goal]))
    return simulation, problems


def _grow_tree(
    simulation: Simulation,
    kinematics: InverseKinematics,
    checker: CollisionChecker,
    draw_hard: Callable[[], tuple[np.ndarray, np.ndarray]],
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Configurations [N, 7] connected by free joint lines, and which of them reach a pose drawn by `draw_hard`."""
    nodes, is_hard = [panda.START], [False]
    low, high = simulation.joint_low + 0.02, simulation.joint_high - 0.02

    def grow(target: np.ndarray) -> bool:
        nearest = nodes[int(np.argmin(np.linalg.norm(np.array(nodes) - target, axis=1)))]
        while (length := np.linalg.norm(target - nearest)) > 1e-9:
            step = nearest + (target - nearest) * min(1.0, _STEP / length)
            if not checker.is_line_free(nearest, step):
                return False
            nearest = step
            nodes.append(nearest)
            is_hard.append(False)
        return True

    reached = 0
    for k in range(_MOST_SAMPLES):
        if reached >= _HARD_GOALS and k >= _SAMPLES:
            break
        grow(rng.uniform(low, high))
        joints = kinematics.solve(*draw_hard(), np.clip(rng.normal(panda.COMFORTABLE, 0.8), low, high))
        if joints is not None and checker.is_free(joints) and grow(joints):
            is_hard[-1] = True
            reached += 1
    return np.array(nodes), np.array(is_hard)


def _tilted(rotation: np.ndarray, rng: np.random.Generator, largest: float) -> np.ndarray:
    return rotation_matrix(rng.uniform(-largest, largest, 3)) @ rotation


def _wall(rng: np.random.Generator) -> tuple[Build, Callable[[], tuple[np.ndarray, np.ndarray]]]:
    """A wall across the table in front of the robot; poses close to it, low, on either side."""
    y, height = rng.uniform(-0.12, 0.12), rng.uniform(0.25, 0.45)
    first = rng.uniform(0.0, 0.15)

    def build(spec: mujoco.MjSpec) -> None:
        size = [(0.65 - first) / 2, 0.01, height / 2]
        box(spec.worldbody, size, [(first + 0.65) / 2, y, TABLE_HEIGHT + height / 2], _GREY, name="wall")

    def draw() -> tuple[np.ndarray, np.ndarray]:
        side = rng.choice([-1.0, 1.0])
        position = [rng.uniform(0.1, 0.45), y + side * rng.uniform(0.05, 0.25), TABLE_HEIGHT + rng.uniform(0.02, 0.2)]
        turn = rotation_matrix(np.array([0.0, 0.0, rng.uniform(-1.5, 1.5)]))
        return np.array(position), _tilted(turn @ _DOWN, rng, 0.3)

    return build, draw


def _shelf(rng: np.random.Generator) -> tuple[Build, Callable[[], tuple[np.ndarray, np.ndarray]]]:
    """A shelf of two compartments, open towards the robot; poses inside them."""
    centre = np.array([rng.uniform(0.42, 0.5), rng.uniform(-0.2, 0.2)])
    width, depth, pitch = 0.3, 0.14, rng.uniform(0.26, 0.32)
    yaw = np.arctan2(centre[1], centre[0] - ROBOT_BASE[0]) + rng.uniform(-0.3, 0.3)
    T = rotation_matrix(np.array([0.0, 0.0, yaw]))

    def build(spec: mujoco.MjSpec) -> None:
        quaternion = [np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)]
        shelf = spec.worldbody.add_body(name="shelf", pos=[*centre, TABLE_HEIGHT], quat=quaternion)
        for k in (1, 2):
            box(shelf, [depth, width, 0.008], [0, 0, k * pitch], _GREY, name=f"board{k}")
        for name, side in (("left", 1), ("right", -1)):
            box(shelf, [depth, 0.008, pitch], [0, side * width, pitch], _GREY, name=name)
        box(shelf, [0.008, width, pitch], [depth, 0, pitch], _GREY, name="back")

    def draw() -> tuple[np.ndarray, np.ndarray]:
        k = int(rng.integers(2))
        local = [rng.uniform(-depth, depth - 0.05), rng.uniform(-0.2, 0.2), (k + rng.uniform(0.35, 0.65)) * pitch]
        position = np.array([*centre, TABLE_HEIGHT]) + T @ local
        roll = rotation_matrix(np.array([rng.choice([0.0, np.pi / 2]), 0.0, 0.0]))
        return position, _tilted(T @ roll @ _INTO, rng, 0.25)

    return build, draw


def _both(rng: np.random.Generator) -> tuple[Build, Callable[[], tuple[np.ndarray, np.ndarray]]]:
    """A shelf behind, and a low wall in front of it."""
    build_shelf, draw = _shelf(rng)
    y, height = rng.uniform(-0.12, 0.12), rng.uniform(0.15, 0.3)

    def build(spec: mujoco.MjSpec) -> None:
        build_shelf(spec)
        box(spec.worldbody, [0.1, 0.01, height / 2], [0.1, y, TABLE_HEIGHT + height / 2], _GREY, name="wall")

    return build, draw


KINDS = {"wall": _wall, "shelf": _shelf, "wall and shelf": _both}


# Goals that cannot be reached


def out_of_reach(rng: np.random.Generator) -> tuple[Simulation, Problem]:
    """In the base scene, a pose farther from the shoulder than the arm is long."""
    simulation = simulate(lambda spec: None)
    direction = np.append(rng.uniform(-1.0, 1.0, 2), rng.uniform(-0.2, 1.0))
    shoulder = np.array(ROBOT_BASE) + [0.0, 0.0, 0.333]
    position = shoulder + rng.uniform(1.25, 1.6) * direction / np.linalg.norm(direction)
    return simulation, Problem(panda.START, position, _tilted(_DOWN, rng, 1.0))


def inside_a_wall(rng: np.random.Generator) -> tuple[Simulation, Problem]:
    """The tool in the middle of a thick wall, where the arm could reach it."""
    x, y, z = rng.uniform(0.2, 0.35), rng.uniform(-0.2, 0.2), TABLE_HEIGHT + rng.uniform(0.05, 0.2)

    def build(spec: mujoco.MjSpec) -> None:
        box(spec.worldbody, [0.2, 0.02, 0.15], [x, y, TABLE_HEIGHT + 0.15], _GREY, name="wall")

    return simulate(build), Problem(panda.START, np.array([x, y, z]), _tilted(_DOWN, rng, 0.2))


def in_a_closed_box(rng: np.random.Generator) -> tuple[Simulation, Problem]:
    """The hand fits into a box that is closed on all sides; the arm would have to pass through its walls."""
    centre = np.array([rng.uniform(0.2, 0.3), rng.uniform(-0.2, 0.2), TABLE_HEIGHT + 0.161])
    half, wall = 0.15, 0.005

    def build(spec: mujoco.MjSpec) -> None:
        for axis in range(3):
            for side in (-1, 1):
                size, offset = np.full(3, half), np.zeros(3)
                size[axis], offset[axis] = wall, side * (half - wall)
                box(spec.worldbody, size.tolist(), (centre + offset).tolist(), _GREY, name=f"box{axis}{side}")

    return simulate(build), Problem(panda.START, centre - [0.0, 0.0, 0.06], _tilted(_DOWN, rng, 0.1))


def in_the_other_room(rng: np.random.Generator) -> tuple[Simulation, Problem]:
    """A pose that the arm can hold, on the far side of a wall from which only the shoulder stands out.

    The wall fills the plane y = 0 but for a gap around the shoulder, narrower than the upper arm is long: where the
    elbow crosses the plane, the upper arm lies in it and meets the wall. Both sides hold the same scene, mirrored.
    """

    def build(spec: mujoco.MjSpec) -> None:
        world, low = spec.worldbody, TABLE_HEIGHT
        x = ROBOT_BASE[0]
        for name, sign in (("front", 1), ("rear", -1)):
            box(world, [0.6, 0.005, 0.75], [x + sign * (0.6 + 0.15), 0, low + 0.75], _GREY, name=name)
        box(world, [0.15, 0.005, 0.5], [x, 0, low + 0.333 + 0.15 + 0.5], _GREY, name="above")

    simulation = simulate(build)
    start, goal = panda.COMFORTABLE.copy(), panda.COMFORTABLE.copy()
    start[0] = -rng.uniform(0.8, 1.3)
    goal[0] = rng.uniform(0.8, 1.3)
    goal[1:] += rng.uniform(-0.1, 0.1, 6)
    return simulation, Problem(start, *InverseKinematics(simulation).forward(goal))


INFEASIBLE = {
    "out of reach": (out_of_reach, "unreachable"),
    "inside a wall": (inside_a_wall, "in collision"),
    "in a closed box": (in_a_closed_box, "no path"),
    "in the other room": (in_the_other_room, "no path"),
}
