"""Made-up episodes, and the fake world on the import path (spawned workers must find it by name)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from demos.store import episode_directory, write_episode
from envs.interface import CameraView, Observation

sys.path.insert(0, str(Path(__file__).parent))


def make_observation(index: int = 0, size: int = 8, cameras: tuple[str, ...] = ("front", "wrist")) -> Observation:
    """A frame with everything filled in, different for every index."""
    rng = np.random.default_rng(index)
    quaternion = rng.normal(size=4)
    views = {}
    for camera in cameras:
        T_world_camera = np.eye(4)
        T_world_camera[:3] = rng.normal(size=(3, 4))
        views[camera] = CameraView(
            rgb=rng.integers(0, 256, (size, size, 3), dtype=np.uint8),
            depth=rng.uniform(0.02, 4.4, (size, size)).astype(np.float32),
            intrinsics=np.array([[11.0, 0.0, size / 2 - 0.5], [0.0, 12.0, size / 2], [0.0, 0.0, 1.0]]),
            T_world_camera=T_world_camera,
            mask=rng.integers(0, 2**24, (size, size), dtype=np.int32),
        )
    return Observation(
        cameras=views,
        joint_positions=rng.normal(size=7),
        joint_velocities=rng.normal(size=7),
        joint_forces=rng.normal(size=7),
        gripper_pose=np.concatenate([rng.uniform(0, 1, 3), quaternion / np.linalg.norm(quaternion)]),
        gripper_open=float(index < 3),
        gripper_joint_positions=rng.uniform(0, 0.04, 2),
        gripper_touch_forces=rng.normal(size=6),
        task_low_dim_state=rng.normal(size=5),
        ignore_collisions=index % 2 == 1,
    )


@pytest.fixture
def observation() -> Callable[..., Observation]:
    return make_observation


@pytest.fixture
def episode(tmp_path: Path) -> Path:
    """A written episode of six frames, two cameras, 8 x 8 pixels."""
    frames = [make_observation(index) for index in range(6)]
    return write_episode(episode_directory(tmp_path, "open_jar", 0), frames, ["open the jar", "unscrew it"], 3)
