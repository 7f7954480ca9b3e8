"""Open the bottom, middle or top drawer of a cabinet by its handle."""

from __future__ import annotations

from collections.abc import Iterator

import mujoco
import numpy as np

from envs.interface import Action, Choices
from envs.mujoco.scene import CONTACT, ROBOT_BASE, TABLE_HEIGHT, box, yaw_matrix, yaw_quaternion
from envs.mujoco.simulation import Simulation
from envs.mujoco.tasks.base import Task, key_frame

NAMES = ("bottom", "middle", "top")
OPEN = 0.15  # metres of travel from which a drawer counts as open

# Metres. RLBench's cabinet: it faces the world's +y, handles 0.163, 0.283 and 0.403 above the table.
_HALF_DEPTH, _HALF_WIDTH, _PLINTH, _PITCH, _WALL = 0.14, 0.15, 0.103, 0.12, 0.008
_HEIGHT = _PLINTH + 3 * _PITCH
CABINET_TOP = _HEIGHT + 2 * _WALL  # of what stands on it, over the table
# Of the inside of a drawer, in the drawer's frame.
DRAWER_LOW = np.array([2 * _WALL + 0.005 - _HALF_WIDTH, -0.097, 0.009 - _PITCH / 2 + 0.004])
DRAWER_HIGH = np.array([_HALF_WIDTH - 2 * _WALL - 0.005, _HALF_DEPTH - 0.002, _PITCH / 2 - 0.004])
_TRAVEL, _PULL = 0.22, 0.19
_HANDLE_REACH, _HANDLE_HALF_LENGTH, _BAR = 0.045, 0.05, 0.006
_WRIST = 0.21  # from tool to wrist
_REACH = 0.71  # of the wrist from the robot's base, seen from above, at the lowest drawer
_BEFORE = 0.087  # from pre-grasp to grasp, as in RLBench's demonstrations

_WOOD, _INSIDE, _FRONT, _METAL = (0.62, 0.42, 0.26), (0.72, 0.6, 0.46), (0.85, 0.8, 0.72), (0.15, 0.15, 0.17)


class OpenDrawer(Task):
    variation_count = 3
    has_new_position = True
    recolorable = ("cabinet", "drawer0", "drawer1", "drawer2")

    def build(self, rng: np.random.Generator, variation: int, spec: mujoco.MjSpec) -> None:
        add_cabinet(spec, *draw_cabinet_pose(rng, self.new_position))
        name = NAMES[variation]
        self.target = variation
        self.descriptions = [
            f"open the {name} drawer",
            f"grip the {name} handle and pull the {name} drawer open",
            f"slide the {name} drawer open",
        ]

    def success(self, simulation: Simulation) -> bool:
        return simulation.joint(f"drawer{self.target}") > OPEN

    def expert(self, simulation: Simulation) -> Iterator[Action]:
        yield from pull_open(simulation, self.target, let_go=False)

    def choices(self, simulation: Simulation) -> Choices:
        return Choices(before_handles(simulation), NAMES[self.target])

    def low_dim_state(self, simulation: Simulation) -> np.ndarray:
        """[12] position of each handle and opening of each drawer."""
        parts = [[*simulation.site(f"handle{i}"), simulation.joint(f"drawer{i}")] for i in range(3)]
        return np.concatenate(parts).astype(np.float32)


def pull_open(simulation: Simulation, drawer: int, let_go: bool) -> Iterator[Action]:
    """The key-frames that open a drawer (0 to 2, from the bottom); `let_go`: the last one releases its handle."""
    handle, rotation = simulation.site(f"handle{drawer}"), grasp_rotation(simulation)
    forward = rotation[:, 2]
    yield key_frame(handle - _BEFORE * forward, rotation, gripper_open=True)
    yield key_frame(handle, rotation, gripper_open=False, ignore_collisions=True)
    yield key_frame(handle - _PULL * forward, rotation, gripper_open=let_go, ignore_collisions=True)


def before_handles(simulation: Simulation) -> dict[str, np.ndarray]:
    """World position [3] of each drawer's pre-grasp, by the drawer's name."""
    back = _BEFORE * grasp_rotation(simulation)[:, 2]
    return {NAMES[i]: simulation.site(f"handle{i}") - back for i in range(3)}


def grasp_rotation(simulation: Simulation) -> np.ndarray:
    """[3, 3] the tool when it grasps a handle: level, into the cabinet, fingers above and below the bar.

    Of the two half turns the one that is nearer to the start pose.
    """
    into, up = -simulation.rotation("cabinet")[:, 1], np.array([0.0, 0.0, -1.0])
    return np.stack([np.cross(up, into), up, into], axis=1)


def draw_cabinet_pose(rng: np.random.Generator, new: bool = False) -> tuple[np.ndarray, float]:
    """Position [2] (metres) and yaw (radians) of a cabinet of which every drawer can be pulled open.

    If `new`, beside the rectangle where it stands otherwise: farther from the robot, or farther to its right.
    RLBench, too, draws again when its way-points cannot be reached.
    """
    while True:
        position = rng.uniform([0.08, -0.34] if new else [0.08, -0.28], [0.34, -0.10] if new else [0.26, -0.10])
        if new and position[0] < 0.28 and position[1] > -0.30:
            continue
        yaw = rng.uniform(-np.pi / 8, np.pi / 8)
        out = yaw_matrix(yaw)[:2, 1]
        wrist = position + (_HALF_DEPTH + _HANDLE_REACH + _PULL + _WRIST) * out
        if np.linalg.norm(wrist - ROBOT_BASE[:2]) < _REACH:
            return position, yaw


def add_cabinet(spec: mujoco.MjSpec, position: np.ndarray, yaw: float) -> None:
    """Put the cabinet on the table: body `cabinet`, and for i in 0..2, from the bottom, joints `drawer<i>` (metres of
    opening) and sites `handle<i>`.

    Args:
        position: [2] world x and y of its centre, metres. yaw: radians; at 0 the drawers open towards the world's +y.
    """
    cabinet = spec.worldbody.add_body(name="cabinet", pos=[*position, TABLE_HEIGHT], quat=yaw_quaternion(yaw))
    depth, width, wall = _HALF_DEPTH, _HALF_WIDTH, _WALL
    box(cabinet, [width, depth, _PLINTH / 2], [0, 0, _PLINTH / 2], _WOOD)
    for side in (-1, 1):
        box(cabinet, [wall, depth, _HEIGHT / 2], [side * (width - wall), 0, _HEIGHT / 2], _WOOD)
    box(cabinet, [width, wall, _HEIGHT / 2], [0, wall - depth, _HEIGHT / 2], _WOOD)
    box(cabinet, [width, depth, wall], [0, 0, _HEIGHT + wall], _WOOD)
    for i in range(3):
        _add_drawer(cabinet, i)
        # The slide keeps a drawer in its place; contacts with what surrounds it would only make it stick.
        spec.add_exclude(bodyname1="cabinet", bodyname2=f"drawer{i}")
        for other in range(i):
            spec.add_exclude(bodyname1=f"drawer{other}", bodyname2=f"drawer{i}")


def _add_drawer(cabinet: mujoco.MjsBody, i: int) -> None:
    drawer = cabinet.add_body(name=f"drawer{i}", pos=[0, 0, _PLINTH + _PITCH * (i + 0.5)])
    drawer.add_joint(
        name=f"drawer{i}",
        type=mujoco.mjtJoint.mjJNT_SLIDE,
        axis=[0, 1, 0],
        range=[0.0, _TRAVEL],
        limited=True,
        damping=4.0,
        frictionloss=0.8,
    )
    half_height, half_width, front = _PITCH / 2 - 0.004, _HALF_WIDTH - 2 * _WALL - 0.002, _HALF_DEPTH + 0.004
    light = {"mass": 0.1, **CONTACT}
    box(drawer, [half_width + 0.01, 0.006, half_height], [0, front, 0], _FRONT, **light)
    floor, side_height = -half_height + 0.006, half_height - 0.018
    box(drawer, [half_width, 0.115, 0.003], [0, 0.012, floor], _INSIDE, **light)
    box(drawer, [half_width, 0.003, side_height], [0, -0.10, floor + side_height], _INSIDE, **light)
    for side in (-1, 1):
        box(drawer, [0.003, 0.115, side_height], [side * half_width, 0.012, floor + side_height], _INSIDE, **light)
    handle = _HALF_DEPTH + _HANDLE_REACH
    for side in (-1, 1):
        post = [side * (_HANDLE_HALF_LENGTH - _BAR), _HALF_DEPTH + _HANDLE_REACH / 2, 0]
        box(drawer, [_BAR - 0.001, _HANDLE_REACH / 2, _BAR - 0.001], post, _METAL, mass=0.01, **CONTACT)
    box(drawer, [_HANDLE_HALF_LENGTH, _BAR, _BAR], [0, handle, 0], _METAL, mass=0.02, **CONTACT)
    drawer.add_site(name=f"handle{i}", pos=[0, handle, 0], group=4)
