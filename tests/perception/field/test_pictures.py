"""What the field finds in the given pictures at a point: of known planes, and of a real frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from demos.store import open_episode
from envs.interface import CameraView
from perception.cameras import back_project, intrinsics_from_fov, look_at
from perception.field.pictures import CHANNELS, REACHES, THROUGH, stack_pictures

SIZE = (40, 60)


def wall(colour: tuple[int, int, int], place: np.ndarray, distance: float, fov: float = 0.8) -> CameraView:
    """A camera that looks along world -x at a wall across its axis."""
    return CameraView(
        rgb=np.full((*SIZE, 3), colour, np.uint8),
        depth=np.full(SIZE, distance, np.float32),
        intrinsics=intrinsics_from_fov(fov, *SIZE),
        T_world_camera=look_at(place, place - [1, 0, 0]),
    )


def at(points, *views: CameraView, motion: np.ndarray | None = None) -> np.ndarray:
    """[N, CHANNELS] of one scene."""
    pictures = stack_pictures([dict(enumerate(views))], np.eye(4)[None] if motion is None else motion[None])
    return pictures.at(torch.tensor(np.array(points), dtype=torch.float32)[None])[0].numpy()


def test_on_before_behind_and_beside_a_wall():
    red = wall((255, 0, 0), np.array([1.0, 0.0, 1.0]), 1.0)  # at x = 0
    on, before, behind, beside, at_the_back = at(
        [[0, 0, 1], [THROUGH, 0.1, 1.1], [-THROUGH, 0, 0.9], [0, 5, 1], [1.5, 0, 1]], red
    )
    assert on == pytest.approx([1, 0, 0, 1, 1, 0, 0, 1, 0, 0, 1], abs=2e-3)
    one = np.tanh(1)
    assert before[-3:] == pytest.approx([one, one, 1], abs=1e-5)
    assert behind[-3:] == pytest.approx([-one, -one, 1], abs=1e-5)
    for near, reach in zip((before[3], before[7]), REACHES, strict=True):
        assert near == pytest.approx(np.exp(-((THROUGH / reach) ** 2)), abs=1e-5)
    unseen = [0] * (CHANNELS - 3) + [-1, 1, 0]
    assert beside == pytest.approx(unseen) and at_the_back == pytest.approx(unseen)


def test_a_camera_that_is_in_the_way_hides_nothing_from_the_others():
    """Each camera has its own focal length and depth; what one cannot see another colours."""
    red = wall((255, 0, 0), np.array([1.0, 0.0, 1.0]), 0.5, fov=0.4)
    blue = wall((0, 0, 255), np.array([0.7, 0.1, 1.0]), 0.7, fov=1.2)
    (point,) = at([[0, 0.05, 1]], red, blue)  # half a metre behind red's wall, on blue's
    assert point[:4] == pytest.approx([0, 0, 1, 1], abs=2e-3)
    assert point[-3:] == pytest.approx([0, -1, 1], abs=1e-4)


def test_each_scene_has_its_own_pictures_and_motion():
    views = [wall((255, 0, 0), np.array([1.0, 0.0, 1.0]), 1.0), wall((0, 255, 0), np.array([1.0, 0.0, 1.0]), 0.8)]
    turn = np.array([[0, -1, 0, 0.3], [1, 0, 0, 0.1], [0, 0, 1, -0.2], [0, 0, 0, 1.0]])
    pictures = stack_pictures([{"a": v} for v in views], np.stack([np.eye(4), turn]))
    own = np.array([[0, 0, 1, 1], [0.2, 0, 1, 1]])  # on either wall
    points = torch.tensor(np.stack([own[0], turn @ own[1]])[:, None, :3], dtype=torch.float32)
    found = pictures.at(points)[:, 0].numpy()
    assert found[0, :4] == pytest.approx([1, 0, 0, 1], abs=2e-3)
    assert found[1, :4] == pytest.approx([0, 1, 0, 1], abs=2e-3)


def test_half_precision_around_it_moves_no_pixel():
    red = wall((255, 0, 0), np.array([1.0, 0.0, 1.0]), 1.0)
    points = np.random.default_rng(0).uniform([-0.1, -0.3, 0.8], [0.1, 0.3, 1.2], (200, 3))
    plain = at(points, red)
    with torch.autocast("cpu", torch.bfloat16):
        assert np.array_equal(at(points, red), plain)


def test_a_real_frame_knows_its_own_points(real_data: Path):
    """Every camera's own surface points carry that camera's colour, or one that another sees within a centimetre."""
    episode = open_episode(real_data / "rlbench/open_drawer/all_variations/episodes/episode0")
    cameras = episode.observation(0, ("front", "left_shoulder", "wrist")).cameras
    for view in cameras.values():
        points = back_project(view.depth, view.intrinsics, view.T_world_camera).reshape(-1, 3)
        alone = at(points, view)
        assert (alone[:, 3] > 0.98).mean() > 0.999
        assert np.abs(alone[:, :3] - view.rgb.reshape(-1, 3) / 255).mean() < 2e-3
        together = at(points, *cameras.values())
        assert (together[:, 3] > 0.98).mean() > 0.999
