"""Where the extra pictures of a neural field's training are taken from, and of which frames.

A camera stands at `radius` from the middle of the workspace and looks at it. GNFactor moves one along an arc before the
robot and stops at the same places in every frame; here every frame draws its own, so that a data set of the same size
shows a scene from more sides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from demos.keyframes import REST_SPEED
from envs.interface import Observation, Viewpoint
from manifield.errors import InputError, choose, within
from perception.cameras import look_at

TARGET = np.array([0.2, 0.0, 1.0])  # metres: the table's middle, between its top and the arm's start
LAYOUTS = ("arc", "hemisphere")
KEYFRAMES = "keyframes"
_GOLDEN_TURN = np.pi * (3.0 - np.sqrt(5.0))  # radians: spreads any number of points evenly around a sphere
_SPREAD = 0.5  # of the way to the next camera that one may stand off its place, to either side together


@dataclass(frozen=True)
class FieldViewPlan:
    """Extra pictures of an episode, as `configs/collect.yaml` describes them under `field_views`.

    count: pictures a frame. layout: "arc" before the robot, or "hemisphere" around it. every: k for every k-th frame,
    None for the key-frames and the first one. radius: metres from the middle of the workspace. height: lowest and
    highest z, metres. arc: radians. size: pixels. fov: narrowest and widest vertical field of view, radians.
    """

    count: int
    layout: str
    every: int | None
    radius: float
    height: tuple[float, float]
    arc: float
    size: int
    fov: tuple[float, float]

    @staticmethod
    def from_config(config: Mapping[str, Any]) -> FieldViewPlan | None:
        """The plan of group `field_views`; None if its count is 0.

        Raises:
            InputError: a value without meaning, named with its key.
        """
        named = {f"field_views.{key}": value for key, value in config.items()}
        within(
            named,
            **{
                "field_views.count": (0, 1000),
                "field_views.radius": (0.3, 10.0),
                "field_views.arc": (1.0, 360.0),
                "field_views.image_size": (1, 1024),
            },
        )
        choose(config["layout"], LAYOUTS, "field_views.layout")
        frames = str(config["frames"])
        if frames != KEYFRAMES and not (frames.isdigit() and int(frames) > 0):
            raise InputError(f"field_views.frames={frames}: give {KEYFRAMES}, or a number k for every k-th frame")
        low, high = _range(config, "height")
        reach = TARGET[2] + float(config["radius"])
        if low < 0.0 or high >= reach:
            raise InputError(
                f"field_views.height=[{low:g},{high:g}]: give heights from 0 to {reach:g} m, below which "
                f"cameras at field_views.radius={config['radius']:g} stand"
            )
        narrow, wide = _range(config, "fov")
        if narrow <= 1.0 or wide >= 170.0:
            raise InputError(f"field_views.fov=[{narrow:g},{wide:g}]: give degrees between 1 and 170")
        if config["count"] == 0:
            return None
        return FieldViewPlan(
            count=int(config["count"]),
            layout=str(config["layout"]),
            every=None if frames == KEYFRAMES else int(frames),
            radius=float(config["radius"]),
            height=(low, high),
            arc=float(np.radians(config["arc"])),
            size=int(config["image_size"]),
            fov=(float(np.radians(narrow)), float(np.radians(wide))),
        )

    def viewpoints(self, seed: int, frame: int) -> list[Viewpoint]:
        """Where to draw frame `frame` of the scene `seed` from, a function of both; neighbours stand side by side."""
        rng = np.random.default_rng([seed, frame + 1])  # a 0 would give the stream that the scene itself is drawn from
        number = np.arange(self.count)
        share = (number + 0.5 + rng.uniform(-_SPREAD / 2, _SPREAD / 2, self.count)) / self.count  # of (0, 1), evenly
        if self.layout == "arc":
            azimuth, rise = (share - 0.5) * self.arc, rng.uniform(0.0, 1.0, self.count)
        else:
            azimuth, rise = number * _GOLDEN_TURN + rng.uniform(0.0, 2.0 * np.pi), share
        z = self.height[0] + rise * (self.height[1] - self.height[0])
        across = np.sqrt(self.radius**2 - (z - TARGET[2]) ** 2)
        x, y = TARGET[0] + across * np.cos(azimuth), TARGET[1] + across * np.sin(azimuth)
        fov = rng.uniform(*self.fov, self.count)
        return [
            Viewpoint(look_at(position, TARGET), float(angle), self.size)
            for position, angle in zip(np.stack([x, y, z], axis=1), fov, strict=True)
        ]

    def may_want(self, frames: list[Observation], complete: bool = False) -> bool:
        """Whether the last of `frames` may turn out to be one of `wanted`. complete: no other frame will follow.

        Which frames are key-frames shows only later, when the world has moved on and can no longer be drawn. But in a
        key-frame the arm rests or the gripper has changed, unless it is the demonstration's last.
        """
        if self.every is not None:
            return (len(frames) - 1) % self.every == 0
        if len(frames) == 1 or complete:
            return True
        resting = bool((np.abs(frames[-1].joint_velocities) <= REST_SPEED).all())
        return resting or frames[-1].gripper_open != frames[-2].gripper_open

    def wanted(self, keyframes: list[int], length: int) -> list[int]:
        """The frames to keep pictures of, once the demonstration is complete."""
        return list(range(0, length, self.every)) if self.every is not None else [0, *keyframes]


def _range(config: Mapping[str, Any], key: str) -> tuple[float, float]:
    values = list(config[key])
    if len(values) != 2 or not values[0] <= values[1]:
        raise InputError(f"field_views.{key}={values}: give the lowest and the highest value, in this order")
    return float(values[0]), float(values[1])
