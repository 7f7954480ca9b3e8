"""Reach the ball whose colour the instruction names, among two others."""

from __future__ import annotations

from collections.abc import Iterator

import mujoco
import numpy as np

from envs.colors import COLORS
from envs.interface import Action, Choices
from envs.mujoco.scene import NO_CONTACT, place_apart
from envs.mujoco.simulation import Simulation
from envs.mujoco.tasks.base import Task, facing_down, key_frame

_BALLS, _RADIUS, _APART = 3, 0.025, 0.2  # metres; RLBench's distance between balls
_HEIGHTS = (0.9, 1.15)  # metres above the floor; the table's top is at 0.752


class ReachTarget(Task):
    """RLBench's task. The tool centre point has to be inside the ball, which floats and can be moved through. As there,
    whoever tries one ball after another succeeds in the end: read the success rate beside that of the first choice."""

    variation_count = len(COLORS)

    def build(self, rng: np.random.Generator, variation: int, spec: mujoco.MjSpec) -> None:
        name = list(COLORS)[variation]
        others = [other for other in COLORS if other != name]
        self.names = [name, *(others[k] for k in rng.permutation(len(others))[: _BALLS - 1])]
        self.target = 0
        places = place_apart(rng, _BALLS, (0.1, -0.3), (0.4, 0.3), _APART)
        for i in range(_BALLS):
            ball = spec.worldbody.add_body(name=f"ball{i}", pos=[*places[i], rng.uniform(*_HEIGHTS)])
            color = [*COLORS[self.names[i]], 1.0]
            ball.add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[_RADIUS, 0, 0], rgba=color, **NO_CONTACT)
        self.descriptions = [
            f"reach the {name} target",
            f"touch the {name} ball with the gripper",
            f"move to the {name} sphere",
        ]

    def success(self, simulation: Simulation) -> bool:
        offset = simulation.tool_pose()[0] - simulation.position(f"ball{self.target}")
        return bool(np.linalg.norm(offset) < _RADIUS)

    def expert(self, simulation: Simulation) -> Iterator[Action]:
        yield key_frame(simulation.position(f"ball{self.target}"), facing_down(), gripper_open=True)

    def choices(self, simulation: Simulation) -> Choices:
        """The three balls."""
        balls = {name: simulation.position(f"ball{i}") for i, name in enumerate(self.names)}
        return Choices(balls, self.names[self.target])

    def low_dim_state(self, simulation: Simulation) -> np.ndarray:
        """[9] positions of the balls, the named one first."""
        return np.concatenate([simulation.position(f"ball{i}") for i in range(_BALLS)]).astype(np.float32)
