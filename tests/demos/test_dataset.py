"""Samples from episodes: what is decoded when, and what is refused."""

from types import SimpleNamespace

import numpy as np
import pytest

from demos.dataset import KeyframeDataset, make_sample
from demos.memory import GIB, Memory
from demos.store import Episode, open_episode
from demos.transitions import Conventions
from manifield.errors import InputError

RULES = Conventions(every=None, horizon=10)


def sight(**changes):
    values = {"low": (-0.3, -0.5, 0.6), "high": (0.7, 0.5, 1.6), "cameras": None, "spacing": 0.0}
    return SimpleNamespace(**{**values, **changes})


@pytest.fixture
def root(real_data):
    return real_data / "rlbench"


def test_real_episodes_of_both_schemas_give_the_same_kinds_of_samples(root):
    dataset = KeyframeDataset.open(root, sight(cameras=("front", "wrist")), RULES)
    assert dataset.tasks == ["open_drawer", "reach_target"]
    for task in dataset.tasks:
        sample = dataset[dataset.task_of.index(task)]
        assert sample.points.shape == sample.colours.shape and sample.points.dtype == np.float32
        assert sample.low_dim.shape == (4,) and sample.descriptions
    old = dataset[dataset.task_of.index("reach_target")]
    assert old.ignore_collisions is None  # data that predates the flag teaches nothing about it
    assert dataset[dataset.task_of.index("open_drawer")].ignore_collisions is False


def test_only_the_frames_that_are_asked_for_are_decoded(root, monkeypatch):
    seen = []
    decode = Episode.view

    def note(self, index, camera, masks):
        seen.append((index, camera, masks))
        return decode(self, index, camera, masks)

    monkeypatch.setattr(Episode, "view", note)
    chosen = {"tasks": "open_drawer", "select": [0], "memory": Memory(GIB)}
    dataset = KeyframeDataset.open(root, sight(cameras=("front",)), RULES, **chosen)
    assert seen == []
    dataset[1]
    assert seen == [(70, "front", False)]
    dataset[1]  # from memory now
    assert len(seen) == 1


def test_selecting_episodes(root):
    dataset = KeyframeDataset.open(root, sight(), RULES, tasks=["open_drawer"], select=[4])
    assert [p.name for p in dataset.episodes] == ["episode4"] and len(dataset) == 3
    assert "1 episodes, 3 transitions (open_drawer 3)" in dataset.summary()
    with pytest.raises(InputError, match="no episode 9, only 0 to 4"):
        KeyframeDataset.open(root, sight(), RULES, tasks="open_drawer", select=[0, 9])
    assert len(KeyframeDataset.open(root, sight(), RULES, tasks="open_drawer", select=4)) == 3


def test_a_goal_outside_the_box_is_named(root):
    with pytest.raises(InputError, match=r"episode0 frame 124.*outside.*agent\.high"):
        KeyframeDataset.open(root, sight(high=(0.7, 0.5, 1.2)), RULES, tasks="open_drawer", select=[0])


def test_a_missing_camera_is_named(root):
    with pytest.raises(InputError, match="no camera 'side', only front"):
        KeyframeDataset.open(root, sight(cameras=("side",)), RULES, tasks="open_drawer")


def test_an_observation_without_goal_becomes_a_sample(root):
    observation = open_episode(root / "open_drawer/all_variations/episodes/episode0").observation(0, ["front"])
    sample = make_sample(observation, 1.0, sight(), ["open the top drawer"])
    assert sample.low_dim[3] == 1 and len(sample.points) > 1000
    assert np.allclose(sample.tool_position, observation.gripper_pose[:3])
