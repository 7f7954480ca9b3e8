"""Discretisation and rotation labels: inverses, symmetry, and group laws."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from agents.actions import (
    HALF_TURN,
    ToolFrame,
    canonical,
    cell_centre,
    discretize_position,
    discretize_rotation,
    rotation_error,
    undiscretize_rotation,
)

LOW, HIGH = np.array([-0.3, -0.5, 0.6]), np.array([0.7, 0.5, 1.6])
angle = st.floats(-179.0, 179.0)
rotations = st.builds(lambda a, b, c: Rotation.from_euler("xyz", [a, b, c], degrees=True), angle, st.floats(-80, 80), angle)


@given(st.tuples(*[st.floats(0, 0.999)] * 3), st.tuples(*[st.integers(1, 40)] * 3))
def test_position_round_trip_within_half_a_cell(unit, shape):
    position = LOW + np.array(unit) * (HIGH - LOW)
    back = cell_centre(discretize_position(position, LOW, HIGH, shape), LOW, HIGH, shape)
    assert (np.abs(back - position) <= (HIGH - LOW) / np.array(shape) / 2 + 1e-9).all()


def test_positions_outside_go_to_the_border():
    assert discretize_position([9, -9, 1.1], LOW, HIGH, (100, 100, 100)).tolist() == [99, 0, 50]


@given(rotations)
def test_rotation_round_trip_within_the_bins(rotation):
    quaternion = rotation.as_quat()
    back = undiscretize_rotation(discretize_rotation(quaternion))
    assert np.degrees(rotation_error(back, quaternion, symmetric=False)) <= 7.6  # 2.5° on each of three axes


def test_plus_and_minus_180_degrees_are_one_bin():
    for degrees in (179.9, -179.9, 180.0):
        assert discretize_rotation(Rotation.from_euler("x", degrees, degrees=True).as_quat())[0] == 0


@given(rotations)
def test_canonical_is_one_of_the_two_equal_orientations(rotation):
    same = canonical(rotation)
    assert rotation_error(same.as_quat(), rotation.as_quat()) < 1e-6
    assert -60 - 1e-6 <= same.as_euler("xyz", degrees=True)[2] <= 120 + 1e-6


@given(rotations, rotations)
def test_rotation_error_is_symmetric_under_the_half_turn(a, b):
    first = rotation_error(a.as_quat(), b.as_quat())
    assert first == pytest.approx(rotation_error((a * HALF_TURN).as_quat(), b.as_quat()), abs=1e-6)
    assert first == pytest.approx(rotation_error(b.as_quat(), a.as_quat()), abs=1e-6)
    assert first <= np.pi / 2 + np.pi / 2 + 1e-6


@pytest.mark.parametrize("relative_yaw", [True, False])
@pytest.mark.parametrize("symmetric", [True, False])
@given(goal=rotations, tool=rotations)
def test_tool_frame_decodes_what_it_encodes(relative_yaw, symmetric, goal, tool):
    frame = ToolFrame(relative_yaw, symmetric)
    label = frame.encode(goal.as_quat(), tool.as_quat())
    assert ((label >= 0) & (label < 72)).all()
    assert rotation_error(frame.decode(label, tool.as_quat()), goal.as_quat(), symmetric) < 1e-5


@given(goal=rotations, tool=rotations, yaw=angle)
def test_relative_labels_do_not_change_when_the_scene_turns(goal, tool, yaw):
    """The point of relative yaw: turning tool and goal together leaves the label alone, up to the half turn."""
    frame = ToolFrame(True, True)
    turn = Rotation.from_euler("z", yaw, degrees=True)
    label = frame.encode(goal.as_quat(), tool.as_quat())
    turned = frame.decode(label, (turn * tool).as_quat())
    error = rotation_error(turned, (turn * goal).as_quat())
    # Where canonicalisation flips the tool, the label measures from the other of two equal orientations.
    flipped = rotation_error(turned, (turn * Rotation.from_euler("z", np.pi) * goal).as_quat())
    assert min(error, flipped) < 1e-5
