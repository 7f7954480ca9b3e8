"""Rays: they go through what their pixel shows, and know where they cross the box."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from demos.store import open_episode
from perception.cameras import back_project, intrinsics_from_fov, look_at
from perception.field.rays import clip_to_box, make_rays, picture_pixels, pixel_rays

LOW, HIGH = torch.tensor([[-0.3, -0.5, 0.6]]), torch.tensor([[0.7, 0.5, 1.6]])


def test_a_ray_at_the_measured_depth_is_the_back_projected_point():
    depth = np.random.default_rng(0).uniform(0.5, 2.0, (12, 16))
    intrinsics, pose = intrinsics_from_fov(0.9, 12, 16), look_at(np.array([1.0, 0.3, 1.7]), np.array([0.2, 0.0, 0.8]))
    origins, directions = pixel_rays(
        picture_pixels(12, 16), torch.tensor(intrinsics).float(), torch.tensor(pose).float()
    )
    points = origins + torch.from_numpy(depth).float().view(-1, 1) * directions
    np.testing.assert_allclose(points.view(12, 16, 3), back_project(depth, intrinsics, pose), atol=2e-6)


def test_each_view_has_its_own_focal_length(real_data):
    """Regression (defect 2): field views were rendered with the front camera's focal length."""
    episode = open_episode(real_data / "rlbench/open_drawer/all_variations/episodes/episode0")
    views = episode.observation(0).cameras
    assert views["wrist"].intrinsics[0, 0] == pytest.approx(110.8512, abs=1e-3)
    assert views["front"].intrinsics[0, 0] == pytest.approx(175.8386, abs=1e-3)
    for view in views.values():
        pixels = picture_pixels(*view.depth.shape)
        many = len(pixels)
        rays = make_rays(
            pixels[None],
            torch.tensor(view.intrinsics).float().expand(1, many, 3, 3),
            torch.tensor(view.T_world_camera).float().expand(1, many, 4, 4),
            LOW,
            HIGH,
        )
        depth = torch.from_numpy(view.depth).float().view(1, -1, 1)
        expected = back_project(view.depth, view.intrinsics, view.T_world_camera).reshape(-1, 3)
        np.testing.assert_allclose(rays.points(depth)[0, :, 0], expected, atol=5e-6)
        inside = ((expected > LOW[0].numpy()) & (expected < HIGH[0].numpy())).all(axis=1)
        measured = depth[0, :, 0].numpy()
        assert inside.any() and rays.hits[0].numpy()[inside].all()
        assert (measured[inside] >= rays.near[0].numpy()[inside] - 1e-5).all()
        assert (measured[inside] <= rays.far[0].numpy()[inside] + 1e-5).all()


def test_clipping_by_hand():
    low, high = torch.tensor([[0.0, 0.0, 0.0]]), torch.tensor([[1.0, 2.0, 3.0]])
    origins = torch.tensor([[[-1.0, 1.0, 1.0], [0.5, 1.0, 1.5], [-1.0, 5.0, 1.0], [2.0, 1.0, 1.0], [0.5, 1.0, -2.0]]])
    directions = torch.tensor([[[2.0, 0.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]])
    near, far = clip_to_box(origins, directions, low, high)
    assert near[0, [0, 1, 4]].tolist() == pytest.approx([0.5, 0.0, 2.0])  # inside the box a ray begins at the camera
    assert far[0, [0, 1, 4]].tolist() == pytest.approx([1.0, 1.5, 5.0])
    assert (far <= near)[0].tolist() == [False, False, True, True, False]  # beside the box, behind the camera


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_clipping_agrees_with_walking_along_the_ray(seed):
    rng = np.random.default_rng(seed)
    low = rng.uniform(-1, 0, 3)
    high = low + rng.uniform(0.2, 1.5, 3)
    origin, direction = rng.uniform(-2, 2, 3), rng.normal(size=3)
    near, far = (
        x.item() for x in clip_to_box(*(torch.tensor(v).view(1, -1, 3) for v in (origin, direction)),
                                      torch.tensor(low)[None], torch.tensor(high)[None])
    )  # fmt: skip
    walk = np.linspace(0, 8, 4001)
    inside = ((origin + walk[:, None] * direction > low) & (origin + walk[:, None] * direction < high)).all(axis=1)
    np.testing.assert_array_equal(inside[(walk < near - 1e-6) | (walk > far + 1e-6)], False)
    between = (walk > near + 1e-6) & (walk < far - 1e-6)
    assert inside[between].all()


def test_a_moved_scene_is_seen_by_the_moved_camera():
    """Regression (defect 3): augmentation moved points and actions, not the view to be rendered."""
    rng = np.random.default_rng(1)
    turn = Rotation.from_euler("z", 40, degrees=True).as_matrix()
    shift = np.array([0.05, -0.1, 0.02])
    depth = torch.from_numpy(rng.uniform(0.5, 1.5, (1, 40, 1))).float()
    pixels = torch.from_numpy(rng.uniform(0, 127, (1, 40, 2))).float()
    intrinsics = torch.tensor(intrinsics_from_fov(0.8, 128, 128)).float().expand(1, 40, 3, 3)
    pose = torch.tensor(look_at(np.array([1.1, 0.2, 1.4]), np.array([0.2, 0.0, 0.9]))).float().expand(1, 40, 4, 4)
    motion = torch.tensor(turn).float()[None], torch.tensor(shift).float()[None]
    still = make_rays(pixels, intrinsics, pose, LOW, HIGH)
    moved = make_rays(pixels, intrinsics, pose, LOW, HIGH, motion)
    expected = still.points(depth).numpy() @ turn.T + shift
    np.testing.assert_allclose(moved.points(depth).numpy(), expected, atol=1e-5)
    torch.testing.assert_close(moved.unmoved, still.unmoved)  # the background stays


def test_rays_keep_their_digits_in_half_precision():
    pixels = torch.tensor([[[3.0, 9.0], [100.5, 64.0]]])
    intrinsics = torch.from_numpy(intrinsics_from_fov(0.7, 128, 128)).float().expand(1, 2, 3, 3)
    pose = torch.from_numpy(look_at(np.array([1.3, 0.4, 1.7]), np.array([0.2, 0.0, 0.8]))).float().expand(1, 2, 4, 4)
    turn = torch.from_numpy(Rotation.from_euler("z", 33, degrees=True).as_matrix()).float()[None]
    words = (pixels, intrinsics, pose, torch.full((1, 3), -1.0), torch.full((1, 3), 2.0), (turn, torch.ones(1, 3)))
    rays = make_rays(*words)
    with torch.autocast("cpu", torch.bfloat16):
        same = make_rays(*words)
    for name in ("origins", "directions", "near", "far", "unmoved"):
        assert torch.equal(getattr(rays, name), getattr(same, name)), name
    moved = turn.double() @ torch.tensor([1.3, 0.4, 1.7], dtype=torch.float64) + 1
    torch.testing.assert_close(rays.origins[0, 0].double(), moved[0], atol=1e-6, rtol=0)
