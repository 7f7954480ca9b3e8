"""A world of seconds' work: three actions, a few frames each, tiny pictures. Some of its scenes cannot be solved."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from envs.interface import Action, CameraView, Environment, NoExpert, Observation, Outcome, Recorder, Start, Viewpoint
from manifield.errors import choose

TASKS = ("alpha", "beta")
MOVING, RESTING = 6, 2  # frames an action


class FakeWorld(Environment):
    """Everything is drawn from the seed.

    fail: share of the scenes in which something goes wrong, each time something else.
    die: workers that record task "beta" exit at once: "always", or once for each file in the folder of that name, which
    they delete. sliding: the last action ends in motion. A frame takes as many seconds as the environment variable
    FAKE_WORLD_DELAY says.
    """

    def __init__(self, task: str, fail: float = 0.0, die: str | None = None, sliding: bool = False) -> None:
        choose(task, TASKS, "task")
        self.task, self.cameras, self.fail, self.die = task, ("front",), fail, die
        self.delay = float(os.environ.get("FAKE_WORLD_DELAY", "0"))
        self.sliding = sliding
        self.closed = False

    def variation_count(self) -> int:
        return 4

    def reset(self, seed: int, variation: int) -> Start:
        if self.die and self.task == "beta":
            tokens = [] if self.die == "always" else sorted(Path(self.die).iterdir())
            if tokens or self.die == "always":
                for token in tokens[:1]:
                    token.unlink()
                os._exit(9)
        self.rng = np.random.default_rng(seed)
        self.time = 0
        self.trouble = None
        if self.rng.random() < self.fail:
            self.trouble = self.rng.choice(["no expert", "unreachable", "not solved", "restless"])
        self.speed, self.open = 0.0, True
        return Start(self.observe(), [f"do {self.task} {variation}"], variation)

    def step(self, action: Action, record: Recorder | None = None) -> Outcome:
        if self.trouble == "unreachable":
            return Outcome(self.observe(), False, "unreachable")
        last = 1.0 if self.sliding and not action.gripper_open else 0.0
        for speed in [1.0] * MOVING + [0.15 if self.trouble == "restless" else last] * RESTING:
            self.speed = speed
            self.time += 1
            time.sleep(self.delay)
            if record is not None:
                record(self.observe())
        return Outcome(self.observe(), action.gripper_open is False and self.trouble is None)

    def observe(self) -> Observation:
        picture = self.rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        view = CameraView(picture, np.ones((4, 4), np.float32), np.diag([4.0, 4.0, 1.0]), np.eye(4))
        view.intrinsics[:2, 2] = 1.5
        return Observation(
            cameras={"front": view},
            joint_positions=self.rng.normal(size=7),
            joint_velocities=np.full(7, self.speed),
            gripper_pose=np.array([*self.rng.random(3), 0.0, 0.0, 0.0, 1.0]),
            gripper_open=1.0,
            gripper_joint_positions=np.zeros(2),
            ignore_collisions=False,
        )

    def draw(self, viewpoints: Sequence[Viewpoint]) -> list[CameraView]:
        """Pictures that tell the time: all pixels are the number of frames since the start."""
        views = []
        for viewpoint in viewpoints:
            intrinsics = np.array([[9.0, 0.0, 1.5], [0.0, 9.0, 1.5], [0.0, 0.0, 1.0]])
            picture = np.full((viewpoint.size, viewpoint.size, 3), self.time, np.uint8)
            depth = np.full(picture.shape[:2], 2.0, np.float32)
            views.append(
                CameraView(picture, depth, intrinsics, viewpoint.T_world_camera, viewpoint.near, viewpoint.far)
            )
        return views

    def expert(self) -> Iterator[Action]:
        if self.trouble == "no expert":
            raise NoExpert("cannot see a way")
        for last in (False, False, True):
            yield Action(np.zeros(3), np.array([0.0, 0.0, 0.0, 1.0]), not last, False)

    def close(self) -> None:
        self.closed = True


class BlindWorld(FakeWorld):
    """A world that, like a real one, cannot be drawn from elsewhere."""

    draw = Environment.draw
