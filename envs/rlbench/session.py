"""The one CoppeliaSim of a process, with RLBench's scene in it.

PyRep can launch a single simulator per process. Environments of several tasks share it: whoever was reset last has it.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from dataclasses import dataclass
from typing import Any, ClassVar

from envs.rlbench.installation import INSTALL, require
from envs.rlbench.motion import KeyFrameMode
from manifield.errors import InputError, choose

CAMERAS = ("front", "left_shoulder", "right_shoulder", "wrist", "overhead")
RENDERERS = {"opengl3": "OPENGL3", "opengl": "OPENGL"}


@dataclass(frozen=True)
class Settings:
    """What the simulator is launched with. cameras: of `CAMERAS`. image_size: pixels along each side. renderer: of
    `RENDERERS`. The rest as in `RLBenchEnvironment`."""

    cameras: tuple[str, ...]
    image_size: int
    with_masks: bool
    renderer: str
    headless: bool
    fallback: bool


def load() -> None:
    """Import RLBench and PyRep.

    Raises:
        InputError: something that they need is missing or wrong on this machine.
    """
    require()
    try:
        importlib.import_module("rlbench.environment")
    except Exception as error:  # an ImportError of a library below, or what a package's __init__ raised
        raise InputError(f"env=rlbench cannot start: importing RLBench failed ({error}): {INSTALL}") from error


def task_class(name: str) -> Any:
    """RLBench's class of a task, by the name of its file.

    Raises:
        InputError: this RLBench has no such task.
    """
    package = importlib.import_module("rlbench.tasks")
    choose(name, [module.name for module in pkgutil.iter_modules(package.__path__)], "task of this RLBench")
    module = importlib.import_module(f"rlbench.tasks.{name}")
    return getattr(module, "".join(word[:1].upper() + word[1:] for word in name.split("_")))


def is_peract() -> bool:
    """Whether the installed RLBench is PerAct's branch: its motions are told action by action what to do about
    collisions, and without a collision-free path they ignore them."""
    modes = importlib.import_module("rlbench.action_modes.arm_action_modes")
    return "ignore_collisions" in inspect.signature(modes.EndEffectorPoseViaPlanning.action).parameters


class Session:
    """A running simulator; take it with `Session.take`.

    owner: who was reset last. task: RLBench's `TaskEnvironment` in it.
    """

    _present: ClassVar[Session | None] = None

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.owner: object | None = None
        self.task: Any = None
        self._name: str | None = None
        environment = importlib.import_module("rlbench.environment").Environment
        self._environment = environment(
            action_mode=KeyFrameMode(settings.fallback),
            obs_config=_observation_config(settings),
            headless=settings.headless,
        )
        try:
            self._environment.launch()
        except importlib.import_module("pyrep.errors").PyRepError as error:
            raise InputError(f"env=rlbench cannot start: {error}: see `manifield doctor`") from error

    @classmethod
    def take(cls, settings: Settings, owner: object, task: str) -> Session:
        """The process's simulator with `task` in it, for `owner`; launched, or launched anew for other settings."""
        session = cls._present
        if session is not None and session.settings != settings:
            session.shut_down()
            session = None
        if session is None:
            session = cls._present = Session(settings)
        if session._name != task:
            session.task, session._name = session._environment.get_task(task_class(task)), task
        session.owner = owner
        return session

    @property
    def scene(self) -> Any:
        """RLBench's `Scene`."""
        return self.task._scene

    def shut_down(self) -> None:
        """End the simulator; harmless twice."""
        if Session._present is self:
            Session._present = None
            self.owner = self.task = None
            self._environment.shutdown()


def _observation_config(settings: Settings) -> Any:
    config = importlib.import_module("rlbench.observation_config")
    modes = importlib.import_module("pyrep.const").RenderMode
    cameras = {}
    for name in CAMERAS:
        seen = name in settings.cameras
        cameras[f"{name}_camera"] = config.CameraConfig(
            rgb=seen,
            depth=seen,
            point_cloud=False,
            mask=seen and settings.with_masks,
            image_size=(settings.image_size, settings.image_size),
            render_mode=modes[RENDERERS[settings.renderer]],
            masks_as_one_channel=True,
            depth_in_meters=True,
        )
    return config.ObservationConfig(
        **cameras,
        joint_velocities=True,
        joint_positions=True,
        joint_forces=True,
        gripper_open=True,
        gripper_pose=True,
        gripper_matrix=False,
        gripper_joint_positions=True,
        gripper_touch_forces=True,
        task_low_dim_state=True,
    )
