"""Sweep five crumbs with a broom into the dustpan that the instruction names, the tall or the short one."""

from __future__ import annotations

from collections.abc import Iterator

import mujoco
import numpy as np

from envs.interface import Action, Choices
from envs.mujoco.scene import (
    CONTACT,
    GRIPPY,
    NO_CONTACT,
    SLIPPERY,
    TABLE_HEIGHT,
    box,
    cylinder,
    free_cube,
    place_apart,
    yaw_matrix,
    yaw_quaternion,
)
from envs.mujoco.simulation import Simulation
from envs.mujoco.tasks.base import Task, facing_down, half_turn_yaw, key_frame

SIZES = ("tall", "short")
CRUMBS = 5

# Metres.
_WALL_HEIGHTS = (0.09, 0.03)
_PAN_HALF_WIDTH, _PAN_HALF_DEPTH, _WALL = 0.09, 0.06, 0.004
_MOUTH = 0.13  # from the middle of the crumbs to the open side of either pan
_CRUMB_HALF, _SPREAD = 0.007, 0.03  # half a crumb; how far the crumbs lie from their middle along each axis
_BRUSH = (0.07, 0.012, 0.024)  # half sizes
_HANDLE_RADIUS, _HANDLE_HALF, _GRIP = 0.011, 0.07, 0.165  # the last: height of the grasp over the brush's lower edge
_BACK = 0.085  # from the middle of the crumbs to the brush before it sweeps
_INTO = 0.045  # from the mouth of the pan to the brush after it has swept
_ABOVE, _CLEARANCE = 0.08, 0.001  # of the brush: over its lower position, and of that over the table
_PLASTIC, _STRAW, _WOOD, _DIRT = (0.25, 0.35, 0.6), (0.85, 0.7, 0.3), (0.55, 0.15, 0.1), (0.2, 0.12, 0.06)


class SweepToDustpanOfSize(Task):
    """PerAct's and GNFactor's variant of RLBench's task. There each pan has its own side; here they change sides, so
    that the side does not give the size away. A crumb counts when its centre is between the walls, not above them."""

    variation_count = len(SIZES)
    recolorable = ("broom", *(f"{size}_pan" for size in SIZES))

    def build(self, rng: np.random.Generator, variation: int, spec: mujoco.MjSpec) -> None:
        self.middle, self.yaw = rng.uniform([0.21, -0.05], [0.28, 0.05]), rng.uniform(-0.25, 0.25)
        side = yaw_matrix(self.yaw)[:2, 1] * rng.choice([-1, 1])
        self.directions = [side, -side]
        pans = [self.middle + (_MOUTH + _PAN_HALF_DEPTH) * direction for direction in self.directions]
        for name, position, direction, height in zip(SIZES, pans, self.directions, _WALL_HEIGHTS, strict=True):
            _add_pan(spec, f"{name}_pan", position, float(np.arctan2(-direction[0], direction[1])), height)
        spread = place_apart(rng, CRUMBS, [-_SPREAD] * 2, [_SPREAD] * 2, 3 * _CRUMB_HALF)
        for i, offset in enumerate(spread):
            place = [*self.middle + yaw_matrix(self.yaw)[:2, :2] @ offset, TABLE_HEIGHT + _CRUMB_HALF]
            free_cube(spec, f"crumb{i}", place, _CRUMB_HALF, _DIRT, rng.uniform(-np.pi, np.pi), 0.004, SLIPPERY)
        _add_broom(spec, _draw_broom_position(rng, self.middle, pans), rng.uniform(-0.6, 0.6))
        self.target = variation
        name = SIZES[variation]
        self.descriptions = [
            f"sweep dirt to the {name} dustpan",
            f"sweep the dirt up into the {name} dustpan",
            f"brush the dirt into the {name} dustpan with the broom",
            f"take the broom and clean up the dirt with the {name} pan",
        ]

    def success(self, simulation: Simulation) -> bool:
        return all(self.swept(simulation, i) for i in range(CRUMBS))

    def swept(self, simulation: Simulation, crumb: int) -> bool:
        """Whether a crumb lies in the pan that is meant."""
        pan = f"{SIZES[self.target]}_pan"
        x, y, z = simulation.rotation(pan).T @ (simulation.position(f"crumb{crumb}") - simulation.position(pan))
        return bool(abs(x) < _PAN_HALF_WIDTH and abs(y) < _PAN_HALF_DEPTH and z < _WALL_HEIGHTS[self.target])

    def expert(self, simulation: Simulation) -> Iterator[Action]:
        grip, along = simulation.site("grip"), simulation.rotation("broom")[:, 0]
        rotation = facing_down(half_turn_yaw(float(np.arctan2(along[1], along[0]))))
        yield key_frame(grip + [0, 0, _ABOVE], rotation, gripper_open=True)
        yield key_frame(grip, rotation, gripper_open=False, ignore_collisions=True)
        yield key_frame(grip + [0, 0, _ABOVE], rotation, gripper_open=False, ignore_collisions=True)

        position, rotation = simulation.tool_pose()
        T_tool_brush = rotation.T @ (simulation.position("broom") - position)
        rotation, direction = facing_down(self.yaw), self.directions[self.target]
        shift = np.array([0, 0, TABLE_HEIGHT + _CLEARANCE]) - rotation @ T_tool_brush
        behind = shift + [*self.middle - _BACK * direction, 0]
        swept = shift + [*self.middle + (_MOUTH + _INTO) * direction, 0]
        yield key_frame(behind + [0, 0, _ABOVE], rotation, gripper_open=False)
        yield key_frame(behind, rotation, gripper_open=False, ignore_collisions=True)
        yield key_frame(swept, rotation, gripper_open=False, ignore_collisions=True)

    def choices(self, simulation: Simulation) -> Choices:
        """Only the broom: whichever pan is named, it is fetched first."""
        return Choices({"broom": simulation.site("grip") + [0, 0, _ABOVE]}, "broom")

    def low_dim_state(self, simulation: Simulation) -> np.ndarray:
        """[24] positions of the broom, of both pans and of the crumbs."""
        names = ["broom", *(f"{size}_pan" for size in SIZES), *(f"crumb{i}" for i in range(CRUMBS))]
        return np.concatenate([simulation.position(name) for name in names]).astype(np.float32)


def _draw_broom_position(rng: np.random.Generator, middle: np.ndarray, pans: list[np.ndarray]) -> np.ndarray:
    """World x and y [2] of the broom (metres), clear of the crumbs and of both pans whichever way it is turned."""
    while True:
        position = rng.uniform([0.02, -0.25], [0.38, 0.25])
        from_pans = min(np.linalg.norm(position - pan) for pan in pans)
        if np.linalg.norm(position - middle) > 0.13 and from_pans > 0.19:
            return position


def _add_pan(spec: mujoco.MjSpec, name: str, position: np.ndarray, yaw: float, wall_height: float) -> None:
    """Put a dustpan on the table, open towards its own -y, with its handle behind it."""
    pan = spec.worldbody.add_body(name=name, pos=[*position, TABLE_HEIGHT], quat=yaw_quaternion(yaw))
    width, depth, half = _PAN_HALF_WIDTH, _PAN_HALF_DEPTH, wall_height / 2
    # The floor is only to be seen: crumbs would catch on the thinnest edge.
    box(pan, [width, depth, 0.0005], [0, 0, 0.0005], _PLASTIC, **NO_CONTACT)
    for side in (-1, 1):
        box(pan, [_WALL, depth + _WALL, half], [side * (width + _WALL), 0, half], _PLASTIC)
    box(pan, [width + _WALL, _WALL, half], [0, depth + _WALL, half], _PLASTIC)
    box(pan, [0.014, 0.04, 0.008], [0, depth + 2 * _WALL + 0.04, 0.02], _PLASTIC)


def _add_broom(spec: mujoco.MjSpec, position: np.ndarray, yaw: float) -> None:
    """Stand the broom on its brush: body `broom` at the middle of the brush's lower edge, site `grip` on its handle."""
    broom = spec.worldbody.add_body(name="broom", pos=[*position, TABLE_HEIGHT], quat=yaw_quaternion(yaw))
    broom.add_freejoint(name="broom")
    length, thickness, half = _BRUSH
    box(broom, _BRUSH, [0, 0, half], _STRAW, mass=0.08, friction=SLIPPERY, **CONTACT)
    for end in (-1, 1):  # tufts that stand out a little, or a crumb that is hit at its edge flies past the brush
        box(
            broom,
            [0.004, thickness + 0.008, half],
            [end * length, 0, half],
            _STRAW,
            mass=0.005,
            friction=SLIPPERY,
            **CONTACT,
        )
    box(broom, [length, thickness + 0.003, 0.008], [0, 0, 2 * half + 0.008], _WOOD, mass=0.02, **CONTACT)
    top = 2 * half + 0.016
    options = {"mass": 0.02, "friction": GRIPPY, **CONTACT}
    cylinder(broom, _HANDLE_RADIUS, _HANDLE_HALF, [0, 0, top + _HANDLE_HALF], _WOOD, **options)
    broom.add_site(name="grip", pos=[0, 0, _GRIP], group=4)
