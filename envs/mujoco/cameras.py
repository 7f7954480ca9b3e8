"""RLBench's cameras where they really stand, as read from its demonstrations, and the description of any other one."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from envs.mujoco.panda import T_HAND_TOOL
from perception.cameras import look_at


@dataclass(frozen=True)
class CameraMount:
    """A camera to put into the scene.

    T_body_camera: [4, 4] pose on the body that carries it, OpenCV axes (x right, y down, z forward).
    fov: vertical field of view, degrees. near, far: metres; depth is clamped to `far`.
    body: "world" for a fixed camera, "hand" for one that moves with the gripper.
    """

    T_body_camera: np.ndarray
    fov: float
    near: float = 0.01
    far: float = 4.5
    body: str = "world"

    @staticmethod
    def looking_at(position: np.ndarray, target: np.ndarray, fov: float = 40.0, far: float = 4.5) -> CameraMount:
        """A fixed camera at `position` (world metres) that looks at `target`, picture upright."""
        return CameraMount(look_at(np.asarray(position, float), np.asarray(target, float)), fov, far=far)

    def add_to(self, spec: mujoco.MjSpec, name: str) -> None:
        """Put the camera into a scene under `name`."""
        body = spec.worldbody if self.body == "world" else spec.body(self.body)
        # MuJoCo's cameras look along -z with y up: half a turn about x from OpenCV's axes.
        axes = self.T_body_camera[:3, :3] @ np.diag([1.0, -1.0, -1.0])
        quaternion = np.zeros(4)
        mujoco.mju_mat2Quat(quaternion, axes.ravel())
        body.add_camera(name=name, pos=self.T_body_camera[:3, 3], quat=quaternion, fovy=self.fov)


def _pose(position: list[float], rows: list[list[float]]) -> np.ndarray:
    """[4, 4] pose; the rows of its rotation are rounded to four digits, so the nearest rotation is taken."""
    left, _, right = np.linalg.svd(np.array(rows, float))
    pose = np.eye(4)
    pose[:3, :3] = left @ right
    pose[:3, 3] = position
    return pose


def _rlbench_pose(position: list[float], rows: list[list[float]]) -> np.ndarray:
    """[4, 4] pose with OpenCV axes from RLBench's extrinsics, which go with a negative focal length: x and y flip."""
    return _pose(position, rows) @ np.diag([-1.0, -1.0, 1.0, 1.0])


def _wrist_mount() -> CameraMount:
    """The camera on the hand, from where it and the tool stand in RLBench's start pose."""
    T_world_camera = _rlbench_pose([0.3049, -0.0062, 1.5734], [[0, 0.988, 0.1545], [1, 0, 0], [0, 0.1545, -0.988]])
    T_world_tool = _pose([0.2785, -0.0082, 1.472], [[-0.9708, 0, 0.24], [0, 1, 0], [-0.24, 0, -0.9708]])
    return CameraMount(T_HAND_TOOL @ np.linalg.inv(T_world_tool) @ T_world_camera, 60.0, far=3.5, body="hand")


RLBENCH_CAMERAS: dict[str, CameraMount] = {
    "front": CameraMount(
        _rlbench_pose([1.35, 0, 1.58], [[0, -0.4226, -0.9063], [-1, 0, 0], [0, 0.9063, -0.4226]]), 40.0, far=4.5
    ),
    "left_shoulder": CameraMount(
        _rlbench_pose(
            [-0.175, 0.2, 1.98], [[0.1736, 0.8925, 0.4162], [0.9848, -0.1574, -0.0734], [0, 0.4226, -0.9063]]
        ),
        40.0,
        far=3.2,
    ),
    "right_shoulder": CameraMount(
        _rlbench_pose(
            [-0.175, -0.2, 1.98], [[-0.1736, 0.8925, 0.4162], [0.9848, 0.1574, 0.0734], [0, 0.4226, -0.9063]]
        ),
        40.0,
        far=3.2,
    ),
    "overhead": CameraMount(
        _rlbench_pose([-0.175, 0, 2.43], [[0, 0.9063, 0.4226], [1, 0, 0], [0, 0.4226, -0.9063]]), 40.0, far=3.3
    ),
    "wrist": _wrist_mount(),
}
