"""RLBench as an `Environment`: its tasks, scenes, motions and demonstrations, in CoppeliaSim."""

from __future__ import annotations

import importlib
import inspect
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from envs.interface import (
    Action,
    CameraView,
    Environment,
    NoExpert,
    Observation,
    Outcome,
    RecordedScene,
    Recorder,
    Start,
    Viewpoint,
)
from envs.rlbench import motion, session
from envs.rlbench.observing import FieldCamera, to_observation
from envs.rlbench.session import CAMERAS, RENDERERS, Session, Settings
from envs.seeds import random_state
from manifield.errors import InputError, choose, distinct

DEFAULT_CAMERAS = ("front", "left_shoulder", "right_shoulder", "wrist")
_DRAWS = 3  # scenes to draw from a seed; RLBench itself tries 40 places in each


class RLBenchEnvironment(Environment):
    """A task of RLBench's, over its own Python and PyRep's; the simulator starts with the first `reset`.

    Scenes are functions of the seed as far as RLBench's own are: it draws from numpy's global generator, which is given
    a state of its own here and put back. Plans of motions come from CoppeliaSim, which cannot be seeded.
    """

    def __init__(
        self,
        task: str,
        cameras: Sequence[str] = DEFAULT_CAMERAS,
        image_size: int = 128,
        with_masks: bool = False,
        renderer: str = "opengl3",
        headless: bool = True,
        fallback: bool = True,
    ) -> None:
        """
        Args:
            task: file name in RLBench's `rlbench/tasks`, any of them.
            cameras: of RLBench's five.
            image_size: height and width of pictures, pixels.
            with_masks: also observe handles of what every pixel shows.
            renderer: "opengl3" (with shadows, the published data's) or "opengl" (faster).
            headless: without CoppeliaSim's window; it needs an X server in either case.
            fallback: where no collision-free path is found, go without regard to collisions.

        Raises:
            InputError: an unknown task, camera or renderer, an installation that cannot work, or `fallback` switched
                off with PerAct's RLBench, which always falls back.
        """
        session.load()
        for name in cameras:
            choose(name, CAMERAS, "camera of RLBench")
        if cameras:
            distinct(list(cameras), "env.cameras")
        choose(renderer, RENDERERS, "renderer")
        if not fallback and session.is_peract():
            raise InputError(
                "env.fallback=false: PerAct's branch of RLBench ignores collisions where it finds no path without; "
                "install the current one, docker/requirements-rlbench-current.txt"
            )
        self._class = session.task_class(task)
        self.task = task
        self.cameras = tuple(cameras)
        self._settings = Settings(self.cameras, int(image_size), bool(with_masks), renderer, bool(headless), fallback)
        self._session: Session | None = None
        self._drawers: dict[int, FieldCamera] = {}  # by size of their pictures
        self._chance: tuple[Any, Any] = (random_state(0), random.Random(0).getstate())
        self._ignore_collisions = False

    def variation_count(self) -> int:
        # No task's number of variations depends on the scene, so none is loaded to learn it.
        return int(self._class(None, None).variation_count())

    def reset(self, seed: int, variation: int) -> Start:
        return self._reset(random_state(seed), variation, random.Random(seed).getstate(), _DRAWS)

    def reset_to(self, scene: RecordedScene) -> Start:
        """As PerAct and GNFactor evaluate: RLBench draws the scene of a demonstration again, from the state kept in it.

        Exact where the tries to find a place for the task fail and succeed as they did then: the current RLBench stores
        their number in a demonstration, older files lack it.
        """
        # Tasks that draw from Python's own generator too (setup_chess) do not store its state.
        return self._reset(scene.random_state, scene.variation, random.Random(0).getstate(), 1, scene.attempts)

    def _reset(self, numpys: tuple, variation: int, pythons: Any, draws: int, attempts: int | None = None) -> Start:
        if not 0 <= variation < self.variation_count():
            raise InputError(f"variation {variation}: {self.task} has 0 to {self.variation_count() - 1}")
        present = Session.take(self._settings, self, self.task)
        if present is not self._session:  # sensors of another simulator's scene
            self._session, self._drawers = present, {}
        self._chance = (numpys, pythons)
        self._ignore_collisions = False
        unplaced = importlib.import_module("rlbench.backend.exceptions").TaskEnvironmentError
        with self._chances():
            present.task.set_variation(variation)
            for _ in range(draws):
                try:
                    descriptions, stored = self._draw_scene(present.task, numpys, attempts)
                except unplaced as error:
                    trouble = error
                    continue
                return Start(to_observation(stored, self.cameras, False), list(descriptions), variation)
        raise InputError(f"{self.task}, variation {variation}: {trouble}; give another seed=")

    @staticmethod
    def _draw_scene(task: Any, numpys: tuple, attempts: int | None) -> Any:
        if attempts is None or "demo" not in inspect.signature(task.reset).parameters:  # PerAct's branch has no such
            return task.reset()
        demo = importlib.import_module("rlbench.demo").Demo([], random_seed=numpys)
        demo.num_reset_attempts = attempts
        return task.reset(demo)

    def step(self, action: Action, record: Recorder | None = None) -> Outcome:
        present = self._running()
        if not _is_finite(action):
            return Outcome(self.observe(), self._success()[0], "invalid")
        before = self._ignore_collisions
        self._ignore_collisions = bool(action.ignore_collisions)
        frames: list[Observation] = []

        def take_frame() -> None:
            frames[:] = [self.observe()]
            record(frames[0])  # type: ignore[misc]  # only called when there is one

        present.scene.register_step_callback(take_frame if record else None)
        try:
            with self._chances():
                stored, _, _ = present.task.step(motion.to_vector(action))
        except motion.errors() as error:
            self._ignore_collisions = before
            counted = not action.ignore_collisions and not self._settings.fallback
            word = motion.failure(error, present.scene.robot.arm, action, counted)
            return Outcome(self.observe(), self._success()[0], word)
        finally:
            present.scene.register_step_callback(None)
        # RLBench calls nobody back while the gripper moves: one frame after it, as its own recordings have.
        observation = to_observation(stored, self.cameras, self._ignore_collisions)
        if record is not None and not (frames and _same_moment(frames[0], observation)):
            record(observation)
        success, spoiled = self._success()
        return Outcome(observation, success, "spoiled" if spoiled and not success else None)

    def observe(self) -> Observation:
        return to_observation(self._running().task.get_observation(), self.cameras, self._ignore_collisions)

    def draw(self, viewpoints: Sequence[Viewpoint]) -> list[CameraView]:
        self._running()
        views = []
        for viewpoint in viewpoints:
            if viewpoint.size not in self._drawers:
                self._drawers[viewpoint.size] = FieldCamera(viewpoint.size, RENDERERS[self._settings.renderer])
            views.append(self._drawers[viewpoint.size].draw(viewpoint))
        return views

    def demonstrate(self, record: Recorder) -> Outcome:
        """RLBench's live demonstration: its way-points, one planned path after the other."""
        scene = self._running().scene
        arm = scene.robot.arm
        observe = scene.get_observation
        last: list[Observation] = []

        def observe_and_record() -> Any:
            stored = observe()
            last[:] = [to_observation(stored, self.cameras, self._ignore_collisions)]
            record(last[0])
            return stored

        controlled = arm.joints[0].is_control_loop_enabled()
        arm.set_control_loop_enabled(True)
        # `get_demo` would call back with a second observation of every moment, drawn again: twice the time.
        scene.get_observation = observe_and_record
        try:
            with self._chances():
                for point in scene.task.get_waypoints():
                    point.start_of_path = partial(self._begin, point, point.start_of_path)
                scene.get_demo()
        except _no_demonstration() as error:
            raise NoExpert(f"{self.task}: {error}") from error
        finally:
            del scene.get_observation
            arm.set_control_loop_enabled(controlled)
        return Outcome(last[0], self._success()[0])

    def _begin(self, point: Any, start: Callable[[], None]) -> None:
        """Note the flag of the way-point that a demonstration now goes to (the current RLBench records none)."""
        self._ignore_collisions = bool(point._ignore_collisions)
        start()

    def close(self) -> None:
        if self._session is not None and self._session.owner is self:
            self._session.shut_down()
        elif self._session is not None and self._session.owner is not None:  # another environment goes on with it
            for drawer in self._drawers.values():
                drawer.remove()
        self._session, self._drawers = None, {}

    def _running(self) -> Session:
        if self._session is None or self._session.owner is not self:
            raise RuntimeError("reset the environment before using it (a process has one simulator for all of them)")
        return self._session

    def _success(self) -> tuple[bool, bool]:
        """Whether the task is solved, and whether it is over."""
        success, over = self._running().scene.task.success()
        return bool(success), bool(over)

    @contextmanager
    def _chances(self) -> Iterator[None]:
        """Let RLBench draw from this environment's own random states."""
        outside = (np.random.get_state(), random.getstate())
        np.random.set_state(self._chance[0])
        random.setstate(self._chance[1])
        try:
            yield
        finally:
            self._chance = (np.random.get_state(), random.getstate())
            np.random.set_state(outside[0])
            random.setstate(outside[1])


def _no_demonstration() -> tuple[type[Exception], ...]:
    """What RLBench raises where its expert sees no way."""
    rlbench = importlib.import_module("rlbench.backend.exceptions")
    return (*motion.errors(), rlbench.DemoError, rlbench.NoWaypointsError, rlbench.WaypointError)


def _is_finite(action: Action) -> bool:
    position, quaternion = np.asarray(action.position, float), np.asarray(action.quaternion, float)
    if position.shape != (3,) or quaternion.shape != (4,):
        return False
    finite = np.isfinite(position).all() and np.isfinite(quaternion).all()
    return bool(finite and np.linalg.norm(quaternion) > 1e-6)


def _same_moment(first: Observation, second: Observation) -> bool:
    return np.array_equal(first.joint_positions, second.joint_positions) and np.array_equal(
        first.gripper_joint_positions, second.gripper_joint_positions
    )
