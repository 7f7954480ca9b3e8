"""Turn the left or the right handle of a tap."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import mujoco
import numpy as np
from numpy.typing import ArrayLike

from envs.interface import Action, Choices
from envs.mujoco.scene import CONTACT, GRIPPY, ROBOT_BASE, TABLE_HEIGHT, cylinder, yaw_matrix, yaw_quaternion
from envs.mujoco.simulation import Simulation
from envs.mujoco.tasks.base import Task, facing_down, key_frame

SIDES = ("left", "right")
_SIGNS = (1, -1)  # of a side's y, and of the sense in which its handle opens, seen from above
TURNED = np.pi / 2  # radians from which a handle counts as turned, as in RLBench
IN_GRASP = np.pi / 3  # radians of it between the fingers
UNTOUCHED = np.pi / 6  # radians up to which the other one counts as left alone

# Metres, in the tap's frame: its foot on the table, the spout towards -x, the left handle at +y for whoever stands
# before the spout. The handles' axes lean outwards.
_LEAN = np.pi / 4
_STEM_FOOT, _STEM = (0.02, 0.03), 0.10  # y and z of a stem's lower end; its length
_BAR_HALF, _BAR_RADIUS = 0.032, 0.0065
_NECK, _BEND = 0.20, 0.065  # the spout: height at which it begins to bend, radius
_BEFORE = 0.09  # from pre-grasp to grasp
# Radians. Two turns, because one of more than a quarter turn would be the same as a smaller one the other way round:
# the gripper looks the same after half a turn.
_TURN, _TURNS = 0.92, 2
_STOP = 2.6  # where a handle turns no further
_TIE = 0.3  # least `_likeness` to the start pose of a grasp: at 0 its half turn would be as near

# Of where a tap stands.
_ASIDE, _LARGEST_YAW = 0.18, 1.4
_NEAREST, _FARTHEST = 0.36, 0.74  # from the robot's base, seen from above: crosses, and the wrist before a grasp
_WIDEST = 0.42  # a cross's y: farther out, the pre-grasp would lie outside the workspace
_WRIST = 0.21 + _BEFORE  # from cross to wrist

_METAL, _DARK = (0.42, 0.43, 0.46), (0.25, 0.25, 0.28)


class TurnTap(Task):
    """RLBench's rule looks at the named handle only, however it came to turn. Here the other one must be left alone, so
    that an agent cannot succeed by turning both, and the fingers must hold the handle while it turns, at least through
    60°: an arm that is dragged across a tap turns it now and then."""

    variation_count = len(SIDES)
    watches = True
    has_new_position = True
    recolorable = ("tap", *SIDES)

    def build(self, rng: np.random.Generator, variation: int, spec: mujoco.MjSpec) -> None:
        _add_tap(spec, *_draw_tap_pose(rng, self.new_position))
        self.target = variation
        self.turned = 0.0  # radians that the named handle has turned between the fingers
        self._angle = 0.0  # of that handle one step ago
        name = SIDES[variation]
        self.descriptions = [
            f"turn {name} tap",
            f"rotate the {name} tap",
            f"grasp the {name} tap and turn it",
            f"open the tap on the {name}",
        ]

    def watch(self, simulation: Simulation) -> None:
        """Add up how far the named handle turns between the fingers."""
        angle = simulation.joint(SIDES[self.target])
        if angle != self._angle:
            handle = simulation.model.body(SIDES[self.target]).id
            if all(handle in touched for touched in simulation.touched_by_pads()):
                self.turned += angle - self._angle
            self._angle = angle

    def success(self, simulation: Simulation) -> bool:
        turned, other = (simulation.joint(SIDES[i]) for i in (self.target, 1 - self.target))
        return turned > TURNED and self.turned > IN_GRASP and other < UNTOUCHED

    def expert(self, simulation: Simulation) -> Iterator[Action]:
        centre, (first, *others) = simulation.site(SIDES[self.target]), _rotations(simulation, self.target)
        yield key_frame(centre - _BEFORE * first[:, 2], first, gripper_open=True)
        yield key_frame(centre, first, gripper_open=False, ignore_collisions=True)
        for rotation in others:
            yield key_frame(centre, rotation, gripper_open=False, ignore_collisions=True)

    def choices(self, simulation: Simulation) -> Choices:
        """The pre-grasps of the two handles."""
        before = {name: simulation.site(name) - _BEFORE * _down(simulation, name) for name in SIDES}
        return Choices(before, SIDES[self.target])

    def low_dim_state(self, simulation: Simulation) -> np.ndarray:
        """[8] position and turn (radians) of the left and of the right handle."""
        parts = [[*simulation.site(name), simulation.joint(name)] for name in SIDES]
        return np.concatenate(parts).astype(np.float32)


def _down(simulation: Simulation, name: str) -> np.ndarray:
    """[3] along a handle's axis, into the tap."""
    return -simulation.rotation(name)[:, 2]


def _rotations(simulation: Simulation, side: int) -> list[np.ndarray]:
    """The tool ([3, 3] each) when it grasps a handle as it stands, and after each turn.

    The fingers close into two opposite gaps of the cross. Of the four ways to do so it is the one with which the wrist
    stays nearest to the start pose all the way.
    """
    handle = simulation.rotation(SIDES[side])
    turns = [handle @ yaw_matrix(_SIGNS[side] * k * _TURN) for k in range(_TURNS + 1)]
    ways = [[turn @ facing_down(np.pi / 4 + quarter * np.pi / 2) for turn in turns] for quarter in range(4)]
    clear = [way for way in ways if _likeness(way[0]) > _TIE]
    return max(clear, key=lambda way: min(_likeness(rotation) for rotation in way))


def _likeness(rotation: np.ndarray) -> float:
    """How far a tool's fingers stand as those of one that points down at yaw 0: from -2 to 2, 0 at a quarter turn."""
    return float((facing_down()[:, :2] * rotation[:, :2]).sum())


def _draw_tap_pose(rng: np.random.Generator, new_position: bool) -> tuple[np.ndarray, float]:
    """Position [2] (metres) and yaw (radians) of a tap of which both handles can be reached and turned.

    A new position is farther to either side than the usual ones.
    """
    while True:
        position = rng.uniform([0.02, -_ASIDE], [0.38, _ASIDE])
        if new_position:
            position[1] += np.copysign(_ASIDE, position[1])
        yaw = rng.uniform(-_LARGEST_YAW, _LARGEST_YAW)
        outwards = [sign * yaw_matrix(yaw)[:2, 1] for sign in _SIGNS]
        crosses = [position + (_STEM_FOOT[0] + _STEM * np.sin(_LEAN)) * out - ROBOT_BASE[:2] for out in outwards]
        wrists = [cross + _WRIST * np.sin(_LEAN) * out for cross, out in zip(crosses, outwards, strict=True)]
        in_reach = min(map(np.linalg.norm, crosses)) > _NEAREST and max(map(np.linalg.norm, wrists)) < _FARTHEST
        if in_reach and max(abs(cross[1]) for cross in crosses) < _WIDEST:
            return position, yaw


def _add_tap(spec: mujoco.MjSpec, position: np.ndarray, yaw: float) -> None:
    """Put the tap on the table: body `tap`, and for `left` and `right` a body, a joint (radians of turn) and a site in
    the middle of the cross, each of that name."""
    tap = spec.worldbody.add_body(name="tap", pos=[*position, TABLE_HEIGHT], quat=yaw_quaternion(yaw))
    cylinder(tap, 0.032, 0.006, [0, 0, 0.006], _METAL)
    cylinder(tap, 0.020, 0.035, [0, 0, 0.045], _METAL)
    angles = np.linspace(0.0, 0.95 * np.pi, 7)
    arc = [[0.0, 0.0, 0.07], *([_BEND * (np.cos(a) - 1), 0.0, _NECK + _BEND * np.sin(a)] for a in angles)]
    arc.append([arc[-1][0], 0.0, arc[-1][2] - 0.03])
    for start, end in pairwise(arc):
        _tube(tap, start, end, 0.013, _METAL)
    for side, name in enumerate(SIDES):
        _add_handle(spec, tap, name, side)


def _add_handle(spec: mujoco.MjSpec, tap: mujoco.MjsBody, name: str, side: int) -> None:
    out = _SIGNS[side]
    axis = np.array([0.0, out * np.sin(_LEAN), np.cos(_LEAN)])
    foot = np.array([0.0, out * _STEM_FOOT[0], _STEM_FOOT[1]])
    centre = foot + _STEM * axis
    _tube(tap, foot, centre - 0.035 * axis, 0.013, _METAL)
    lean = -out * _LEAN / 2  # half the angle about x
    handle = tap.add_body(name=name, pos=centre, quat=[np.cos(lean), np.sin(lean), 0, 0])
    handle.add_joint(
        name=name,
        type=mujoco.mjtJoint.mjJNT_HINGE,
        axis=[0, 0, out],
        range=[0.0, _STOP],
        limited=True,
        damping=0.05,
        frictionloss=0.05,
    )
    options = {"mass": 0.03, "friction": GRIPPY, **CONTACT}
    _tube(handle, [0, 0, -0.04], [0, 0, 0.004], 0.008, _DARK, **options)
    for tip in ([_BAR_HALF, 0.0, 0.0], [0.0, _BAR_HALF, 0.0]):
        _tube(handle, [-x for x in tip], tip, _BAR_RADIUS, _DARK, **options)
    handle.add_site(name=name, group=4)
    spec.add_exclude(bodyname1="tap", bodyname2=name)


def _tube(
    body: mujoco.MjsBody,
    start: ArrayLike,
    end: ArrayLike,
    radius: float,
    color: tuple[float, float, float],
    **options: Any,
) -> None:
    ends = np.concatenate([np.asarray(start, float), np.asarray(end, float)])
    body.add_geom(type=mujoco.mjtGeom.mjGEOM_CAPSULE, fromto=ends, size=[radius, 0, 0], rgba=[*color, 1], **options)
