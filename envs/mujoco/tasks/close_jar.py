"""Put the lid on the jar of the named colour and screw it on."""

from __future__ import annotations

from collections.abc import Iterator

import mujoco
import numpy as np

from envs.colors import COLORS, Color
from envs.interface import Action, Choices
from envs.mujoco.scene import CONTACT, GRIPPY, NO_CONTACT, TABLE_HEIGHT, box, cylinder, place_apart, yaw_quaternion
from envs.mujoco.simulation import Simulation
from envs.mujoco.tasks.base import Task, facing_down, key_frame

SCREWED = np.pi / 4  # radians clockwise from which a lid counts as screwed on

# Metres, at scale 1. A jar: belly, shoulder and neck, from the table upwards.
_BELLY_RADIUS, _BELLY, _SHOULDER_RADIUS, _SHOULDER, _NECK_RADIUS, _NECK = 0.042, 0.08, 0.033, 0.01, 0.018, 0.026
# The lid: a disc with a skirt below it. Its frame is half-way up, where it is grasped.
_LID_RADIUS, _LID_HALF, _DISC_HALF, _SKIRT_HALF, _SKIRT_PARTS = 0.031, 0.013, 0.004, 0.0015, 12
_DISC_BOTTOM = _LID_HALF - 2 * _DISC_HALF - 0.0005  # above the lid's frame
_SEAT = _BELLY + _SHOULDER + _NECK - _DISC_BOTTOM  # of the lid's frame above the table when it lies on a neck

_APART = 0.165  # between jars and lid: the open hand fits between them
_ABOVE = 0.09  # of the tool over the lid, and over the jar
_TURN = np.radians(35.0)  # the tool turns from +35° to -35°; beyond 45° its half turn would be nearer

# How far the lid may be from lying centred on the neck: sideways, in height, and tilted (cosine).
_OFF_CENTRE = 0.013
_ROUND_NECK = (0.015, np.cos(np.radians(25.0)))  # the neck is inside the skirt
_AT_REST = (0.003, np.cos(np.radians(6.0)))

# The fingers and the table feel the lid as a full cylinder, which can be gripped in every direction without slipping
# along the edges of its parts; the jar feels its hollow inside: a disc and a ring of boxes.
_OUTSIDE, _INSIDE, _JAR = (
    {"contype": 0, "conaffinity": 1},
    {"contype": 4, "conaffinity": 0},
    {"contype": 2, "conaffinity": 1 | 4},
)

_METAL, _MOUTH = (0.5, 0.5, 0.52), (0.12, 0.12, 0.13)


class CloseJar(Task):
    """RLBench's task. Its rule asks only that the lid is near the jar's mouth and nothing is grasped. Here the lid must
    lie on the right jar, upright, not held, and have been turned clockwise by 45° or more since it came onto the neck.
    Turning it back counts against that, several grasps add up, and taking the lid off begins anew."""

    variation_count = len(COLORS)
    watches = True
    scales = (0.85, 1.15)
    has_new_position = True
    recolorable = ("lid",)

    def build(self, rng: np.random.Generator, variation: int, spec: mujoco.MjSpec) -> None:
        names = list(COLORS)
        name = names[variation]
        other = names[(variation + rng.integers(1, len(names))) % len(names)]
        jars, lid = _draw_places(rng, _APART * max(1.0, self.scale), self.new_position)
        self.target = variation % 2  # as in RLBench; where a jar stands does not depend on it
        for i in range(2):
            _add_jar(spec, f"jar{i}", jars[i], COLORS[name if i == self.target else other], self.scale)
        _add_lid(spec, lid, self.scale)
        self.descriptions = [
            f"close the {name} jar",
            f"screw on the {name} jar lid",
            f"grasping the lid, lift it from the table and use it to seal the {name} jar",
            f"pick up the lid from the table and put it on the {name} jar",
        ]
        self.turned = 0.0  # radians clockwise since the lid came onto a neck
        self._yaw: float | None = None  # of the lid one step ago, if it was on a neck

    def watch(self, simulation: Simulation) -> None:
        """Add up how far the lid is turned while its skirt is round a neck."""
        if not any(self._is_on(simulation, i, *_ROUND_NECK) for i in range(2)):
            self.turned, self._yaw = 0.0, None
            return
        x, y = simulation.data.body("lid").xmat[[0, 3]]
        yaw = float(np.arctan2(y, x))
        if self._yaw is not None:
            clockwise = (self._yaw - yaw + np.pi) % (2 * np.pi) - np.pi
            self.turned = max(0.0, self.turned + clockwise)  # a lid that is loose already cannot be loosened
        self._yaw = yaw

    def success(self, simulation: Simulation) -> bool:
        return (
            self._is_on(simulation, self.target, *_AT_REST) and self.turned > SCREWED and simulation.held_body() is None
        )

    def expert(self, simulation: Simulation) -> Iterator[Action]:
        start, end = facing_down(_TURN), facing_down(-_TURN)
        lid, seat = simulation.position("lid"), self._seat(simulation, self.target)
        above = np.array([0, 0, _ABOVE])
        yield key_frame(lid + above, start, gripper_open=True)
        yield key_frame(lid, start, gripper_open=False, ignore_collisions=True)
        yield key_frame(lid + above, start, gripper_open=False, ignore_collisions=True)
        yield key_frame(seat + above, start, gripper_open=False)
        yield key_frame(seat, start, gripper_open=False, ignore_collisions=True)
        yield key_frame(seat, end, gripper_open=True, ignore_collisions=True)

    def choices(self, simulation: Simulation) -> Choices:
        """Only the lid: whichever jar is named, it is fetched first."""
        return Choices({"lid": simulation.position("lid") + [0, 0, _ABOVE]}, "lid")

    def low_dim_state(self, simulation: Simulation) -> np.ndarray:
        """[10] positions of the lid and of the places on the jars where it belongs, and how far it is screwed on."""
        seats = [self._seat(simulation, i) for i in range(2)]
        return np.array([*simulation.position("lid"), *seats[0], *seats[1], self.turned], np.float32)

    def _seat(self, simulation: Simulation, i: int) -> np.ndarray:
        """[3] position of the lid when it lies on jar `i`."""
        return simulation.position(f"jar{i}") + [0, 0, _SEAT * self.scale]

    def _is_on(self, simulation: Simulation, i: int, height: float, upright: float) -> bool:
        """Whether the lid is on jar `i`, at most `height` metres above or below where it comes to lie, and its axis at
        least so `upright` (cosine)."""
        x, y, z = simulation.data.body("lid").xpos - self._seat(simulation, i)
        is_near = np.hypot(x, y) < _OFF_CENTRE * self.scale and abs(z) < height
        return bool(is_near and simulation.data.body("lid").xmat[8] > upright)


def _draw_places(rng: np.random.Generator, apart: float, is_new: bool) -> tuple[np.ndarray, np.ndarray]:
    """Positions [2, 2] of the jars and [2] of the lid (world x and y, metres), at least `apart` from each other.

    At a new position the lid lies further to the side than anything does otherwise.
    """
    if not is_new:
        places = place_apart(rng, 3, (0.06, -0.28), (0.38, 0.28), apart)
        return places[:2], places[2]
    while True:
        jars = place_apart(rng, 2, (0.06, -0.28), (0.38, 0.28), apart)
        lid = rng.uniform([0.06, 0.31], [0.3, 0.36]) * [1.0, rng.choice([-1.0, 1.0])]
        if np.linalg.norm(jars - lid, axis=1).min() >= apart:
            return jars, lid


def _add_jar(spec: mujoco.MjSpec, name: str, position: np.ndarray, color: Color, scale: float) -> None:
    jar = spec.worldbody.add_body(name=name, pos=[*position, TABLE_HEIGHT])
    bottom = 0.0
    for radius, height in ((_BELLY_RADIUS, _BELLY), (_SHOULDER_RADIUS, _SHOULDER), (_NECK_RADIUS, _NECK)):
        middle = [0, 0, scale * (bottom + height / 2)]
        cylinder(jar, scale * radius, scale * height / 2, middle, color, **CONTACT, **_JAR)
        bottom += height
    cylinder(jar, scale * 0.8 * _NECK_RADIUS, 0.0005, [0, 0, scale * bottom], _MOUTH, **NO_CONTACT)


def _add_lid(spec: mujoco.MjSpec, position: np.ndarray, scale: float) -> None:
    lid = spec.worldbody.add_body(name="lid", pos=[*position, TABLE_HEIGHT + scale * _LID_HALF])
    lid.add_freejoint(name="lid")
    outside = {"mass": 0.03, "friction": GRIPPY, **CONTACT, **_OUTSIDE}
    cylinder(lid, scale * _LID_RADIUS, scale * _LID_HALF, [0, 0, 0], _METAL, **outside)
    inside = {"mass": 0.002, "friction": GRIPPY, **CONTACT, **_INSIDE}
    radius, height = scale * (_LID_RADIUS - 0.0005), scale * (_LID_HALF - _DISC_HALF - 0.0005)
    cylinder(lid, radius, scale * _DISC_HALF, [0, 0, height], _METAL, **inside)
    thickness, half_width = scale * _SKIRT_HALF, radius * np.tan(np.pi / _SKIRT_PARTS)
    for angle in np.arange(_SKIRT_PARTS) * 2 * np.pi / _SKIRT_PARTS:
        x, y = (radius - thickness) * np.cos(angle), (radius - thickness) * np.sin(angle)
        size = [thickness, half_width, height]
        box(lid, size, [x, y, -scale * _DISC_HALF], _METAL, quat=yaw_quaternion(angle), **inside)
