"""Measures of rendered pictures against what they are by hand."""

from __future__ import annotations

import numpy as np
import pytest

from envs.interface import CameraView
from perception.cameras import intrinsics_from_fov, look_at
from perception.field.metrics import cosine, psnr, reproject, ssim


def wall(place: list[float], seed: int = 0, size: int = 24) -> CameraView:
    """A camera above a flat table (z = 0) looks straight down at it; every pixel has a colour of its own."""
    rng = np.random.default_rng(seed)
    pose = look_at(np.array(place), np.array([place[0], place[1] + 1e-6, 0.0]))
    return CameraView(
        rgb=rng.integers(0, 256, (size, size, 3), np.uint8),
        depth=np.full((size, size), place[2], np.float32),
        intrinsics=intrinsics_from_fov(0.8, size, size),
        T_world_camera=pose,
    )


def test_psnr_of_a_known_error():
    picture = np.full((5, 6, 3), 0.4)
    assert psnr(picture + 0.1, picture) == pytest.approx(20.0)
    assert psnr(picture + 0.01, picture) == pytest.approx(40.0)


def test_ssim_is_one_for_the_same_and_less_for_noise():
    picture = np.random.default_rng(0).uniform(size=(32, 32, 3))
    assert ssim(picture, picture) == pytest.approx(1.0, abs=1e-5)
    assert ssim(picture, picture[::-1]) < 0.3


def test_cosine_does_not_mind_length():
    features = np.random.default_rng(0).normal(size=(4, 4, 7))
    assert cosine(features * 3, features) == pytest.approx(1.0)
    assert cosine(-features, features) == pytest.approx(-1.0)
    assert cosine(np.array([1.0, 0.0]), np.array([[1.0, 1.0], [0.0, 2.0]])) == pytest.approx(2**-0.5 / 2)


def test_a_picture_carried_into_its_own_camera_is_itself():
    view = wall([0.1, 0.2, 1.0])
    np.testing.assert_allclose(reproject([view], view, np.zeros(3)), view.rgb / 255.0, atol=1e-6)


def test_holes_are_filled_and_the_nearer_of_two_wins():
    view = wall([0.0, 0.0, 1.0])
    half = wall([0.0, 0.0, 1.0])
    half.depth[:, :12] = -1.0  # nothing measured: these pixels go nowhere that the camera sees
    carried = reproject([half], view, np.array([0.25, 0.5, 0.75]))
    np.testing.assert_allclose(carried[:, 12:], view.rgb[:, 12:] / 255.0, atol=1e-6)
    np.testing.assert_allclose(carried[:, :12], np.broadcast_to([0.25, 0.5, 0.75], (24, 12, 3)), atol=1e-6)
    near = wall([0.0, 0.0, 1.0], seed=1)
    near.depth[:] = 0.5
    for order in ([view, near], [near, view]):
        np.testing.assert_allclose(reproject(order, view, np.zeros(3)), near.rgb / 255.0, atol=1e-6)
