"""A small world to learn from: episodes in which the goal is above a coloured cube, and a tiny agent."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from demos.features import cache_file, cache_folder, list_pictures, picture_file, picture_hash, save_features
from demos.field_views import write_field_views
from demos.store import episode_directory, find_episodes, open_episode, write_episode
from envs.interface import CameraView, Observation
from perception.cameras import intrinsics_from_fov, look_at

TINY = {
    "low": [-0.3, -0.5, 0.7],
    "high": [0.7, 0.5, 1.4],
    "spacing": 0.02,
    "context": 16,
    "hidden": [32, 16],
    "stages": [
        {
            "shape": [8, 8, 6],
            "points": 12,
            "matches": 2,
            "named": 2,
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


def tiny_config(data: Path, run: Path, *words: str):
    """The config of `manifield train` for the tiny agent."""
    from omegaconf import OmegaConf

    from manifield.configuration import compose

    quick = {"data": data, "run": run, "batch": 2, "threads": 1, "log_every": 1, "wandb": "disabled"}
    given = {word.split("=", 1)[0] for word in words}
    defaults = [f"{k}={v}" for k, v in quick.items() if k not in given]
    config = OmegaConf.to_container(compose("train", [*defaults, *words]))
    config["agent"] = {**config["agent"], **TINY}
    return OmegaConf.create(config)


@pytest.fixture
def train_config(tiny_data: Path, tmp_path: Path):
    """Composes the config of `manifield train` for the tiny agent: train_config("steps=3", …)."""
    return lambda *words: tiny_config(tiny_data, tmp_path / "run", *words)


@pytest.fixture(scope="session")
def tiny_run(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a tiny agent that has seen two steps; look, but do not touch."""
    from agents import training

    run = tmp_path_factory.mktemp("tiny") / "run"
    training.run(tiny_config(tiny_data, run, "steps=2"))
    return run


@pytest.fixture
def trained(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of that run."""
    return shutil.copytree(tiny_run, tmp_path / "run")


@pytest.fixture
def stop_and_go_on(monkeypatch: pytest.MonkeyPatch):
    """Trains until a step is reached, is interrupted there, and trains again: stop_and_go_on(config, step)."""
    from agents import training

    def run(config, number: int) -> None:
        step = training.Trainer.step

        def stop(self, samples, at):
            if at == number:
                raise KeyboardInterrupt
            return step(self, samples, at)

        monkeypatch.setattr(training.Trainer, "step", stop)
        with pytest.raises(KeyboardInterrupt):
            training.run(config)
        monkeypatch.setattr(training.Trainer, "step", step)
        training.run(config)

    return run


# Pictures to learn from: field views of every moment, and made-up features of them

TINY_FIELD = {
    "lambda_feat": 0.1,
    "lambda_depth": 0.1,
    "teacher": "made_up",
    "rays": 12,
    "views_at_once": 2,
    "pictures": True,
    "width": 16,
    "blocks": 2,
    "injections": 1,
    "frequencies": 2,
    "coarse": 6,
    "fine": 4,
    "guided": 2,
}
VIEWS, FEATURES = 3, 5


def picture(number: int, size: int = 16) -> CameraView:
    rng = np.random.default_rng(number)
    return CameraView(
        rgb=rng.integers(0, 256, (size, size, 3), np.uint8),
        depth=rng.uniform(0.8, 1.6, (size, size)).astype(np.float32),
        intrinsics=intrinsics_from_fov(0.9, size, size),
        T_world_camera=look_at(np.array([1.1, 0.3 * number - 0.4, 1.6]), np.array([0.2, 0.0, 0.9])),
    )


def add_views(source: Path, target: Path) -> Path:
    """A copy of a data set with field views of each moment that is learned from, and features of these."""
    shutil.copytree(source, target)
    cache = cache_folder(target, "made_up")
    for path in find_episodes(target):
        episode = open_episode(path)
        frames = sorted({frame for frame, _ in list_pictures(episode, cameras=["front"])})
        for frame in frames:
            write_field_views(path, frame, [picture(k + frame) for k in range(VIEWS)])
        arrays, hashes = {}, {}
        for name in list_pictures(episode, cameras=["front"]):
            rng = np.random.default_rng([name[0], 0 if name[1] == "front" else int(name[1]) + 1])
            arrays[name] = rng.normal(1.0, 1.0, (4, 4, FEATURES)).astype(np.float16)
            hashes[name] = picture_hash(picture_file(path, name))
        save_features(cache_file(cache, path), arrays, hashes, "made up", "", "")
    return target


@pytest.fixture
def tiny_field() -> dict:
    return dict(TINY_FIELD)


@pytest.fixture(scope="session")
def view_data(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return add_views(tiny_data, tmp_path_factory.mktemp("views") / "data")


def tiny_field_config(data: Path, run: Path, changes: dict | None = None, *words: str):
    """As `tiny_config`, with the tiny field."""
    from omegaconf import OmegaConf

    config = OmegaConf.to_container(tiny_config(data, run, *words))
    config["field"] = TINY_FIELD | (changes or {})
    return OmegaConf.create(config)


@pytest.fixture
def field_config(view_data: Path, tmp_path: Path):
    """Composes the config of `manifield train` with the tiny field: field_config({"rays": 4}, "steps=2", …)."""
    return lambda changes=None, *words: tiny_field_config(view_data, tmp_path / "run", changes, *words)


@pytest.fixture(scope="session")
def tiny_field_run(view_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `tiny_run`, with a field."""
    from agents import training

    run = tmp_path_factory.mktemp("tiny_field") / "run"
    training.run(tiny_field_config(view_data, run, {}, "steps=2"))
    return run


@pytest.fixture
def trained_field(tiny_field_run: Path, tmp_path: Path) -> Path:
    """A copy of that run."""
    return shutil.copytree(tiny_field_run, tmp_path / "run")
