"""Pixels drawn from views keep their own colour, depth, feature and camera."""

from __future__ import annotations

import numpy as np
import pytest

from envs.interface import CameraView
from manifield.errors import InputError
from perception.cameras import intrinsics_from_fov, look_at
from perception.field.views import TargetView, draw_pixels, whole_view


def view(number: int, size: int = 12) -> TargetView:
    rng = np.random.default_rng(number)
    picture = CameraView(
        rgb=rng.integers(0, 256, (size, size, 3), np.uint8),
        depth=rng.uniform(0.5, 2, (size, size)),
        intrinsics=intrinsics_from_fov(0.5 + 0.1 * number, size, size),
        T_world_camera=look_at(np.array([1.0, number, 1.5]), np.zeros(3)),
    )
    return TargetView(picture, rng.normal(size=(size // 4, size // 4, 6)).astype(np.float16), f"view {number}")


@pytest.mark.parametrize("many", [1, 3, 5])
def test_k_of_n_views_keep_their_own_cameras(many):
    """Regression (defect 4): fewer views were paired with other views' poses."""
    views = [view(k) for k in range(5)][:many]
    drawn = draw_pixels([views, views[::-1]], 200, np.random.default_rng(0))
    owners = set()
    for sample in range(2):
        for k in range(200):
            owner = next(
                v for v in views
                if np.allclose(v.picture.T_world_camera, drawn.T_world_camera[sample, k], atol=1e-6)
            )  # fmt: skip
            owners.add(owner.name)
            column, row = drawn.pixels[sample, k].int().tolist()
            np.testing.assert_allclose(drawn.intrinsics[sample, k], owner.picture.intrinsics, rtol=1e-6)
            np.testing.assert_allclose(drawn.rgb[sample, k], owner.picture.rgb[row, column] / 255, atol=1e-6)
            assert drawn.depth[sample, k].item() == pytest.approx(owner.picture.depth[row, column], abs=1e-6)
    assert len(owners) == many


def test_features_are_read_between_their_cells():
    one = view(0, 16)
    one.feature[:] = np.arange(4)[None, :, None]  # grows with the column, one cell per four pixels
    seen = whole_view(one).feature[0].view(16, 16, 6)
    expected = ((np.arange(16) + 0.5) / 4 - 0.5).clip(0, 3)
    np.testing.assert_allclose(seen[3, :, 2], expected, atol=1e-3)
    one.feature[:] = np.arange(4)[:, None, None]
    np.testing.assert_allclose(whole_view(one).feature[0].view(16, 16, 6)[:, 5, 0], expected, atol=1e-3)


def test_what_is_wrong_with_a_view_is_one_line():
    lost = view(1)
    lost.picture.T_world_camera = None
    with pytest.raises(InputError, match="view 1: it has no pose"):
        lost.check()
    broken = view(2)
    broken.picture.depth[3, 4] = np.nan
    with pytest.raises(InputError, match="view 2: depth is nan at row 3, column 4"):
        broken.check()
    with pytest.raises(InputError, match=r"features must be \[h, w, 8\], not \[3, 3, 6\]"):
        view(3).check(channels=8)
    view(4).check(channels=6)
