"""Timed paths keep to the limits and end where they should."""

from __future__ import annotations

import numpy as np
import pytest

from envs.mujoco.timing import ACCELERATION_LIMITS, SPEED_LIMITS, time_path

STEP = 0.002
PATHS = {
    "long": np.array([np.zeros(7), np.array([1.5, 0.3, 0, -0.2, 0, 0, 2.0])]),
    "short": np.array([np.zeros(7), np.full(7, 0.003)]),
    "corner": np.array([np.zeros(7), np.eye(7)[0], np.eye(7)[0] + np.eye(7)[3]]),
    "back and forth": np.array([np.zeros(7), 0.5 * np.ones(7), np.zeros(7)]),
}


@pytest.mark.parametrize("name", PATHS)
def test_limits_and_end(name):
    path = PATHS[name]
    timed = time_path(path, STEP)
    np.testing.assert_allclose(timed[-1], path[-1], atol=1e-12)
    positions = np.concatenate([path[:1], timed])
    speeds = np.diff(positions, axis=0) / STEP
    assert (np.abs(speeds) <= SPEED_LIMITS * 1.001).all()
    # At rest at both ends: after a first step at full acceleration, and before a last one.
    assert np.abs(speeds[[0, -1]]).max() < 0.4


def test_long_straight_motion_takes_the_trapezoids_time():
    distance, speed, acceleration = 2.0, SPEED_LIMITS[0], ACCELERATION_LIMITS[0]
    timed = time_path(np.array([np.zeros(7), distance * np.eye(7)[0]]), STEP)
    assert len(timed) * STEP == pytest.approx(distance / speed + speed / acceleration, rel=0.05)


def test_slower_by_the_fraction_asked_for():
    path = PATHS["long"]
    speeds = np.diff(time_path(path, STEP, speed=0.25), axis=0) / STEP
    assert (np.abs(speeds) <= 0.25 * SPEED_LIMITS * 1.001).all()


def test_corner_is_passed_slowly_but_a_straight_point_is_not():
    straight = np.array([np.zeros(7), np.eye(7)[0], 2 * np.eye(7)[0]])
    direct = time_path(straight[[0, 2]], STEP)
    assert len(time_path(straight, STEP)) == pytest.approx(len(direct), rel=0.02)
    turning = time_path(PATHS["back and forth"], STEP)
    speeds = np.abs(np.diff(turning, axis=0)).max(axis=1) / STEP
    at_turn = int(np.argmax(turning[:, 0]))
    assert speeds[at_turn - 2 : at_turn + 2].max() < 0.5 < 0.8 * speeds.max()


def test_no_length_no_steps():
    assert time_path(np.zeros((2, 7)), STEP).shape == (0, 7)
