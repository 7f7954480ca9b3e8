"""Unseen settings: switches that make a scene differ from what was demonstrated, for tests of generalisation.

Those of GNFactor (CoRL 2023, section 4) and, for every task, the perturbations of the Colosseum benchmark
(Pumacay et al., RSS 2024) that concern what is seen. Whatever a switch draws comes from a generator of its own, made
from the episode's seed and the switch's name: the things of the task stand where they stand without it, and two
switches together do what each does alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from zlib import crc32

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from envs.colors import COLORS
from envs.mujoco import distractors
from envs.mujoco.cameras import RLBENCH_CAMERAS, CameraMount
from envs.mujoco.scene import NO_CONTACT, base_scene
from envs.mujoco.simulation import Simulation
from envs.mujoco.tasks import make_task
from envs.mujoco.tasks.base import Task
from envs.mujoco.textures import PATTERNS, add_textures
from manifield.errors import InputError, choose

SETTINGS = {
    "background": "walls and a floor with other patterns",
    "camera_pose": "each fixed camera moved by up to 10 cm and turned by up to 0.05 rad along and about each axis",
    "distractors": "three more things on the table, apart from those of the task",
    "larger": "what is handled is larger",
    "light": "other direction, colour and strength of the light",
    "new_position": "the task's things stand where they never do otherwise",
    "object_color": "other colours of things whose colour means nothing to the instruction",
    "object_texture": "patterns on things whose colour means nothing to the instruction",
    "smaller": "what is handled is smaller",
    "table_color": "another colour of the table",
    "table_texture": "a pattern on the table",
}
_CAMERA_SHIFT, _CAMERA_TURN = 0.1, 0.05  # metres and radians, the Colosseum's
_TABLE_COLORS = (0.25, 1.0)  # range of each channel, the Colosseum's
_LIGHT_TILT = (0.2, 1.0)  # radians from straight down
_LIGHT_STRENGTH = (0.6, 1.5)  # times the usual one
_LIGHT_COLOR = (0.5, 1.0)  # range of each channel, before the strongest is set to 1
_ALIKE = 0.5  # distance in RGB under which two colours might be taken for each other
_WALLS = 11.0  # metres from the origin: beyond the cameras' range, so that depth stays what it is


class Unseen:
    """The switches that are on in an environment.

    Raises:
        InputError: a name that is no switch, or one that the task cannot have.
    """

    def __init__(self, names: Sequence[str] | str | None, task_name: str) -> None:
        self.names = frozenset([names] if isinstance(names, str) else names or ())
        for name in self.names:
            choose(name, SETTINGS, "unseen setting")
        if not self.names:
            return
        given = f"env.unseen=[{','.join(sorted(self.names))}]"
        if {"larger", "smaller"} <= self.names:
            raise InputError(f"{given}: larger and smaller exclude each other; give one of them")
        task = make_task(task_name)
        task.build(np.random.default_rng(0), 0, base_scene(RLBENCH_CAMERAS))
        missing = _impossible(task)
        for name in sorted(self.names & missing.keys()):
            possible = ", ".join(sorted(SETTINGS.keys() - missing.keys()))
            raise InputError(f"{given}: {task_name} has no {missing[name]}; it can have {possible}")

    def set_up(self, task: Task) -> None:
        """Set what a task wants to know before it is built."""
        if task.scales and self.names & {"smaller", "larger"}:
            task.scale = task.scales["larger" in self.names]
        task.new_position = "new_position" in self.names

    def mounts(self, mounts: Mapping[str, CameraMount], seed: int) -> dict[str, CameraMount]:
        """Where the cameras stand in the episode of `seed`."""
        if "camera_pose" not in self.names:
            return dict(mounts)
        return {
            name: _moved(mount, _generator(seed, "camera_pose", name)) if mount.body == "world" else mount
            for name, mount in mounts.items()
        }

    def change(self, spec: mujoco.MjSpec, task: Task, seed: int) -> None:
        """Change a scene that has been built; to be called right before it is compiled for good."""
        if self.names <= {"camera_pose", "larger", "new_position", "smaller"}:
            return
        probe = Simulation(spec)
        standing = [geom for geom in spec.geoms if distractors.is_on_table(probe, geom.id)]
        named = [COLORS[name] for name in COLORS if re.search(rf"\b{name}\b", " ".join(task.descriptions))]
        table = spec.geom("table")
        taken = [list(geom.rgba[:3]) for geom in [table, *standing]] + [list(color) for color in named]
        if "distractors" in self.names:
            rng = _generator(seed, "distractors")
            colors = [color for color in COLORS.values() if color not in named]
            distractors.add_distractors(spec, probe, task, colors, rng)
        if self.names & {"background", "object_texture", "table_texture"}:
            add_textures(spec)
        # What looked alike shall look alike again.
        groups: dict[tuple[float, ...], list[mujoco.MjsGeom]] = {}
        for geom in standing:
            if geom.parent.name in task.recolorable:
                groups.setdefault(tuple(geom.rgba), []).append(geom)
        if "object_texture" in self.names:
            _put_on_patterns(groups.values(), _generator(seed, "object_texture"))
        if "object_color" in self.names:
            _recolor(groups.values(), taken, _generator(seed, "object_color"))
        if "table_texture" in self.names:
            _cover(table, _generator(seed, "table_texture").choice(PATTERNS))
        if "table_color" in self.names:
            drawn = _generator(seed, "table_color").uniform(*_TABLE_COLORS, size=(64, 3))
            table.rgba[:3] = _unlike(drawn, taken)
        if "background" in self.names:
            _set_background(spec, _generator(seed, "background"))
        if "light" in self.names:
            _set_light(spec, _generator(seed, "light"))


def _impossible(task: Task) -> dict[str, str]:
    """What a task, which is built, cannot have: switch → what it lacks."""
    missing: dict[str, str] = {}
    if task.scales is None:
        missing |= dict.fromkeys(("smaller", "larger"), "size that may change")
    if not task.has_new_position:
        missing["new_position"] = "other positions"
    if not task.recolorable:
        missing |= dict.fromkeys(("object_color", "object_texture"), "things whose colour means nothing")
    return missing


def _generator(seed: int, *names: str) -> np.random.Generator:
    return np.random.default_rng([seed, *(crc32(name.encode()) for name in names)])


def _moved(mount: CameraMount, rng: np.random.Generator) -> CameraMount:
    pose = mount.T_body_camera.copy()
    pose[:3, 3] += rng.uniform(-_CAMERA_SHIFT, _CAMERA_SHIFT, 3)
    pose[:3, :3] @= Rotation.from_euler("xyz", rng.uniform(-_CAMERA_TURN, _CAMERA_TURN, 3)).as_matrix()
    return replace(mount, T_body_camera=pose)


def _unlike(candidates: np.ndarray, taken: Sequence[Sequence[float]]) -> np.ndarray:
    """[3] the first of the colours [n, 3] that differs from those taken [m, 3]; the one that differs most if none does
    clearly."""
    gaps = np.linalg.norm(candidates[:, None] - np.asarray(taken)[None], axis=-1).min(axis=1)
    clear = np.flatnonzero(gaps > _ALIKE)
    return candidates[clear[0] if len(clear) else gaps.argmax()]


def _cover(geom: mujoco.MjsGeom, pattern: str, suffix: str = "flat") -> None:
    """Show a pattern in its own colours."""
    geom.material = f"{pattern}_{suffix}"
    geom.rgba[:3] = 1.0


def _put_on_patterns(groups: Iterable[list[mujoco.MjsGeom]], rng: np.random.Generator) -> None:
    patterns = rng.permutation(PATTERNS)
    for i, group in enumerate(groups):
        for geom in group:
            _cover(geom, patterns[i % len(patterns)], "round")


def _recolor(
    groups: Iterable[list[mujoco.MjsGeom]], taken: Sequence[Sequence[float]], rng: np.random.Generator
) -> None:
    taken = list(taken)
    for group in groups:
        color = _unlike(rng.permutation(list(COLORS.values())), taken)
        taken.append(color.tolist())
        for geom in group:
            geom.rgba[:3] = color


def _set_background(spec: mujoco.MjSpec, rng: np.random.Generator) -> None:
    floor, wall = rng.permutation(PATTERNS)[:2]
    _cover(spec.geom("floor"), floor)
    for i in range(4):
        turn = Rotation.from_euler("xz", [np.pi / 2, i * np.pi / 2])
        normal = turn.apply([0.0, 0.0, 1.0])
        geom = spec.worldbody.add_geom(
            type=mujoco.mjtGeom.mjGEOM_PLANE,
            size=[_WALLS, _WALLS, 0.1],
            pos=-_WALLS * normal,
            quat=turn.as_quat()[[3, 0, 1, 2]],
            rgba=[1.0, 1.0, 1.0, 1.0],
            **NO_CONTACT,
        )
        _cover(geom, wall)


def _set_light(spec: mujoco.MjSpec, rng: np.random.Generator) -> None:
    color = rng.uniform(*_LIGHT_COLOR, 3)
    color *= rng.uniform(*_LIGHT_STRENGTH) / color.max()
    for name in ("key", "fill"):
        light, tilt, heading = spec.light(name), rng.uniform(*_LIGHT_TILT), rng.uniform(-np.pi, np.pi)
        light.dir = [np.sin(tilt) * np.cos(heading), np.sin(tilt) * np.sin(heading), -np.cos(tilt)]
        light.diffuse = light.diffuse * color
    headlight = spec.visual.headlight
    headlight.ambient, headlight.diffuse = headlight.ambient * color, headlight.diffuse * color
