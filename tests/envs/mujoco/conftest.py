"""Scenes for the tests of the embedded simulator."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import mujoco
import pytest

from envs.mujoco.cameras import RLBENCH_CAMERAS
from envs.mujoco.environment import MujocoEnvironment
from envs.mujoco.scene import base_scene
from envs.mujoco.simulation import Simulation


@pytest.fixture
def simulate() -> Callable[..., Simulation]:
    """Build a simulation of the base scene with whatever the given function adds to it."""

    def build(add: Callable[[mujoco.MjSpec], None] = lambda spec: None) -> Simulation:
        spec = base_scene(RLBENCH_CAMERAS)
        add(spec)
        return Simulation(spec)

    return build


@pytest.fixture
def make_environment() -> Iterator[Callable[..., MujocoEnvironment]]:
    """Make environments that are closed after the test; without cameras unless some are asked for."""
    made: list[MujocoEnvironment] = []

    def make(task: str = "push_buttons", cameras: tuple[str, ...] = (), **options) -> MujocoEnvironment:
        made.append(MujocoEnvironment(task, cameras, **options))
        return made[-1]

    yield make
    for environment in made:
        environment.close()
