"""Bags made from what the embedded simulator does, as a robot with its drivers would have filled them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from demos.bags.bag import BagWriter
from envs.interface import Observation
from envs.mujoco.environment import MujocoEnvironment
from envs.ros.config import RosConfig
from envs.ros.geometry import pose_matrix
from envs.ros.messages import CameraInfo, CompressedImage, Image, JointState, Message, Transform, Transforms

START = 1_790_000_000_000_000_000  # nanoseconds: when the takes were
STEP = 50_000_000
BASE = [-0.3, 0.0, 0.752, 0.0, 0.0, 0.0, 1.0]
JOINTS = [f"panda_joint{i}" for i in range(1, 8)]


def play(cameras: Sequence[str], size: int) -> tuple[list[Observation], list[int]]:
    """What the expert does in one scene, frame by frame, and the numbers of the frames in which its actions end."""
    with MujocoEnvironment("push_buttons", cameras, size) as environment:
        frames, ends = [environment.reset(5, 0).observation], []
        for action in environment.expert():
            environment.step(action, frames.append)
            ends.append(len(frames) - 1)
    return frames, ends


def robot(cameras: Sequence[str], size: int, **sensing: Any) -> RosConfig:
    """The config of the robot that these bags come from."""
    return RosConfig.of(
        {
            "cameras": list(cameras),
            "image_size": size,
            "frames": {"tool_offset": [0, 0, 0, 0, 0, 0, 1], "base_in_world": BASE},
            "gripper": {"joints": ["panda_finger_joint1"]},
            "sensing": {"near": 0.01, "far": 4.5, **sensing},
        }
    )


def messages(
    observations: Sequence[Observation], depth: str = "32FC1", packed: bool = False
) -> Iterator[tuple[str, Message, int]]:
    """(topic, message, time of arrival): frames every 50 ms, joints and frames a little before the pictures.

    depth: encoding. packed: pictures are PNG files.
    """
    T_base_world = np.linalg.inv(pose_matrix(BASE))
    for number, seen in enumerate(observations):
        stamp = START + number * STEP
        if number == 0:
            still = [
                Transform(stamp, "panda_link0", f"{name}_optical", T_base_world @ view.T_world_camera)
                for name, view in seen.cameras.items()
                if name != "wrist"
            ]
            yield "/tf_static", Transforms(tuple(still)), stamp
        tool = T_base_world @ pose_matrix(seen.gripper_pose)
        moving = [Transform(stamp, "panda_link0", "panda_hand_tcp", tool)]
        if "wrist" in seen.cameras:
            T_tool_camera = np.linalg.inv(tool) @ T_base_world @ seen.cameras["wrist"].T_world_camera
            moving.append(Transform(stamp, "panda_hand_tcp", "wrist_optical", T_tool_camera))
        yield "/tf", Transforms(tuple(moving)), stamp + 1_000_000
        fingers = seen.gripper_joint_positions
        yield (
            "/joint_states",
            JointState(
                stamp,
                (*JOINTS, "panda_finger_joint1", "panda_finger_joint2"),
                np.concatenate([seen.joint_positions, fingers]),
                np.concatenate([seen.joint_velocities, [0.0, 0.0]]),
                np.concatenate([seen.joint_forces, [0.0, 0.0]]),
            ),
            stamp + 2_000_000,
        )
        for name, view in seen.cameras.items():
            frame, (height, width) = f"{name}_optical", view.depth.shape
            metres = view.depth if depth == "32FC1" else np.rint(view.depth * 1000).astype(np.uint16)
            info = CameraInfo(stamp, frame, height, width, view.intrinsics)
            yield f"/{name}/color/camera_info", info, stamp + 3_000_000
            pictures = {
                f"/{name}/color/image_raw": Image(stamp, frame, "rgb8", view.rgb),
                f"/{name}/aligned_depth_to_color/image_raw": Image(stamp, frame, depth, metres),
            }
            for topic, image in pictures.items():
                if packed:
                    yield f"{topic}/compressed", CompressedImage.of(image, "png"), stamp + 5_000_000
                else:
                    yield topic, image, stamp + 5_000_000


def write_bag(
    path: Path, observations: Sequence[Observation], depth: str = "32FC1", packed: bool = False, **facts: str
) -> Path:
    """A bag of these observations."""
    with BagWriter(path, facts) as bag:
        for topic, message, time in messages(observations, depth, packed):
            bag.write(topic, message, time)
    return path
