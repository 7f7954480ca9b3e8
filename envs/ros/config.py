"""What `configs/env/ros.yaml` says, as checked dataclasses. The YAML explains every field; units are SI."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import numpy as np
import yaml

from manifield.errors import InputError, choose

T = TypeVar("T")
EXECUTIONS = ("trajectory", "pose", "moveit")
GRIPPERS = ("command", "franka", "none")
MODELS = ("panda",)


@dataclass
class TransportConfig:
    """How to reach the bus."""

    name: str = "rclpy"
    python: str | None = None
    domain: int = 0
    loopback_only: bool = True
    host: str = "127.0.0.1"
    port: int = 9090


@dataclass
class TopicsConfig:
    """Names on the bus; {camera} stands for a camera's name."""

    color: str = "/{camera}/color/image_raw"
    depth: str = "/{camera}/aligned_depth_to_color/image_raw"
    info: str = "/{camera}/color/camera_info"
    compressed: bool = False
    joints: list[str] = field(default_factory=lambda: ["/joint_states"])
    stop: str | None = "/e_stop"
    refusals: str = "/manifield/refusals"


@dataclass
class FramesConfig:
    """Frames: see the YAML."""

    base: str = "panda_link0"
    tool: str | None = "panda_hand_tcp"
    tool_offset: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0])
    base_in_world: list[float] = field(default_factory=lambda: [-0.3, 0.0, 0.752, 0.0, 0.0, 0.0, 1.0])
    cameras: Any = None


@dataclass
class ArmConfig:
    """The arm and its controller."""

    model: str | None = "panda"
    joints: list[str] = field(default_factory=lambda: [f"panda_joint{i}" for i in range(1, 8)])
    execution: str = "trajectory"
    trajectory_action: str = "/panda_arm_controller/follow_joint_trajectory"
    pose_topic: str = "/target_pose"
    moveit_action: str = "/move_action"
    moveit_group: str = "panda_arm"
    speed: float = 0.3
    contact_speed: float = 0.5
    arrival: list[float] = field(default_factory=lambda: [0.005, 0.05])


@dataclass
class GripperConfig:
    """The gripper: positions are what the driver calls them, widths metres between the fingers."""

    driver: str = "command"
    action: str = "/panda_gripper/gripper_action"
    move_action: str = "/panda_gripper/move"
    grasp_action: str = "/panda_gripper/grasp"
    joints: list[str] = field(default_factory=lambda: ["panda_finger_joint1"])
    opened: float = 0.04
    closed: float = 0.0
    width: float = 0.08
    effort: float = 20.0
    speed: float = 0.1
    seconds: float = 2.0


@dataclass
class LimitsConfig:
    """What the safety layer lets through."""

    low: list[float] = field(default_factory=lambda: [-0.3, -0.5, 0.752])
    high: list[float] = field(default_factory=lambda: [0.7, 0.5, 1.6])
    step: float = 0.8
    turn: float = 3.15
    joint_low: list[float] = field(default_factory=lambda: [-2.89, -1.75, -2.89, -3.05, -2.89, -0.01, -2.89])
    joint_high: list[float] = field(default_factory=lambda: [2.89, 1.75, 2.89, -0.08, 2.89, 3.74, 2.89])
    joint_speed: list[float] = field(default_factory=lambda: [1.35, 1.35, 1.35, 1.35, 1.65, 1.65, 1.65])
    start_error: float = 0.05
    effort: float = 40.0
    boxes: list[Any] = field(default_factory=lambda: [{"centre": [0.25, 0.0, 0.652], "size": [1.1, 1.5, 0.2]}])
    contact_depth: float = 0.01
    cloud: bool = True
    goal_age: float = 30.0
    confirm: bool = True
    dry_run: bool = False


@dataclass
class SensingConfig:
    """When sensors count as sound."""

    picture_age: float = 0.14
    joint_age: float = 0.1
    stamp_age: float = 0.25
    skew: float = 0.05
    mismatch: float = 0.02
    spread: float = 0.1
    jump: float = 0.15
    depth_share: float = 0.1
    near: float = 0.05
    far: float = 3.0
    stop_heartbeat: float = 1.0
    patience: float = 5.0
    tool_error: float = 0.02


@dataclass
class RosConfig:
    """All of it."""

    cameras: list[str]
    image_size: int
    rehearsal: bool = False
    transport: TransportConfig = field(default_factory=TransportConfig)
    topics: TopicsConfig = field(default_factory=TopicsConfig)
    frames: FramesConfig = field(default_factory=FramesConfig)
    arm: ArmConfig = field(default_factory=ArmConfig)
    gripper: GripperConfig = field(default_factory=GripperConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    sensing: SensingConfig = field(default_factory=SensingConfig)

    def __post_init__(self) -> None:
        choose(self.transport.name, ("rclpy", "rosbridge"), "transport.name")
        choose(self.arm.execution, EXECUTIONS, "arm.execution")
        choose(self.gripper.driver, GRIPPERS, "gripper.driver")
        if self.arm.model is not None:
            choose(self.arm.model, MODELS, "arm.model")
        elif self.arm.execution == "trajectory":
            raise InputError(
                "arm.execution=trajectory needs a model of the arm to plan with: arm.model=panda, or let MoveIt or the "
                "arm's own controller plan, arm.execution=moveit or pose"
            )
        joints, limits = len(self.arm.joints), self.limits
        if self.arm.model == "panda" and joints != 7:
            raise InputError(f"arm.joints names {joints} joints: the panda has 7")
        for key, count in (
            ("low", 3),
            ("high", 3),
            ("joint_low", joints),
            ("joint_high", joints),
            ("joint_speed", joints),
        ):
            _numbers(f"limits.{key}", getattr(limits, key), count)
        for low, high in ((limits.low, limits.high), (limits.joint_low, limits.joint_high)):
            if not (np.asarray(low) < np.asarray(high)).all():
                raise InputError(f"limits: {low} is not below {high} everywhere")
        for key in ("base_in_world", "tool_offset"):
            _pose(f"frames.{key}", getattr(self.frames, key))
        self.frames.cameras = _cameras(self.frames.cameras)
        for name, camera in self.frames.cameras.items():
            if not isinstance(camera, Mapping) or set(camera) != {"frame", "pose"}:
                raise InputError(
                    f"frames.cameras.{name}: give frame: (the parent's) and pose: [x, y, z, qx, qy, qz, qw]"
                )
            _pose(f"frames.cameras.{name}.pose", camera["pose"])
        for number, box in enumerate(limits.boxes):
            if not isinstance(box, Mapping) or set(box) != {"centre", "size"}:
                raise InputError(f"limits.boxes.{number}: give centre: [x, y, z] and size: [x, y, z]")
            for key in ("centre", "size"):
                _numbers(f"limits.boxes.{number}.{key}", box[key], 3)
        _numbers("arm.arrival", self.arm.arrival, 2)
        positive = {
            "limits": ("step", "turn", "start_error", "effort", "goal_age"),
            "sensing": (
                "picture_age",
                "joint_age",
                "stamp_age",
                "skew",
                "mismatch",
                "spread",
                "jump",
                "patience",
                "far",
            ),
            "arm": ("speed", "contact_speed"),
            "gripper": ("width", "speed", "seconds"),
        }
        for part, names in positive.items():
            for name in names:
                if not getattr(getattr(self, part), name) > 0:
                    raise InputError(f"{part}.{name}={getattr(getattr(self, part), name)}: must be more than 0")
        for name in ("speed", "contact_speed"):
            if getattr(self.arm, name) > 1:
                raise InputError(f"arm.{name}={getattr(self.arm, name)}: a share of the full speed, at most 1")

    @staticmethod
    def of(config: Mapping[str, Any]) -> RosConfig:
        """From nested mappings.

        Raises:
            InputError: an unknown key, or a value that does not fit.
        """
        return _build(RosConfig, config, "")


def _cameras(given: Any) -> Mapping[str, Any]:
    """Frame and pose by camera, from a mapping or from the name of a file that holds one."""
    if given is None or isinstance(given, Mapping):
        return given or {}
    path = Path(str(given))
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        words = " ".join(str(error).split())
        raise InputError(f"frames.cameras={given}: cannot be read ({words}); `calibrate` writes one") from None
    if not isinstance(content, Mapping):
        raise InputError(f"frames.cameras={given}: expected cameras by name, as `manifield calibrate` writes them")
    return {str(name): camera for name, camera in content.items()}


def _build(kind: type[T], values: Mapping[str, Any], prefix: str) -> T:
    hints = get_type_hints(kind)
    known = {item.name for item in fields(kind)}  # type: ignore[arg-type]
    given: dict[str, Any] = {}
    for name, value in values.items():
        choose(str(name), known, f"key {prefix}" if prefix else "key")
        inner = hints[name]
        if is_dataclass(inner) and isinstance(inner, type):
            value = _build(inner, value, f"{prefix}{name}.")
        elif inner is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        given[name] = value
    return kind(**given)


def _numbers(key: str, values: Any, count: int) -> None:
    try:
        array = np.asarray(values, float)
    except (TypeError, ValueError):
        array = np.zeros(0)
    if array.shape != (count,) or not np.isfinite(array).all():
        raise InputError(f"{key}={values}: give {count} numbers")


def _pose(key: str, values: Any) -> None:
    _numbers(key, values, 7)
    if abs(np.linalg.norm(values[3:]) - 1.0) > 0.01:
        raise InputError(f"{key}={values}: the last four are no unit quaternion (x, y, z, w)")
