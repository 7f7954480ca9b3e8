"""The scene that every task starts from, and the shapes that tasks put into it.

World frame as RLBench's: z up, table top at z = 0.752 m, robot base at x = -0.3 on the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import mujoco
import numpy as np

from envs.mujoco.cameras import CameraMount
from envs.mujoco.panda import panda_spec

TABLE_HEIGHT = 0.752
ROBOT_BASE = (-0.3, 0.0, TABLE_HEIGHT)
# RLBench's workspace: the box in which a key-frame may lie (and the bounds of the policies' volume).
WORKSPACE = np.array([[-0.3, -0.5, 0.6], [0.7, 0.5, 1.6]])
IMAGE_LIMIT = 1024  # pixels along a side that the off-screen buffer holds
TIME_STEP = 0.002

_GEOM = mujoco.mjtGeom
# Stiff, damped contacts with torsional friction: with softer ones held objects creep out of the grasp.
CONTACT = {"solref": [0.004, 1.0], "solimp": [0.95, 0.99, 0.001, 0.5, 2.0], "condim": 4}
GRIPPY = [1.0, 0.01, 0.0005]
SLIPPERY = [0.4, 0.005, 0.0001]
NO_CONTACT = {"contype": 0, "conaffinity": 0}


def base_scene(cameras: Mapping[str, CameraMount]) -> mujoco.MjSpec:
    """Robot, table, floor, light and cameras; a task adds its own things before the model is compiled."""
    spec = panda_spec(ROBOT_BASE)
    _set_physics(spec)
    _set_look(spec)
    _add_furniture(spec)
    for name, mount in cameras.items():
        mount.add_to(spec, name)
    return spec


def _set_physics(spec: mujoco.MjSpec) -> None:
    spec.option.timestep = TIME_STEP
    # Implicit integration of the servos' damping, elliptic cones and a high friction impedance: grasps hold for
    # minutes; with Euler and pyramids they slip.
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 10


def _set_look(spec: mujoco.MjSpec) -> None:
    spec.visual.global_.offwidth = spec.visual.global_.offheight = IMAGE_LIMIT
    # Without multisampling, colour and exact depth come out of one pass; with it, depth is blended across edges.
    spec.visual.quality.offsamples = 0
    spec.visual.quality.shadowsize = 0
    spec.visual.map.znear, spec.visual.map.zfar = 0.01, 20.0
    spec.visual.headlight.ambient = [0.4] * 3
    spec.visual.headlight.diffuse = [0.15] * 3
    spec.visual.headlight.specular = [0.0] * 3
    spec.stat.extent, spec.stat.center = 1.0, [0.2, 0.0, 0.9]
    spec.add_texture(
        name="sky",
        type=mujoco.mjtTexture.mjTEXTURE_SKYBOX,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
        rgb1=[0.75, 0.82, 0.9],
        rgb2=[0.45, 0.5, 0.6],
        width=16,
        height=96,
    )
    for name, position, direction, strength in (
        ("key", [1.2, -1.0, 2.6], [-0.45, 0.4, -1.0], 0.45),
        ("fill", [-1.0, 1.0, 2.5], [0.4, -0.4, -1.0], 0.2),
    ):
        light = spec.worldbody.add_light(name=name, pos=position, dir=direction)
        light.type = mujoco.mjtLightType.mjLIGHT_DIRECTIONAL
        # No gloss: a thing's colour is the same from every side, and pictures of flat faces are a quarter smaller.
        light.diffuse, light.specular, light.castshadow = [strength] * 3, [0.0] * 3, False


def _add_furniture(spec: mujoco.MjSpec) -> None:
    world = spec.worldbody
    world.add_geom(name="floor", type=_GEOM.mjGEOM_PLANE, size=[4, 4, 0.1], rgba=[0.52, 0.52, 0.55, 1])
    half = TABLE_HEIGHT / 2 - 0.02
    box(world, [0.55, 0.75, 0.02], [0.25, 0, TABLE_HEIGHT - 0.02], [0.66, 0.55, 0.45], name="table", friction=GRIPPY)
    for x in (-0.23, 0.73):
        for y in (-0.68, 0.68):
            box(world, [0.03, 0.03, half], [x, y, half], [0.4, 0.4, 0.42])


def box(
    body: mujoco.MjsBody, half_sizes: Sequence[float], position: Sequence[float], color: Sequence[float], **options: Any
) -> mujoco.MjsGeom:
    """Add a box; `half_sizes` and `position` in metres in the body's frame, `color` RGB in 0..1."""
    return body.add_geom(type=_GEOM.mjGEOM_BOX, size=half_sizes, pos=position, rgba=[*color, 1], **options)


def cylinder(
    body: mujoco.MjsBody,
    radius: float,
    half_height: float,
    position: Sequence[float],
    color: Sequence[float],
    **options: Any,
) -> mujoco.MjsGeom:
    """Add an upright cylinder; metres in the body's frame, `color` RGB in 0..1."""
    size = [radius, half_height, 0]
    return body.add_geom(type=_GEOM.mjGEOM_CYLINDER, size=size, pos=position, rgba=[*color, 1], **options)


def free_cube(
    spec: mujoco.MjSpec,
    name: str,
    position: Sequence[float],
    half_size: float,
    color: Sequence[float],
    yaw: float = 0.0,
    mass: float = 0.05,
    friction: Sequence[float] = GRIPPY,
) -> mujoco.MjsBody:
    """Add a cube that can be moved: a body, a free joint and a geom, all called `name`."""
    body = spec.worldbody.add_body(name=name, pos=position, quat=yaw_quaternion(yaw))
    body.add_freejoint(name=name)
    box(body, [half_size] * 3, [0, 0, 0], color, name=name, mass=mass, friction=friction, **CONTACT)
    return body


def yaw_quaternion(yaw: float) -> list[float]:
    """MuJoCo's quaternion (wxyz) of a turn by `yaw` radians about z."""
    return [float(np.cos(yaw / 2)), 0.0, 0.0, float(np.sin(yaw / 2))]


def yaw_matrix(yaw: float) -> np.ndarray:
    """[3, 3] rotation by `yaw` radians about z."""
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def place_apart(
    rng: np.random.Generator, count: int, low: Sequence[float], high: Sequence[float], distance: float
) -> np.ndarray:
    """[count, 2] positions (metres) drawn evenly from a rectangle, each at least `distance` from the others.

    Raises RuntimeError when they do not fit: the rectangle is the task's own choice.
    """
    for _ in range(1000):  # start over rather than squeeze a last one into a bad arrangement
        points = rng.uniform(low, high, size=(count, 2))
        gaps = np.linalg.norm(points[:, None] - points[None], axis=-1) + distance * np.eye(count)
        if gaps.min() >= distance:
            return points
    raise RuntimeError(f"{count} things do not fit {distance} m apart between {list(low)} and {list(high)}")
