"""A small world to learn from: episodes in which the goal is above a coloured cube, and a tiny agent."""

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from demos.store import episode_directory, write_episode
from envs.interface import CameraView, Observation
from perception.cameras import intrinsics_from_fov, look_at

TINY = {
    "low": [-0.3, -0.5, 0.7],
    "high": [0.7, 0.5, 1.4],
    "spacing": 0.02,
    "context": 16,
    "hidden": 32,
    "stages": [
        {
            "shape": [8, 8, 6],
            "points": 12,
            "matches": 2,
            "widths": [8, 16],
            "channels": 8,
            "patch": 3,
            "perceiver": {"tokens": 16, "latents": 4, "latent_dim": 16, "depth": 1, "heads": 2, "head_dim": 8},
        },
        {"shape": [5, 6, 7], "size": 0.3, "jitter": 0.05, "points": 12, "widths": [8], "channels": 8},
    ],
}


def observation(position: np.ndarray, is_open: float, seed: int) -> Observation:
    rng = np.random.default_rng(seed)
    view = CameraView(
        rgb=rng.integers(0, 255, (16, 16, 3), np.uint8),
        depth=rng.uniform(0.9, 1.3, (16, 16)).astype(np.float32),
        intrinsics=intrinsics_from_fov(np.radians(40), 16, 16),
        T_world_camera=look_at(np.array([0.9, 0.0, 1.8]), np.array([0.2, 0, 0.8])),
    )
    down = Rotation.from_euler("xyz", [180, 0, 20], degrees=True).as_quat()
    return Observation(
        cameras={"front": view},
        joint_positions=np.zeros(7),
        joint_velocities=np.full(7, 0.0),
        gripper_pose=np.concatenate([position, down]),
        gripper_open=is_open,
        gripper_joint_positions=np.full(2, 0.04 * is_open),
        ignore_collisions=False,
    )


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks of two episodes; each goes to a place and closes the gripper there."""
    root = tmp_path_factory.mktemp("data")
    for task in ("open_drawer", "push_buttons"):
        for index in range(2):
            rng = np.random.default_rng(index)
            goal = rng.uniform([0.0, -0.2, 0.8], [0.4, 0.2, 1.0])
            path = np.linspace([0.25, 0.0, 1.2], goal, 6)
            frames = [observation(p, 1.0, i) for i, p in enumerate(path)]
            for frame in frames[:-1]:
                frame.joint_velocities = np.full(7, 0.5)
            frames += [observation(goal, 0.0, 7), observation(goal, 0.0, 8)]
            write_episode(episode_directory(root, task, index), frames, [f"{task} now", f"please {task}"], 0)
    return root


@pytest.fixture
def train_config(tiny_data: Path, tmp_path: Path):
    """Composes the config of `manifield train` for the tiny agent: train_config("steps=3", …)."""
    from omegaconf import OmegaConf

    from manifield.configuration import compose

    def make(*words: str):
        quick = {"data": tiny_data, "run": tmp_path / "run", "batch": 2, "threads": 1, "log_every": 1}
        given = {word.split("=", 1)[0] for word in words}
        defaults = [f"{k}={v}" for k, v in {**quick, "wandb": "disabled"}.items() if k not in given]
        config = OmegaConf.to_container(compose("train", [*defaults, *words]))
        config["agent"] = {**config["agent"], **TINY}
        return OmegaConf.create(config)

    return make
