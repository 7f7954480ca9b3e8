"""RLBench's observations and pictures in our conventions, and pictures from anywhere in its scene."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from envs.interface import CameraView, Observation, Viewpoint
from envs.rlbench.axes import flip_axes, to_rlbench


def to_observation(stored: Any, cameras: Sequence[str], ignore_collisions: bool) -> Observation:
    """Our observation of RLBench's, which has depth in metres and masks as handles."""
    return Observation(
        cameras={name: _view(stored, name) for name in cameras},
        joint_positions=np.array(stored.joint_positions, float),
        joint_velocities=np.array(stored.joint_velocities, float),
        joint_forces=np.array(stored.joint_forces, float),
        gripper_pose=np.array(stored.gripper_pose, float),
        gripper_open=float(stored.gripper_open),
        gripper_joint_positions=np.array(stored.gripper_joint_positions, float),
        gripper_touch_forces=np.array(stored.gripper_touch_forces, float),
        task_low_dim_state=np.array(stored.task_low_dim_state, float).reshape(-1),
        ignore_collisions=ignore_collisions,
    )


def _view(stored: Any, name: str) -> CameraView:
    intrinsics, extrinsics, near, far = (
        np.array(stored.misc[f"{name}_camera_{part}"], float) for part in ("intrinsics", "extrinsics", "near", "far")
    )
    mask = getattr(stored, f"{name}_mask")
    return CameraView(
        np.array(getattr(stored, f"{name}_rgb"), np.uint8),
        np.array(getattr(stored, f"{name}_depth"), np.float32),
        *flip_axes(intrinsics, extrinsics),
        near=float(near),
        far=float(far),
        mask=None if mask is None else np.rint(mask).astype(np.int32),
    )


class FieldCamera:
    """A vision sensor of one picture size that is carried from viewpoint to viewpoint.

    It is handled explicitly: a picture is drawn of the world as it stands, physics does not go on.
    """

    def __init__(self, size: int, renderer: str) -> None:
        sensors = importlib.import_module("pyrep.objects.vision_sensor")
        modes = importlib.import_module("pyrep.const").RenderMode
        self._sensor = sensors.VisionSensor.create(
            [size, size],
            explicit_handling=True,
            show_volume_not_detecting=False,  # nothing of it in other sensors' pictures
            show_volume_detecting=False,
            render_mode=modes[renderer],
        )

    def draw(self, viewpoint: Viewpoint) -> CameraView:
        sensor = self._sensor
        _, extrinsics = to_rlbench(np.eye(3), np.asarray(viewpoint.T_world_camera, float))
        sensor.set_perspective_angle(float(np.degrees(viewpoint.fov)))
        sensor.set_near_clipping_plane(viewpoint.near)
        sensor.set_far_clipping_plane(viewpoint.far)
        sensor.set_matrix(extrinsics)
        sensor.handle_explicitly()
        rgb, depth = sensor.capture_rgb(), sensor.capture_depth(in_meters=True)
        return CameraView(
            np.clip(rgb * 255.0, 0, 255).astype(np.uint8),
            np.array(depth, np.float32),
            *flip_axes(np.array(sensor.get_intrinsic_matrix(), float), np.array(sensor.get_matrix(), float)),
            near=viewpoint.near,
            far=viewpoint.far,
        )

    def remove(self) -> None:
        """Take the sensor out of the scene."""
        self._sensor.remove()
