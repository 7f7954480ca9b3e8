"""PerAct's key-frame rule."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from demos.keyframes import find_keyframes
from demos.store import find_episodes, open_episode


def keyframes(speeds: list[float], gripper: list[int] | None = None) -> list[int]:
    velocities = np.zeros((len(speeds), 7))
    velocities[:, 3] = speeds
    return find_keyframes(velocities, np.array([1] * len(speeds) if gripper is None else gripper, float))


def test_real_episodes(real_data: Path) -> None:
    found = []
    for path in find_episodes(real_data / "rlbench", "open_drawer"):
        episode = open_episode(path)
        found.append(find_keyframes(episode.joint_velocities, episode.gripper_open))
    assert found == [[70, 85, 124], [64, 77, 107], [62, 75, 104], [68, 81, 113], [65, 80, 117]]


def test_the_last_frame_and_nothing_else() -> None:
    assert keyframes([1.0] * 10) == [9]


def test_a_stop_counts_once() -> None:
    assert keyframes([1.0] * 6 + [0.0] * 4 + [1.0] * 6) == [6, 15]


def test_a_long_stop_counts_again_after_four_frames() -> None:
    assert keyframes([1.0] * 6 + [0.0] * 7 + [1.0] * 6) == [6, 11, 18]


@pytest.mark.parametrize(("speed", "stops"), [(0.1, True), (-0.1, True), (0.1001, False), (-0.1001, False)])
def test_every_joint_must_rest(speed: float, stops: bool) -> None:
    assert (6 in keyframes([1.0] * 6 + [speed] + [1.0] * 6)) is stops


def test_a_change_of_the_gripper_counts_either_way() -> None:
    assert keyframes([1.0] * 9, [1, 1, 1, 0, 0, 0, 1, 1, 1]) == [3, 6, 8]


def test_no_stop_beside_a_change_of_the_gripper() -> None:
    # At rest all the time: 2 to 4 are too close to the change at 3; 5 is the first that counts.
    assert keyframes([0.0] * 3 + [0.0] * 6 + [1.0] * 3, [1] * 3 + [0] * 9)[:2] == [3, 5]


def test_the_last_but_one_gives_way_to_the_last() -> None:
    assert keyframes([1.0] * 9, [1] * 7 + [0] * 2) == [7 + 1]
    assert keyframes([1.0] * 9, [1] * 6 + [0] * 3) == [6, 8]


def test_the_last_but_one_is_no_stop() -> None:
    assert keyframes([1.0] * 7 + [0.0] * 2) == [8]


@pytest.mark.parametrize("length", [0, 1])
def test_too_short(length: int) -> None:
    assert keyframes([0.0] * length) == []


def test_two_frames() -> None:
    assert keyframes([0.0, 0.0]) == [1]


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.05, 0.2, 1.0]), st.sampled_from([0, 1])), min_size=2, max_size=40))
def test_the_rule_in_other_words(frames: list[tuple[float, int]]) -> None:
    speeds, gripper = [speed for speed, _ in frames], [state for _, state in frames]
    found, end = keyframes(speeds, gripper), len(frames) - 1
    assert found == sorted(set(found)) and found[-1] == end and 0 not in found
    changes = {i for i in range(1, len(frames)) if gripper[i] != gripper[i - 1]}
    assert changes - {end - 1} <= set(found)
    stops = [i for i in found if i not in changes and i != end]
    assert all(speeds[i] <= 0.1 for i in stops)
    assert all(b - a > 4 for a, b in zip(stops, stops[1:], strict=False))
