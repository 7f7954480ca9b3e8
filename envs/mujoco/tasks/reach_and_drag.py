"""Pick up a stick and push a cube with it onto the coloured square that the instruction names."""

from __future__ import annotations

from collections.abc import Iterator

import mujoco
import numpy as np

from envs.colors import COLORS
from envs.interface import Action, Choices
from envs.mujoco.panda import ROBOT_BODIES
from envs.mujoco.scene import (
    CONTACT,
    GRIPPY,
    NO_CONTACT,
    ROBOT_BASE,
    SLIPPERY,
    TABLE_HEIGHT,
    box,
    free_cube,
    yaw_matrix,
    yaw_quaternion,
)
from envs.mujoco.simulation import Simulation
from envs.mujoco.tasks.base import Task, facing_down, key_frame

ON_TARGET = 0.03  # metres between the centres of cube and square, seen from above
_SQUARES = 4

# Metres.
_CUBE_HALF, _SQUARE_HALF = 0.025, 0.04
_STICK_HALF_LENGTH, _STICK_HALF = 0.13, 0.011
_GRIP, _TIP = -0.105, 0.075  # along the stick from its middle: where it is held, and what meets the middle of the cube
_GAP = 0.03  # between stick and cube before the push
_ABOVE, _HEIGHT = 0.09, 0.018  # of the stick: over its lower position, and of that over the table
_REACH = (0.34, 0.67)  # of the tool from the robot's base, seen from above
_GRAY = (0.66, 0.66, 0.75)


class ReachAndDrag(Task):
    """PerAct's and GNFactor's variant of RLBench's task, with three squares of other colours. There these are always
    the fifth, sixth and seventh colour after the named one, which gives the answer away without the instruction; here
    they are drawn.

    RLBench counts a cube of which any part lies on the square, however it came there. Here its centre must lie within
    3 cm of the square's, and no part of the robot may ever have touched it: then only the stick can have moved it.
    """

    variation_count = len(COLORS)
    watches = True
    scales = (0.8, 1.25)
    recolorable = ("stick", "cube")

    def build(self, rng: np.random.Generator, variation: int, spec: mujoco.MjSpec) -> None:
        self._half = _CUBE_HALF * self.scale
        cube, yaw, squares, stick, stick_yaw = _draw_layout(rng, self._half)
        names = list(COLORS)
        name = names.pop(variation)
        colors = [COLORS[name], *(COLORS[names[k]] for k in rng.permutation(len(names))[: _SQUARES - 1])]
        for square, color in zip(squares, colors, strict=True):
            flat = [_SQUARE_HALF, _SQUARE_HALF, 0.0005]
            box(spec.worldbody, flat, [*square, TABLE_HEIGHT + 0.0005], color, quat=yaw_quaternion(yaw), **NO_CONTACT)
        self.squares = [np.array([*square, TABLE_HEIGHT + self._half]) for square in squares]
        self.target = 0
        free_cube(spec, "cube", [*cube, TABLE_HEIGHT + self._half], self._half, _GRAY, yaw, 0.1, SLIPPERY)
        _add_stick(spec, stick, stick_yaw)
        self.was_touched = False
        self.descriptions = [
            f"use the stick to drag the cube onto the {name} target",
            f"pick up the stick and push or pull the cube onto the {name} target with it",
            f"drag the block towards the {name} square on the table top",
            f"grasp the stick by one end and move the block onto the {name} target with its other end",
        ]

    def watch(self, simulation: Simulation) -> None:
        """Note whether the robot touches the cube."""
        bodies = simulation.model.geom_bodyid[simulation.data.contact.geom[: simulation.data.ncon]]
        cube = simulation.model.body("cube").id
        for body in bodies[(bodies == cube).any(axis=1)].ravel():
            self.was_touched |= simulation.model.body(body).name in ROBOT_BODIES

    def success(self, simulation: Simulation) -> bool:
        offset = simulation.position("cube") - self.squares[self.target]
        return bool(np.linalg.norm(offset[:2]) < ON_TARGET) and not self.was_touched

    def expert(self, simulation: Simulation) -> Iterator[Action]:
        grip, along = simulation.site("grip"), simulation.rotation("stick")[:, 0]
        rotation = facing_down(float(np.arctan2(along[1], along[0])))
        yield key_frame(grip + [0, 0, _ABOVE], rotation, gripper_open=True)
        yield key_frame(grip, rotation, gripper_open=False, ignore_collisions=True)
        yield key_frame(grip + [0, 0, _ABOVE], rotation, gripper_open=False, ignore_collisions=True)

        position, rotation = simulation.tool_pose()
        T_tool_tip = rotation.T @ (simulation.site("tip") - position)
        cube, square = simulation.position("cube")[:2], self.squares[self.target][:2]
        direction, yaw = _push(cube, square)
        rotation = facing_down(yaw)
        shift = np.array([0, 0, TABLE_HEIGHT + _HEIGHT]) - rotation @ T_tool_tip
        behind = shift + [*cube - (self._half + _STICK_HALF + _GAP) * direction, 0]
        pushed = shift + [*square - (self._half + _STICK_HALF) * direction, 0]
        yield key_frame(behind + [0, 0, _ABOVE], rotation, gripper_open=False)
        yield key_frame(behind, rotation, gripper_open=False, ignore_collisions=True)
        yield key_frame(pushed, rotation, gripper_open=False, ignore_collisions=True)

    def choices(self, simulation: Simulation) -> Choices:
        """Only the stick: whichever square is named, it is fetched first."""
        return Choices({"stick": simulation.site("grip") + [0, 0, _ABOVE]}, "stick")

    def low_dim_state(self, simulation: Simulation) -> np.ndarray:
        """[21] positions of the cube, of the stick's two ends and of the four squares, the named one first."""
        parts = [simulation.position("cube"), simulation.site("grip"), simulation.site("tip"), *self.squares]
        return np.concatenate(parts).astype(np.float32)


def _draw_layout(
    rng: np.random.Generator, half: float
) -> tuple[np.ndarray, float, list[np.ndarray], np.ndarray, float]:
    """Position [2] and yaw of the cube, positions [2] of the squares off its four sides in random order, position [2]
    and yaw of the stick; all in metres and radians, drawn until the arm can reach every push.

    The squares lie obliquely from the robot and the stick points about straight ahead, so that no push needs more than
    a quarter turn of the hand: beyond it the environment would prefer the pose half a turn round, which is the same for
    an empty gripper, but not for one that holds a stick by its end.
    """
    while True:
        cube, yaw = rng.uniform([0.24, -0.08], [0.36, 0.08]), np.pi / 4 + rng.uniform(-0.3, 0.3)
        squares = [
            cube + rng.uniform(0.13, 0.19) * yaw_matrix(yaw + k * np.pi / 2)[:2, 0] for k in rng.permutation(_SQUARES)
        ]
        stick, stick_yaw = rng.uniform([0.04, -0.36], [0.3, 0.36]), rng.uniform(-0.35, 0.35)
        along = yaw_matrix(stick_yaw)[:2, 0]
        tools = [stick + _GRIP * along]
        for square in squares:
            direction, push_yaw = _push(cube, square)
            back = (half + _STICK_HALF) * direction + (_TIP - _GRIP) * yaw_matrix(push_yaw)[:2, 0]
            tools += [cube - _GAP * direction - back, square - back]
        reaches = np.linalg.norm(np.stack(tools) - ROBOT_BASE[:2], axis=1)
        points = np.stack([cube, *squares])
        nearest = stick + np.clip((points - stick) @ along, -_STICK_HALF_LENGTH, _STICK_HALF_LENGTH)[:, None] * along
        clear = np.linalg.norm(points - nearest, axis=1).min()
        if _REACH[0] < reaches.min() and reaches.max() < _REACH[1] and clear > _SQUARE_HALF * 2**0.5 + 0.03:
            return cube, yaw, squares, stick, stick_yaw


def _push(cube: np.ndarray, square: np.ndarray) -> tuple[np.ndarray, float]:
    """Unit direction [2] from the cube to a square, and the yaw (radians) of a stick that lies across it and points
    away from the robot."""
    direction = (square - cube) / np.linalg.norm(square - cube)
    across = np.array([-direction[1], direction[0]])
    across *= np.sign(across[0])
    return direction, float(np.arctan2(across[1], across[0]))


def _add_stick(spec: mujoco.MjSpec, position: np.ndarray, yaw: float) -> None:
    """Lay the stick on the table: body `stick` along its own x, sites `grip` and `tip`."""
    stick = spec.worldbody.add_body(name="stick", pos=[*position, TABLE_HEIGHT + _STICK_HALF], quat=yaw_quaternion(yaw))
    stick.add_freejoint(name="stick")
    sizes = [_STICK_HALF_LENGTH, _STICK_HALF, _STICK_HALF]
    box(stick, sizes, [0, 0, 0], _GRAY, mass=0.05, friction=GRIPPY, **CONTACT)
    for name, along in (("grip", _GRIP), ("tip", _TIP)):
        stick.add_site(name=name, pos=[along, 0, 0], group=4)
