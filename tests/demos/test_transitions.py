"""Transitions: the published list entry by entry on request, and without its faults by default."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from agents.actions import discretize_position, discretize_rotation
from demos.store import Episode, episode_directory, open_episode, write_episode
from demos.transitions import PERACT, Conventions, low_dim_state, make_transitions, time_feature
from manifield.errors import InputError

LOW, HIGH = np.array([-0.3, -0.5, 0.6]), np.array([0.7, 0.5, 1.6])


@pytest.fixture(scope="module")
def reference(real_data: Path) -> list[tuple[Episode, list[dict]]]:
    """Real episodes with what PerAct's own loader makes of them."""
    published = json.loads((real_data / "reference" / "peract_transitions.json").read_text())
    folder = real_data / "rlbench" / "open_drawer" / "all_variations" / "episodes"
    pairs = []
    for name, content in published.items():
        episode = open_episode(folder / name)
        assert (len(episode), episode.variation) == (content["length"], content["variation"])
        assert episode.descriptions[0] == content["description"]
        pairs.append((episode, content["transitions"]))
    return pairs


@pytest.fixture
def moving(tmp_path: Path, observation) -> Episode:
    """30 frames with the key-frames 12 (gripper closes), 13 (opens), 29 (end); the flag is set in frames 13 to 20."""
    frames = [observation(index) for index in range(30)]
    for index, frame in enumerate(frames):
        frame.joint_velocities[:] = 1.0
        frame.gripper_open = float(index != 12)
        frame.ignore_collisions = 13 <= index <= 20
    return open_episode(write_episode(episode_directory(tmp_path, "move", 0), frames, ["move"], 0))


# Agreement with the published loader


def test_published_list_entry_by_entry(reference) -> None:
    for episode, published in reference:
        transitions = make_transitions(episode, PERACT)
        assert len(transitions) == len(published)
        for ours, theirs in zip(transitions, published, strict=True):
            assert (ours.first_frame, ours.source, ours.target) == (
                theirs["first_frame"],
                theirs["source"],
                theirs["target"],
            )
            assert ours.terminal == theirs["terminal"] and ours.weight == 1.0
            assert ours.ignore_collisions == theirs["ignore_collisions_stored"]
            state = low_dim_state(episode.low_dim(ours.source), ours.time)
            assert state.dtype == np.float32
            np.testing.assert_array_equal(state, np.float32(theirs["low_dim_state"]))
            action = [*ours.target_pose, ours.target_gripper_open]
            np.testing.assert_array_equal(np.float32(action), np.float32(theirs["action"]))


def test_published_discrete_actions(reference) -> None:
    for episode, published in reference:
        for ours, theirs in zip(make_transitions(episode, PERACT), published, strict=True):
            cell = discretize_position(ours.target_pose[:3], LOW, HIGH, (100, 100, 100))
            assert list(cell) == theirs["trans_index"]
            rotation = [*discretize_rotation(ours.target_pose[3:]), ours.target_gripper_open]
            assert rotation == theirs["rot_grip_index"]


# Where the published code goes wrong (design/gnfactor.md), numbers 6 to 8


def test_defect_6_collision_flag_is_that_of_the_motion_to_the_target(reference) -> None:
    wrong = 0
    for episode, published in reference:
        ours = make_transitions(episode, Conventions(weighting="duplicates"))
        for transition, theirs in zip(ours, published, strict=True):
            assert transition.ignore_collisions == theirs["ignore_collisions_get_action"]
            wrong += theirs["ignore_collisions_get_action"] != theirs["ignore_collisions_stored"]
    assert wrong > 0, "the published flag differs, else this test shows nothing"


def test_defect_6_on_a_made_up_episode(moving: Episode) -> None:
    flags = [t.ignore_collisions for t in make_transitions(moving, Conventions(every=None))]
    assert flags == [False, False, False]  # frames 11, 12 and 28
    current = Conventions(every=None, collision_label="current")
    assert [t.ignore_collisions for t in make_transitions(moving, current)] == [False, False, True]  # 0, 12 and 13


def test_defect_7_one_time_feature_whatever_the_start(moving: Episode) -> None:
    for convention in (Conventions(every=1), Conventions(every=10), Conventions(every=None)):
        times: dict[tuple[int, int], float] = {}
        for t in make_transitions(moving, convention):
            assert t.time == pytest.approx(1 - 2 * t.step / 24)
            times[t.source, t.target] = t.time
        assert times[13, 29] == pytest.approx(1 - 4 / 24)
    late = [t for t in make_transitions(moving, Conventions(every=10)) if t.first_frame == 20]
    assert [(t.source, t.step) for t in late] == [(20, 2)]
    published = [t for t in make_transitions(moving, PERACT) if t.first_frame == 20]
    assert [t.time for t in published] == [1.0]  # as if nothing had happened yet


def test_defect_8_distinct_transitions_and_explicit_weights(reference, moving: Episode) -> None:
    for episode in [episode for episode, _ in reference] + [moving]:
        everything = make_transitions(episode, Conventions(weighting="duplicates"))
        repeats = Counter((t.source, t.target) for t in everything)
        assert max(repeats.values()) > 1
        distinct = make_transitions(episode)
        assert [t.weight for t in distinct] == [1.0] * len(repeats)
        counted = make_transitions(episode, Conventions(weighting="count"))
        assert {(t.source, t.target): t.weight for t in counted} == repeats
        assert sum(t.weight for t in counted) == len(everything)


def test_defect_8_published_numbers(reference) -> None:
    assert [len(make_transitions(episode, PERACT)) for episode, _ in reference] == [29, 26, 26, 28, 27]
    assert [len(make_transitions(episode)) for episode, _ in reference] == [14, 13, 13, 14, 13]


# The rest


def test_without_demo_augmentation(moving: Episode) -> None:
    transitions = make_transitions(moving, Conventions(every=None))
    assert [(t.source, t.target) for t in transitions] == [(0, 12), (12, 13), (13, 29)]
    assert [(t.step, t.steps) for t in transitions] == [(0, 3), (1, 3), (2, 3)]
    assert [t.terminal for t in transitions] == [False, False, True]
    assert [t.target_gripper_open for t in transitions] == [False, True, True]
    np.testing.assert_array_equal(transitions[0].target_pose, moving.gripper_pose[12])


def test_a_start_on_a_keyframe_goes_to_the_next(moving: Episode) -> None:
    transitions = make_transitions(moving, Conventions(every=12))
    assert [(t.first_frame, t.source, t.target) for t in transitions] == [
        (0, 0, 12),
        (0, 12, 13),
        (0, 13, 29),
        (24, 24, 29),
    ]


def test_old_episodes_have_no_collision_label(real_data: Path) -> None:
    episode = open_episode(real_data / "rlbench/reach_target/variation0/episodes/episode0")
    assert {t.ignore_collisions for t in make_transitions(episode)} == {None}


def test_time_feature_stays_in_its_range() -> None:
    assert [time_feature(step, 3) for step in range(5)] == [1.0, 0.0, -1.0, -1.0, -1.0]


def test_low_dim_state_clips_the_fingers(observation) -> None:
    frame = observation(0)
    frame.gripper_joint_positions = np.array([-0.01, 0.05])
    np.testing.assert_array_equal(low_dim_state(frame, 0.5), np.float32([1.0, 0.0, 0.04, 0.5]))


@pytest.mark.parametrize(
    "wrong",
    [
        {"weighting": "cuont"},
        {"collision_label": "next"},
        {"time_feature": "none"},
        {"every": 0},
        {"horizon": 1},
        {"time_feature": "peract"},
    ],
)
def test_conventions_that_mean_nothing(wrong: dict) -> None:
    with pytest.raises(InputError):
        Conventions(**wrong)


def test_one_frame_is_no_demonstration(tmp_path: Path, observation) -> None:
    path = write_episode(episode_directory(tmp_path, "stay", 0), [observation(0)], ["stay"], 0)
    with pytest.raises(InputError, match="hold no key-frame"):
        make_transitions(open_episode(path))
