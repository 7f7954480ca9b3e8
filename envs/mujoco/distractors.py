"""Things that have nothing to do with the task, on the table beside those that have."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import mujoco
import numpy as np
from scipy.spatial import ConvexHull

from envs.mujoco import panda
from envs.mujoco.scene import CONTACT, TABLE_HEIGHT, box, cylinder, yaw_quaternion
from envs.mujoco.simulation import Simulation
from envs.mujoco.tasks.base import Task

COUNT = 3
RADIUS = 0.035  # metres round its axis that a distractor may take up; none is higher than 8 cm
CLEARANCE = 0.04  # metres between a distractor and the hull of the task's things
_APART = 0.11  # metres between the axes of two
# Metres: where the front camera sees them, and 10 cm from the workspace's edge.
_REGION = ((0.0, -0.38), (0.45, 0.38))


def add_distractors(
    spec: mujoco.MjSpec,
    probe: Simulation,
    task: Task,
    colors: Sequence[Sequence[float]],
    rng: np.random.Generator,
) -> None:
    """Put `COUNT` distractors on the table, outside the hull of the task's things and of the expert's first key-frames.

    There, pushes, pulls and drags find their way clear. They can be knocked over or away, so none makes a task
    impossible.

    Args:
        spec: the scene. probe: the same, compiled. task: as built.
        colors: to choose among, RGB; each distractor gets another one.

    Raises:
        RuntimeError: there is no room; the arrangement is the task's own choice.
    """
    things = [corner for geom in range(probe.model.ngeom) if is_on_table(probe, geom) for corner in _box(probe, geom)]
    hull = ConvexHull(np.array([*things, *task.choices(probe).candidates.values()])[:, :2])
    places: list[np.ndarray] = []
    for point in rng.uniform(*_REGION, size=(5000, 2)):
        distance = (hull.equations @ [*point, 1.0]).max()  # to the hull, or a little less
        if distance > CLEARANCE + RADIUS and all(np.linalg.norm(point - other) > _APART for other in places):
            places.append(point)
            if len(places) == COUNT:
                break
    else:
        raise RuntimeError(f"no room for {COUNT} distractors beside the things of {type(task).__name__}")
    shapes = rng.permutation(len(_SHAPES))
    shades = rng.permutation(np.asarray(colors))
    for i, place in enumerate(places):
        quaternion = yaw_quaternion(rng.uniform(-np.pi, np.pi))
        body = spec.worldbody.add_body(name=f"distractor{i}", pos=[*place, TABLE_HEIGHT], quat=quaternion)
        body.add_freejoint(name=f"distractor{i}")
        _SHAPES[shapes[i]](body, shades[i].tolist())


def is_on_table(simulation: Simulation, geom: int) -> bool:
    """Whether a geom belongs to a task's things: not to the robot, and above the table top."""
    body = simulation.model.body(simulation.model.geom_bodyid[geom]).name
    return body not in panda.ROBOT_BODIES and bool(_box(simulation, geom)[:, 2].max() > TABLE_HEIGHT + 1e-4)


def _box(simulation: Simulation, geom: int) -> np.ndarray:
    """[8, 3] corners of a geom's bounding box, world metres."""
    centre, half = simulation.model.geom_aabb[geom].reshape(2, 3)
    signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
    rotation = simulation.data.geom_xmat[geom].reshape(3, 3)
    return simulation.data.geom_xpos[geom] + (centre + signs * half) @ rotation.T


def _ball(body: mujoco.MjsBody, color: Sequence[float]) -> None:
    cylinder(body, 0.02, 0.005, [0, 0, 0.005], color, **CONTACT)
    body.add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[0.028, 0, 0], pos=[0, 0, 0.034], rgba=[*color, 1], **CONTACT)


def _bottle(body: mujoco.MjsBody, color: Sequence[float]) -> None:
    cylinder(body, 0.022, 0.025, [0, 0, 0.025], color, **CONTACT)
    cylinder(body, 0.009, 0.013, [0, 0, 0.063], color, **CONTACT)


def _mug(body: mujoco.MjsBody, color: Sequence[float]) -> None:
    cylinder(body, 0.022, 0.03, [-0.01, 0, 0.03], color, **CONTACT)
    for half_sizes, position in (
        ([0.012, 0.004, 0.004], [0.022, 0, 0.046]),
        ([0.012, 0.004, 0.004], [0.022, 0, 0.016]),
        ([0.003, 0.004, 0.019], [0.031, 0, 0.031]),
    ):
        box(body, half_sizes, position, color, **CONTACT)


def _mushroom(body: mujoco.MjsBody, color: Sequence[float]) -> None:
    cylinder(body, 0.013, 0.02, [0, 0, 0.02], color, **CONTACT)
    size, position = [0.034, 0.034, 0.017], [0, 0, 0.045]
    body.add_geom(type=mujoco.mjtGeom.mjGEOM_ELLIPSOID, size=size, pos=position, rgba=[*color, 1], **CONTACT)


def _pyramid(body: mujoco.MjsBody, color: Sequence[float]) -> None:
    for i, half in enumerate((0.024, 0.017, 0.010)):
        box(body, [half, half, 0.009], [0, 0, 0.009 + 0.018 * i], color, **CONTACT)


def _star(body: mujoco.MjsBody, color: Sequence[float]) -> None:
    for yaw in (0.0, np.pi / 3, 2 * np.pi / 3):
        box(body, [0.033, 0.007, 0.012], [0, 0, 0.012], color, quat=yaw_quaternion(yaw), **CONTACT)


_SHAPES: tuple[Callable[[mujoco.MjsBody, Sequence[float]], None], ...] = (
    _ball,
    _bottle,
    _mug,
    _mushroom,
    _pyramid,
    _star,
)
