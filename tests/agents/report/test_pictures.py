"""Drawings land where the geometry says, and nothing strange in a pose or a volume breaks them."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from agents.report.pictures import cut_strip, data_uri, draw_keyframe, film_strip, overlay_heat, png_bytes, upscale
from envs.interface import CameraView
from perception.cameras import intrinsics_from_fov, look_at, project

DOWN = np.array([1.0, 0.0, 0.0, 0.0])  # half a turn about x: the hand points down
LOW, HIGH = np.array([-0.3, -0.5, 0.6]), np.array([0.7, 0.5, 1.6])


@pytest.fixture
def view() -> CameraView:
    rgb = np.full((96, 128, 3), 120, np.uint8)
    T = look_at(np.array([1.3, 0.2, 1.5]), np.array([0.2, 0.0, 0.9]))
    return CameraView(rgb, np.ones((96, 128), np.float32), intrinsics_from_fov(0.7, 96, 128), T)


def changed(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """[H, W] whether a pixel differs."""
    return np.abs(before.astype(int) - after).max(axis=-1) > 8


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_a_gripper_is_drawn_at_its_pose(view: CameraView, factor: int) -> None:
    position = np.array([0.25, 0.1, 0.9])
    rgb = upscale(view.rgb, factor)
    assert rgb.shape == (96 * factor, 128 * factor, 3)
    drawn = draw_keyframe(rgb, view, position, DOWN, True)
    touched = np.argwhere(changed(rgb, drawn))[:, ::-1]  # u, v
    tip = [position + [0, side, 0] for side in (-0.04, 0.04)]
    palm = [position + [0, side, 0.045] for side in (-0.04, 0.04)]
    for point in [*tip, *palm, position + [0, 0, 0.095]]:
        uv, _ = project(point, view.intrinsics, view.T_world_camera)
        at = (uv + 0.5) * factor - 0.5
        assert np.linalg.norm(touched - at, axis=1).min() < 1 + factor / 2
    middle, _ = project(position + [0, 0, 0.03], view.intrinsics, view.T_world_camera)
    assert np.linalg.norm(touched.mean(0) - ((middle + 0.5) * factor - 0.5)) < 4 * factor
    assert not changed(rgb, view.rgb if factor == 1 else rgb).any()  # what was given is left alone


def test_open_fingers_are_drawn_apart(view: CameraView) -> None:
    position = np.array([0.25, 0.1, 0.9])
    wide = changed(view.rgb, draw_keyframe(view.rgb, view, position, DOWN, True)).any(0).sum()
    narrow = changed(view.rgb, draw_keyframe(view.rgb, view, position, DOWN, False)).any(0).sum()
    assert wide > narrow


@pytest.mark.parametrize(
    ("position", "quaternion"),
    [
        ([np.nan, 0, 0], DOWN),
        ([0, 0, 1], np.zeros(4)),
        ([0, 0, np.inf], DOWN),
        ([5, 1, 3], DOWN),  # behind the camera
    ],
)
def test_poses_that_cannot_be_drawn(view: CameraView, position: list[float], quaternion: np.ndarray) -> None:
    assert not changed(view.rgb, draw_keyframe(view.rgb, view, np.array(position), quaternion, True)).any()


def test_a_gripper_that_passes_through_the_camera_is_cut(view: CameraView) -> None:
    camera = view.T_world_camera
    at = camera[:3, 3] + 0.03 * camera[:3, 2]  # the hand reaches from before the lens to behind it
    drawn = draw_keyframe(view.rgb, view, at, np.array([0.0, 0.0, 0.0, 1.0]), True)
    assert drawn.shape == view.rgb.shape


@pytest.mark.parametrize("factor", [1, 2])
def test_heat_is_hottest_where_the_volume_is(view: CameraView, factor: int) -> None:
    shape = (25, 25, 25)
    volume = np.zeros(shape)
    volume[14, 10, 8] = 1.0
    point = LOW + (np.array([14, 10, 8]) + 0.5) * (HIGH - LOW) / shape
    uv, _ = project(point, view.intrinsics, view.T_world_camera)
    rgb = upscale(view.rgb, factor)
    difference = np.abs(overlay_heat(rgb, view, volume, LOW, HIGH).astype(float) - rgb).sum(-1)
    hottest = difference >= difference.max() - 1e-6
    centre = np.argwhere(hottest).mean(0)[::-1]
    assert np.linalg.norm(centre - ((uv + 0.5) * factor - 0.5)) < factor
    assert (difference[:5] == 0).all()  # far away nothing changes


def test_volumes_that_cannot_be_drawn(view: CameraView) -> None:
    for volume in (np.zeros((4, 4, 4)), np.full((4, 4, 4), np.nan), -np.ones((4, 4, 4))):
        assert (overlay_heat(view.rgb, view, volume, LOW, HIGH) == view.rgb).all()
    behind = np.array([3.0, 0.0, 2.0])
    assert (overlay_heat(view.rgb, view, np.ones((4, 4, 4)), behind, behind + 0.5) == view.rgb).all()
    beside = np.array([0.0, 20.0, 0.0])
    assert (overlay_heat(view.rgb, view, np.ones((4, 4, 4)), beside, beside + 0.5) == view.rgb).all()


def test_a_large_volume_takes_no_long(view: CameraView) -> None:
    volume = np.random.default_rng(0).random((100, 100, 100))
    assert changed(view.rgb, overlay_heat(view.rgb, view, volume, LOW, HIGH)).any()


def test_a_film_strip_holds_pictures_and_captions() -> None:
    images = [np.full((60, 80, 3), value, np.uint8) for value in (50, 100, 200)]
    strip = film_strip(images, ["first", "a caption that needs more than one line", ""], gap=4)
    assert strip.shape[1] == 3 * 80 + 2 * 4 and strip.shape[0] > 60
    for i, value in enumerate((50, 100, 200)):
        assert (strip[:60, i * 84 : i * 84 + 80] == value).all()
    band = strip[60:].max(-1) > 120
    assert band[:, :80].any() and band[:, 84:164].any() and not band[:, 168:].any()
    assert film_strip(images, ["", "", ""]).shape[0] == 60
    for pictures, captions in (([], []), (images, ["one"])):
        with pytest.raises(ValueError, match="as many captions"):
            film_strip(pictures, captions)


def test_a_strip_is_cut_where_it_was_joined() -> None:
    images = [np.full((40, 40, 3), value, np.uint8) for value in (50, 100, 200)]
    strip = Image.fromarray(film_strip(images, ["one", "two", "three"]))
    cut = cut_strip(strip, 3)
    assert all((np.asarray(a) == b).all() for a, b in zip(cut, images, strict=True))
    assert cut_strip(strip, 5) == [strip]  # not a strip of five


def test_pictures_survive_encoding() -> None:
    image = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    assert (np.asarray(Image.open(io.BytesIO(png_bytes(image)))) == image).all()
    assert Image.open(io.BytesIO(png_bytes(image, colours=16))).mode == "P"
    kind, _, content = data_uri(image).partition(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(content) == png_bytes(image)
