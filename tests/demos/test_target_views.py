"""Which pictures a field learns from, and that each keeps its own camera and features."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from demos.features import cache_file, picture_file, picture_hash, save_features
from demos.field_views import read_field_views, write_field_views
from demos.memory import Memory
from demos.store import Episode, open_episode
from demos.target_views import FieldTargets, TargetViews, evenly, open_features
from envs.interface import CameraView
from manifield.errors import InputError
from perception.cameras import intrinsics_from_fov, look_at


def made_up(number: int, size: int = 12) -> CameraView:
    rng = np.random.default_rng(number)
    return CameraView(
        rgb=rng.integers(0, 256, (size, size, 3), np.uint8),
        depth=rng.uniform(0.5, 2.0, (size, size)).astype(np.float32),
        intrinsics=intrinsics_from_fov(0.6 + 0.05 * number, size, size),
        T_world_camera=look_at(np.array([1.0, 0.1 * number, 1.5]), np.array([0.2, 0.0, 0.9])),
    )


@pytest.fixture
def episode(synthetic_episode: Path) -> Episode:
    write_field_views(synthetic_episode, 0, [made_up(k) for k in range(7)])
    return open_episode(synthetic_episode)


@pytest.fixture
def synthetic_episode(tmp_path: Path) -> Path:
    from demos.store import episode_directory, write_episode
    from envs.interface import Observation

    frames = []
    for frame in range(3):
        pose = np.array([0.2, 0.0, 1.0 + 0.1 * frame, 0.0, 1.0, 0.0, 0.0])
        cameras = {"front": made_up(20), "wrist": made_up(21 + frame)}
        frames.append(
            Observation(cameras, np.zeros(7), np.zeros(7), pose, 1.0, np.full(2, 0.04), ignore_collisions=False)
        )
    folder = episode_directory(tmp_path / "data", "open_drawer", 0)
    write_episode(folder, frames, ["open it"], 0)
    return folder


@pytest.mark.parametrize(("count", "chosen"), [(None, range(7)), (9, range(7)), (3, [0, 2, 4]), (1, [0])])
def test_k_of_n_views_are_themselves(episode, count, chosen):
    """Regression (defect 4): the pictures were thinned out, their cameras were not."""
    views = TargetViews(episode, 0, FieldTargets(count), ["front"], None)
    every = read_field_views(episode.path, 0)
    assert views.names == list(chosen)
    for view, number in zip(views, chosen, strict=True):
        np.testing.assert_array_equal(view.picture.rgb, every[number].rgb)
        np.testing.assert_allclose(view.picture.T_world_camera, every[number].T_world_camera)
        np.testing.assert_allclose(view.picture.intrinsics, every[number].intrinsics)


def test_which_cameras_join(episode):
    names = {
        kind: TargetViews(episode, 0, FieldTargets(1, kind), ["wrist"], None).names
        for kind in ("none", "agent", "other", "all")
    }
    assert names == {"none": [0], "agent": ["wrist", 0], "other": ["front", 0], "all": ["front", "wrist", 0]}
    with pytest.raises(InputError, match="frame 1: no field views to learn from"):
        TargetViews(episode, 1, FieldTargets(), ["wrist"], None)
    alone = TargetViews(episode, 1, FieldTargets(None, "agent"), ["wrist"], None)
    np.testing.assert_array_equal(alone[0].picture.rgb, made_up(22).rgb)


def test_decoded_once_if_kept(episode):
    kept = TargetViews(episode, 0, FieldTargets(), [], None, Memory(10**9))
    assert kept[2] is kept[2] and kept[-1] is kept[6] and kept[1:3][0] is kept[1]
    assert TargetViews(episode, 0, FieldTargets(), [], None)[2] is not kept[2]


def with_features(episode: Episode, cache: Path, views, channels: int = 4) -> None:
    pictures = [(0, view) for view in views]
    arrays = {picture: np.full((3, 3, channels), hash(picture[1]) % 7, np.float16) for picture in pictures}
    hashes = {picture: picture_hash(picture_file(episode.path, picture)) for picture in pictures}
    save_features(cache_file(cache, episode.path), arrays, hashes, "someone", "", "")


def test_features_come_with_their_view(episode, tmp_path):
    with_features(episode, tmp_path / "cache", range(7))
    targets = FieldTargets(3, "none", tmp_path / "cache", "someone")
    views = TargetViews(episode, 0, targets, [], open_features(episode, targets))
    assert [view.feature[0, 0, 0] for view in views] == [0, 2, 4]


def test_features_that_do_not_fit_are_one_line(episode, tmp_path):
    with_features(episode, tmp_path / "cache", range(7))
    with pytest.raises(InputError, match="features of another teacher: someone, not somebody else"):
        open_features(episode, FieldTargets(features=tmp_path / "cache", identity="somebody else"))
    with pytest.raises(InputError, match="no features; run `manifield features data=.* teacher=elsewhere`"):
        open_features(episode, FieldTargets(features=tmp_path / "elsewhere"))
    shutil.copy(picture_file(episode.path, (0, 1)), picture_file(episode.path, (0, 0)))
    with pytest.raises(InputError, match="stale, .*0.png has changed since"):
        open_features(episode, FieldTargets(features=tmp_path / "cache"))


def test_a_damaged_view_is_one_line(episode):
    (episode.path / "nerf_data" / "0" / "poses" / "3.txt").unlink()
    with pytest.raises(InputError, match=r"3\.txt: missing"):
        TargetViews(episode, 0, FieldTargets(), [], None)[3]


def test_evenly():
    assert evenly(range(20), 9) == [0, 2, 4, 6, 8, 11, 13, 15, 17]
    assert evenly([3, 5], None) == [3, 5]
