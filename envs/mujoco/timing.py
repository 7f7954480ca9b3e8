"""When to be where on a joint path: the fastest passage under limits of joint velocity and acceleration."""

from __future__ import annotations

import numpy as np

SPEED_LIMITS = np.array([1.3, 1.3, 1.3, 1.3, 1.6, 1.6, 1.6])  # rad/s: 60 % of the real arm's
ACCELERATION_LIMITS = np.full(7, 7.0)  # rad/s²: brisk, and well within the servos' torque
_SPACING = 0.02  # radians between the samples of a path


def time_path(path: np.ndarray, time_step: float, speed: float = 1.0) -> np.ndarray:
    """Positions at every time step along a polyline of joint positions, at rest at both ends.

    A corner is passed as fast as the acceleration limit allows within one sample's length, so a path of many small
    bends (a straight line of the tool) is passed smoothly and a sharp corner slowly.

    Args:
        path: [N, 7] radians, N >= 2, beginning with the present position.
        time_step: seconds.
        speed: fraction of the speed limits.

    Returns:
        [T, 7] positions after 1..T time steps; the last is the path's end. Empty if the path has no length.
    """
    samples = _resample(np.asarray(path, float))
    if len(samples) < 2:
        return np.zeros((0, 7))
    steps = np.diff(samples, axis=0)
    lengths = np.abs(steps).max(axis=1)
    directions = np.abs(steps) / lengths[:, None]
    speed_of_edge = (speed * SPEED_LIMITS / np.maximum(directions, 1e-9)).min(axis=1)
    acceleration = (ACCELERATION_LIMITS / np.maximum(directions, 1e-9)).min(axis=1)

    bends = np.abs(np.diff(steps / lengths[:, None], axis=0)).max(axis=1)
    corner = np.sqrt(ACCELERATION_LIMITS[0] * np.minimum(lengths[1:], lengths[:-1]) / np.maximum(bends, 1e-9))
    limit = np.concatenate([[0.0], np.minimum(np.minimum(speed_of_edge[1:], speed_of_edge[:-1]), corner), [0.0]])
    for i in range(len(lengths)):  # no faster than accelerating from the sample before allows
        limit[i + 1] = min(limit[i + 1], np.sqrt(limit[i] ** 2 + 2 * acceleration[i] * lengths[i]))
    for i in reversed(range(len(lengths))):  # nor than braking for the sample after
        limit[i] = min(limit[i], np.sqrt(limit[i + 1] ** 2 + 2 * acceleration[i] * lengths[i]))

    mean_speed = (limit[1:] + limit[:-1]) / 2
    times = np.concatenate([[0.0], np.cumsum(lengths / mean_speed)])
    count = max(1, int(np.ceil(times[-1] / time_step)))
    ticks = np.arange(1, count + 1) * (times[-1] / count)
    return np.stack([np.interp(ticks, times, samples[:, joint]) for joint in range(samples.shape[1])], axis=1)


def _resample(path: np.ndarray) -> np.ndarray:
    """The same polyline with samples at most `_SPACING` apart and none twice."""
    samples = [path[0]]
    for goal in path[1:]:
        start = samples[-1]
        length = np.abs(goal - start).max()
        if length < 1e-6:
            continue
        count = max(2, int(np.ceil(length / _SPACING)))  # at least one sample between, to gather speed
        samples += [start + (goal - start) * k / count for k in range(1, count + 1)]
    return np.array(samples)
