"""The nouns that every world shares: what an agent sees, what it does, and the world itself.

Conventions, here and everywhere in the project (libraries with another order are converted at their border):

    lengths      metres, angles radians, time seconds
    frames       `T_world_camera` takes homogeneous points from the camera's frame to the world's.
                 World: z up, origin on the floor below RLBench's workspace; table top at z = 0.752 m, robot base at
                 x = -0.3. Camera: x right, y down, z forward (OpenCV), so that focal lengths are positive.
    gripper      frame at the tool centre point, between the finger tips: z out of the hand, y along the fingers' motion
    quaternions  xyzw, unit length, sign irrelevant
    images       [H, W, 3] uint8 RGB; depth [H, W] float (32 or 64 bit) metres along the camera's z (not along the ray)
    pixels       (u, v) = (column, row); pixel (u, v) looks along ((u - cx) / fx, (v - cy) / fy, 1)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass
class CameraView:
    """One calibrated RGB-D picture.

    rgb: [H, W, 3] uint8. depth: [H, W] float metres. intrinsics: [3, 3] pixels, positive focal lengths.
    T_world_camera: [4, 4], OpenCV axes. near, far: metres, the range in which depth is stored. mask: [H, W] int32
    ids of the things seen, or None.
    """

    rgb: np.ndarray
    depth: np.ndarray
    intrinsics: np.ndarray
    T_world_camera: np.ndarray
    near: float = 0.01
    far: float = 4.5
    mask: np.ndarray | None = None


@dataclass(frozen=True)
class Viewpoint:
    """Where to draw a picture from, apart from the world's own cameras.

    T_world_camera: [4, 4], OpenCV axes. fov: vertical field of view, radians. size: pixels along each side.
    near, far: metres, as in `CameraView`.
    """

    T_world_camera: np.ndarray
    fov: float
    size: int
    near: float = 0.01
    far: float = 10.0


@dataclass
class Observation:
    """What is known at one moment: calibrated pictures by camera name, and proprioception.

    gripper_pose: [7] world position and quaternion xyzw of the tool centre point.
    gripper_open: 1.0 open, 0.0 closed. gripper_joint_positions: [2] finger positions, 0 to 0.04 m.
    joint_positions, joint_velocities, joint_forces: [7]. ignore_collisions: RLBench's flag, set on the frames that lead
    to a way-point that may be reached in contact; None in data that predates it.
    """

    cameras: dict[str, CameraView]
    joint_positions: np.ndarray
    joint_velocities: np.ndarray
    gripper_pose: np.ndarray
    gripper_open: float
    gripper_joint_positions: np.ndarray
    joint_forces: np.ndarray = field(default_factory=lambda: np.zeros(7))
    gripper_touch_forces: np.ndarray = field(default_factory=lambda: np.zeros(6))
    task_low_dim_state: np.ndarray = field(default_factory=lambda: np.zeros(0))
    ignore_collisions: bool | None = None


@dataclass(frozen=True)
class Action:
    """A key-frame: move the tool centre point to a pose, then set the gripper.

    position: [3] world metres. quaternion: [4] xyzw. gripper_open: the state after the motion.
    ignore_collisions: contact on the way is allowed (RLBench's flag), e.g. to grasp or to push.
    """

    position: np.ndarray
    quaternion: np.ndarray
    gripper_open: bool
    ignore_collisions: bool


@dataclass(frozen=True)
class Start:
    """The beginning of an episode: first observation, every phrasing of the instruction, the variation's number."""

    observation: Observation
    descriptions: list[str]
    variation: int


@dataclass(frozen=True)
class RecordedScene:
    """How the scene of a recorded demonstration came about, for `reset_to`.

    random_state: of numpy's old generator before the scene was drawn, as `numpy.random.get_state` tells it.
    variation: its number. attempts: draws that it took until one fitted, None where nobody has noted it.
    """

    random_state: tuple
    variation: int
    attempts: int | None = None


@dataclass(frozen=True)
class Outcome:
    """What an action led to.

    success: the task is solved now. failure: None, or why the episode is over: the action could not be carried out
    ("invalid": not finite, or outside the workspace; "unreachable"; "in collision"; "no path"), or the task can no
    longer be solved ("spoiled").
    """

    observation: Observation
    success: bool
    failure: str | None = None


@dataclass(frozen=True)
class Choices:
    """What the instruction chooses among, to measure whether an agent understood it.

    candidates: world position [3] by name of the first key-frame that a demonstration of each choice would have.
    right: the name of the choice that the instruction means.
    """

    candidates: dict[str, np.ndarray]
    right: str

    def chosen(self, position: np.ndarray) -> str:
        """Name of the candidate nearest to a first key-frame's position [3]."""
        return min(self.candidates, key=lambda name: float(np.linalg.norm(self.candidates[name] - position)))


Recorder = Callable[[Observation], None]


class Environment(ABC):
    """A world with one task. Everything random in an episode comes from the seed given to `reset`."""

    task: str
    cameras: tuple[str, ...]

    @abstractmethod
    def variation_count(self) -> int:
        """Number of variations (colours, counts, targets) of the task."""

    @abstractmethod
    def reset(self, seed: int, variation: int) -> Start:
        """Build the scene of `variation` with poses drawn from `seed`, and observe it."""

    def reset_to(self, scene: RecordedScene) -> Start:
        """Build the scene of a recorded demonstration once more, and observe it.

        Only worlds that other programs have recorded in can; others keep this method as it is.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot go back to recorded scenes")

    @abstractmethod
    def step(self, action: Action, record: Recorder | None = None) -> Outcome:
        """Carry the action out. `record` gets an observation at the recording rate while the robot moves, the last one
        after it has come to rest."""

    @abstractmethod
    def observe(self) -> Observation:
        """The present observation."""

    def draw(self, viewpoints: Sequence[Viewpoint]) -> list[CameraView]:
        """Pictures of the world as it is now, from anywhere, without disturbing it; may be called by `record`.

        Only simulators can; others keep this method as it is.
        """
        raise NotImplementedError(f"{type(self).__name__} has no pictures but its cameras'")

    def expert(self) -> Iterator[Action]:
        """Yield the expert's key-frames one by one, each from the state that the last one led to.

        Only worlds with privileged state have one. Raises `NoExpert` where there is none or it sees no way.
        """
        raise NoExpert(f"{type(self).__name__} has no expert for {self.task}")

    def demonstrate(self, record: Recorder) -> Outcome | None:
        """Let an expert act from the state after `reset` to the end that cannot be asked for key-frames one by one.

        `record` gets every frame, the first one too. None, and nothing has happened, where there is no such expert (ask
        `expert`). Raises `NoExpert` where it sees no way.
        """
        return None

    def choices(self) -> Choices | None:
        """What the instruction chooses among; None where nobody knows (a real arm, a recorded episode)."""
        return None

    @abstractmethod
    def close(self) -> None:
        """Free the simulator or connection; harmless twice."""

    def __enter__(self) -> Environment:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class NoExpert(Exception):
    """The expert has no demonstration for this scene; the message says why."""
