"""A robot made of messages alone, on a clock that the test turns: for sensing and safety without simulator or bus."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from envs.mujoco.panda import START
from envs.ros.config import RosConfig
from envs.ros.geometry import pose_matrix
from envs.ros.messages import Bool, CameraInfo, Image, JointState, Transform, Transforms
from envs.ros.planning import PlanningScene
from envs.ros.sensing import Sensors
from tests.envs.ros.memory_bus import Bus, MemoryTransport

SIZE = 16
EPOCH = 1_700_000_000 * 10**9


def make_config(cameras: Sequence[str] = ("front",), **parts: Any) -> RosConfig:
    limits = {"confirm": False, **parts.pop("limits", {})}
    return RosConfig.of({"cameras": list(cameras), "image_size": SIZE, "limits": limits, **parts})


class RobotFeed:
    """Publishes what a healthy robot would, unless told otherwise."""

    def __init__(self, config: RosConfig) -> None:
        self.config, self.bus, self.now = config, Bus(), 100.0
        self.transport, self._robot = MemoryTransport(self.bus), MemoryTransport(self.bus)
        self.bus.watched.add(config.arm.pose_topic)
        self.sensors = Sensors(self.transport, config, self.wall, lambda: self.now)
        self.scene = PlanningScene(config.frames.base_in_world, config.limits.boxes, config.limits.contact_depth)
        self.joints, self.opening = START.copy(), 1.0
        self.sensors.start()
        self._robot.start()
        self.transport.start()

    def wall(self) -> int:
        return EPOCH + int(self.now * 1e9)

    def tell(self, **changes: Any) -> None:
        """One round of messages. changes: joints=False (or stop, color, depth, tf) leaves those out; skew, depth_lag in
        seconds; positions to be told instead of the true ones; encoding, depth_value, intrinsics."""
        config, say = self.config, self._robot.publish
        stamp = self.wall() + round(changes.get("skew", 0.0) * 1e9)
        if changes.get("stop", True):
            say(config.topics.stop or "", Bool(bool(changes.get("pressed", False))), latched=True)
        if changes.get("joints", True):
            positions = np.append(changes.get("positions", self.joints), 0.04 * self.opening)
            say(
                "/joint_states", JointState(stamp, (*config.arm.joints, *config.gripper.joints), positions, np.zeros(8))
            )
        if changes.get("tf", True):
            T_base_tool = np.linalg.inv(pose_matrix(config.frames.base_in_world)) @ self.scene.tool_pose(self.joints)
            T_base_frame = T_base_tool @ np.linalg.inv(pose_matrix(config.frames.tool_offset))
            say("/tf", Transforms((Transform(stamp, config.frames.base, config.frames.tool or "", T_base_frame),)))
        for name in config.cameras:
            frame = f"{name}_optical"
            say(f"/{name}/color/camera_info", CameraInfo(stamp, frame, SIZE, SIZE, changes.get("intrinsics", camera())))
            if changes.get("color", True):
                say(f"/{name}/color/image_raw", Image(stamp, frame, "rgb8", np.full((SIZE, SIZE, 3), 7, np.uint8)))
            if changes.get("depth", True):
                lagged = stamp - round(changes.get("depth_lag", 0.0) * 1e9)
                picture = np.full((SIZE, SIZE), changes.get("depth_value", 1500), np.uint16)
                say(f"/{name}/aligned_depth_to_color/image_raw", Image(lagged, frame, "16UC1", picture))
            pose = pose_matrix([1.0, 0, 0.8, 1.0, 0, 0, 0])
            say("/tf_static", Transforms((Transform(stamp, config.frames.base, frame, pose),)), latched=True)

    def run(self, seconds: float, **changes: Any) -> None:
        """Rounds of messages at 100 Hz."""
        for _ in range(round(seconds * 100)):
            self.now += 0.01
            self.tell(**changes)


def camera() -> np.ndarray:
    return np.array([[20.0, 0, 7.5], [0, 20.0, 7.5], [0, 0, 1]])
