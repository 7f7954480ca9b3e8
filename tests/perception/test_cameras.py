"""Camera geometry against itself and against a scene known by heart."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.cameras import back_project, intrinsics_from_fov, look_at, project

coordinate = st.floats(-1.0, 1.0)


@given(st.tuples(coordinate, coordinate, coordinate), st.integers(0, 31), st.integers(0, 47), st.floats(0.1, 3.0))
def test_project_inverts_back_project(position, row, column, depth):
    intrinsics = intrinsics_from_fov(np.radians(40), 32, 48)
    pose = look_at(np.array(position) + [3.0, 0, 1.0], np.zeros(3))
    picture = np.full((32, 48), depth, np.float32)
    uv, z = project(back_project(picture, intrinsics, pose)[row, column], intrinsics, pose)
    assert uv == pytest.approx([column, row], abs=1e-3)
    assert z == pytest.approx(depth, rel=1e-5)


def test_field_of_view_spans_the_picture():
    """The outer edges of the outer pixels (half a pixel beyond their centres) are seen at half the field of view."""
    intrinsics = intrinsics_from_fov(np.radians(60), 128, 128)
    assert np.degrees(np.arctan((127.5 - intrinsics[1, 2]) / intrinsics[1, 1])) == pytest.approx(30)
    assert intrinsics[0, 0] == pytest.approx(110.8512, abs=1e-3)  # RLBench's wrist camera


def test_look_at_is_upright_and_right_handed():
    pose = look_at(np.array([1.0, 0, 1.0]), np.zeros(3))
    assert np.linalg.det(pose[:3, :3]) == pytest.approx(1)
    assert pose[:3, 2] == pytest.approx(np.array([-1, 0, -1]) / np.sqrt(2))
    assert pose[2, 1] < 0  # the picture's down is the world's down
    assert look_at(np.array([0, 0, 2.0]), np.zeros(3))[:3, :3] @ [0, 0, 1] == pytest.approx([0, 0, -1])


def test_table_seen_from_above():
    """A flat depth picture from straight above is the plane below the camera, x and y where they belong."""
    pose = look_at(np.array([0.5, 0.25, 2.0]), np.array([0.5, 0.25, 0.0]))
    points = back_project(np.full((64, 64), 1.25, np.float32), intrinsics_from_fov(np.radians(40), 64, 64), pose)
    assert points[..., 2] == pytest.approx(0.75, abs=1e-6)
    assert points.reshape(-1, 3).mean(0)[:2] == pytest.approx([0.5, 0.25], abs=1e-6)
