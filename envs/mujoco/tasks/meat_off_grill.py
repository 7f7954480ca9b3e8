"""Take the chicken or the steak off the grill and put it down on the shelf beside it."""

from __future__ import annotations

from collections.abc import Iterator

import mujoco
import numpy as np

from envs.interface import Action, Choices
from envs.mujoco.scene import CONTACT, GRIPPY, ROBOT_BASE, TABLE_HEIGHT, box, yaw_matrix, yaw_quaternion
from envs.mujoco.simulation import Simulation
from envs.mujoco.tasks.base import Task, facing_down, half_turn_yaw, key_frame

MEAT = ("chicken", "steak")

# Metres, in the grill's frame: its centre on the table, the open lid at -x, the shelf at -y.
_HALF_DEPTH, _HALF_WIDTH, _HALF_HEIGHT = 0.125, 0.13, 0.035
_RODS, _ROD = 0.20, 0.004  # height of their tops, radius
_SHELF = np.array([0.0, -0.225, 0.17])  # centre of the surface on which the meat belongs
_SHELF_HALF = (0.11, 0.085)
_RIM = 0.004
_LID_LEAN, _LID_HALF_HEIGHT = 0.35, 0.07  # radians, metres
_SLOT = (0.025, 0.065)  # where meat lies: x, and y on either side
_CHICKEN_RADIUS, _STEAK_HALF_HEIGHT = 0.02, 0.012
_ABOVE, _LIFT, _OVER, _DROP = 0.10, 0.13, 0.11, 0.003
_NEAREST, _FARTHEST = 0.38, 0.72  # from the robot's base, seen from above, of what is to be reached

_BLACK, _STEEL = (0.10, 0.10, 0.11), (0.5, 0.5, 0.52)
_SKIN, _BONE, _BEEF, _FAT = (0.80, 0.48, 0.20), (0.93, 0.88, 0.78), (0.55, 0.10, 0.08), (0.92, 0.78, 0.70)


class MeatOffGrill(Task):
    """RLBench counts the meat as soon as a sensor beside the grill sees it and nothing is grasped; here it must lie on
    the shelf, let go, and the other piece must still lie on the grill."""

    variation_count = len(MEAT)
    scales = (0.8, 1.2)
    recolorable = ("grill",)

    def build(self, rng: np.random.Generator, variation: int, spec: mujoco.MjSpec) -> None:
        position, yaw = _draw_grill_pose(rng)
        _add_grill(spec, position, yaw)
        sides = rng.permutation([-1, 1])
        for name, side in zip(MEAT, sides, strict=True):
            offset = [_SLOT[0], side * _SLOT[1], 0.0] + np.array([*rng.uniform(-0.012, 0.012, 2), 0.0])
            place = position + (yaw_matrix(yaw) @ offset)[:2]
            _add_meat(spec, name, place, yaw + rng.uniform(-0.5, 0.5), self.scale)
        self.target = variation
        name = MEAT[variation]
        self.descriptions = [
            f"take the {name} off the grill",
            f"pick up the {name} and place it next to the grill",
            f"remove the {name} from the grill and set it down to the side",
            f"the {name} is done, lay it on the shelf beside the grill",
        ]

    def success(self, simulation: Simulation) -> bool:
        wanted, other = (_in_grill(simulation, MEAT[i]) for i in (self.target, 1 - self.target))
        in_zone = (np.abs(wanted - _SHELF)[:2] < _SHELF_HALF).all() and 0 < wanted[2] - _SHELF[2] < 0.05
        other_stays = (np.abs(other[:2]) < (_HALF_DEPTH, _HALF_WIDTH)).all() and other[2] > _RODS
        return bool(in_zone and other_stays and simulation.gripper_open)

    def expert(self, simulation: Simulation) -> Iterator[Action]:
        meat, rotation = simulation.position(MEAT[self.target]), _grasp_rotation(simulation, MEAT[self.target])
        height = meat[2] - simulation.position("grill")[2] - _RODS  # of the meat's centre over what it lies on
        yield key_frame(meat + [0, 0, _ABOVE], rotation, gripper_open=True)
        yield key_frame(meat, rotation, gripper_open=False, ignore_collisions=True)
        yield key_frame(meat + [0, 0, _LIFT], rotation, gripper_open=False, ignore_collisions=True)
        shelf = simulation.position("grill") + simulation.rotation("grill") @ _SHELF
        along = facing_down(half_turn_yaw(_yaw(simulation, "grill")))
        yield key_frame(shelf + [0, 0, _OVER], along, gripper_open=False)
        yield key_frame(shelf + [0, 0, height + _DROP], along, gripper_open=True, ignore_collisions=True)

    def choices(self, simulation: Simulation) -> Choices:
        """The pre-grasps of the two pieces of meat."""
        return Choices({name: simulation.position(name) + [0, 0, _ABOVE] for name in MEAT}, MEAT[self.target])

    def low_dim_state(self, simulation: Simulation) -> np.ndarray:
        """[9] positions of chicken, steak and grill."""
        names = (*MEAT, "grill")
        return np.concatenate([simulation.position(name) for name in names]).astype(np.float32)


def _in_grill(simulation: Simulation, name: str) -> np.ndarray:
    """[3] position of a body in the grill's frame."""
    return simulation.rotation("grill").T @ (simulation.position(name) - simulation.position("grill"))


def _yaw(simulation: Simulation, name: str) -> float:
    x_axis = simulation.rotation(name)[:, 0]
    return float(np.arctan2(x_axis[1], x_axis[0]))


def _grasp_rotation(simulation: Simulation, name: str) -> np.ndarray:
    """[3, 3] the tool from above, its fingers across the meat's length."""
    return facing_down(half_turn_yaw(_yaw(simulation, name)))


def _draw_grill_pose(rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Position [2] (metres) and yaw (radians) of a grill of which every piece of meat and the shelf can be reached."""
    corners = np.array([[_SLOT[0], side * _SLOT[1]] for side in (-1, 1)] + [list(_SHELF[:2])])
    while True:
        position = rng.uniform([0.10, -0.10], [0.32, 0.25])
        yaw = rng.uniform(-np.pi / 3, np.pi / 3)
        places = position + corners @ yaw_matrix(yaw)[:2, :2].T
        distances = np.linalg.norm(places - ROBOT_BASE[:2], axis=1)
        if distances.min() > _NEAREST and distances.max() < _FARTHEST:
            return position, yaw


def _add_grill(spec: mujoco.MjSpec, position: np.ndarray, yaw: float) -> None:
    grill = spec.worldbody.add_body(name="grill", pos=[*position, TABLE_HEIGHT], quat=yaw_quaternion(yaw))
    depth, width = _HALF_DEPTH, _HALF_WIDTH
    middle = _RODS - 2 * _ROD - _HALF_HEIGHT
    box(grill, [depth, width, _HALF_HEIGHT], [0, 0, middle], _BLACK)
    for y in np.linspace(-0.9, 0.9, 11) * width:
        grill.add_geom(
            type=mujoco.mjtGeom.mjGEOM_CAPSULE,
            fromto=[-0.94 * depth, y, _RODS - _ROD, 0.94 * depth, y, _RODS - _ROD],
            size=[_ROD, 0, 0],
            rgba=[*_STEEL, 1],
        )
    lean = [float(np.cos(_LID_LEAN / 2)), 0.0, -float(np.sin(_LID_LEAN / 2)), 0.0]
    away, up = np.sin(_LID_LEAN), np.cos(_LID_LEAN)
    lid = [-depth - _LID_HALF_HEIGHT * away, 0, _RODS + _LID_HALF_HEIGHT * up]
    box(grill, [0.006, width, _LID_HALF_HEIGHT], lid, _BLACK, quat=lean)
    surface = _SHELF[2]
    box(grill, [*_SHELF_HALF, 0.006], [*_SHELF[:2], surface - 0.006], _BLACK)
    for side in (-1, 1):
        for leg in ([side * 0.11, 0.12, 0.07], [side * 0.10, -0.30, 0.079]):
            box(grill, [0.008, 0.008, leg[2]], leg, _BLACK)
        end = [_SHELF[0] + side * (_SHELF_HALF[0] - _RIM), _SHELF[1], surface + _RIM]
        box(grill, [_RIM, _SHELF_HALF[1], _RIM], end, _STEEL)
    far = [_SHELF[0], _SHELF[1] - _SHELF_HALF[1] + _RIM, surface + _RIM]
    box(grill, [_SHELF_HALF[0], _RIM, _RIM], far, _STEEL)


def _add_meat(spec: mujoco.MjSpec, name: str, place: np.ndarray, yaw: float, scale: float) -> None:
    """Put a drumstick or a steak onto the rods: a free body, its length along its x."""
    # Rolling friction, or a drumstick would roll off.
    options = {**CONTACT, "condim": 6, "friction": [GRIPPY[0], GRIPPY[1], 0.005]}
    half_height = scale * (_CHICKEN_RADIUS if name == "chicken" else _STEAK_HALF_HEIGHT)
    position = [*place, TABLE_HEIGHT + _RODS + half_height + 0.001]
    meat = spec.worldbody.add_body(name=name, pos=position, quat=yaw_quaternion(yaw))
    meat.add_freejoint(name=name)
    if name == "steak":
        for half_sizes, at, color, mass in (
            ((0.042, 0.022, 0.012), (0, 0, 0), _BEEF, 0.1),
            ((0.042, 0.004, 0.0121), (0, 0.0182, 0), _FAT, 0.01),
            ((0.004, 0.012, 0.0121), (0.012, 0, 0), _FAT, 0.01),
        ):
            box(meat, [scale * x for x in half_sizes], [scale * x for x in at], color, mass=mass, **options)
        return
    for ends, radius, color, mass in (
        ((-0.024, 0.010), _CHICKEN_RADIUS, _SKIN, 0.1),
        ((0.025, 0.062), 0.008, _BONE, 0.01),
    ):
        drop = scale * (radius - _CHICKEN_RADIUS)  # both parts lie on the rods
        meat.add_geom(
            type=mujoco.mjtGeom.mjGEOM_CAPSULE,
            fromto=[scale * ends[0], 0, drop, scale * ends[1], 0, drop],
            size=[scale * radius, 0, 0],
            rgba=[*color, 1],
            mass=mass,
            **options,
        )
