"""What a task of the embedded simulator has to say, and what its expert needs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import mujoco
import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.transform import Rotation

from envs.interface import Action, Choices
from envs.mujoco.simulation import Simulation


class Task(ABC):
    """One task in one episode: made anew for every reset, so it may remember the scene it built."""

    variation_count: int
    descriptions: list[str]
    """Every phrasing of the instruction, after `build`."""

    scales: tuple[float, float] | None = None
    """A smaller and a larger factor for the size of what is handled; None where another size makes no sense."""
    scale = 1.0
    """The factor to build with: set before `build`, from `scales`."""
    has_new_position = False
    """Whether `build` knows places at which it puts things only if `new_position` is set."""
    new_position = False
    """Build at places where nothing stands otherwise: set before `build`."""
    recolorable: tuple[str, ...] = ()
    """After `build`: bodies whose colours mean nothing to the instruction."""

    @abstractmethod
    def build(self, rng: np.random.Generator, variation: int, spec: mujoco.MjSpec) -> None:
        """Put the things of `variation` into the scene, poses drawn from `rng`, and set `descriptions`."""

    @abstractmethod
    def success(self, simulation: Simulation) -> bool:
        """Whether the task is solved in the present state."""

    @abstractmethod
    def expert(self, simulation: Simulation) -> Iterator[Action]:
        """Yield the expert's key-frames; each is carried out before the next is asked for.

        Orientations are chosen by rule, never at random: equal scenes get equal labels.
        """

    @abstractmethod
    def choices(self, simulation: Simulation) -> Choices:
        """What the instruction chooses among, in the state after reset."""

    def low_dim_state(self, simulation: Simulation) -> np.ndarray:
        """[n] float32 the task's own state: positions of its things, metres and radians."""
        return np.zeros(0, np.float32)

    watches = False
    """Whether `watch` wants to be called: it costs time in every step."""

    def watch(self, simulation: Simulation) -> None:  # noqa: B027  optional, so neither abstract nor missing
        """Called after every simulation step (2 ms), for tasks whose rule depends on what happened on the way."""


def key_frame(position: ArrayLike, rotation: np.ndarray, gripper_open: bool, ignore_collisions: bool = False) -> Action:
    """An action from a world position [3] and rotation [3, 3] of the tool."""
    quaternion = Rotation.from_matrix(rotation).as_quat()
    return Action(np.asarray(position, float), quaternion, gripper_open, ignore_collisions)


def facing_down(yaw: float = 0.0) -> np.ndarray:
    """[3, 3] rotation of a tool that points straight down; at yaw 0 its fingers move along the world's y, as in the
    start pose, and a positive yaw (radians) turns them counter-clockwise seen from above."""
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[-c, -s, 0.0], [-s, c, 0.0], [0.0, 0.0, -1.0]])


def half_turn_yaw(yaw: float) -> float:
    """The same finger line as a yaw in (-pi/2, pi/2]: the gripper is symmetric, and labels should not jump."""
    return np.pi / 2 - (np.pi / 2 - yaw) % np.pi
