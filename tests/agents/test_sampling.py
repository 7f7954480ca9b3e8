"""Which samples a step sees, whoever asks, and how many of them stay in memory."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from agents.sampling import Sampler
from demos.dataset import KeyframeDataset
from demos.memory import Memory
from demos.store import episode_directory, find_episodes, open_episode, write_episode
from demos.transitions import Conventions
from envs.interface import CameraView
from manifield.errors import InputError

SIGHT = SimpleNamespace(low=(-0.3, -0.5, 0.7), high=(0.7, 0.5, 1.4), cameras=None, spacing=0.02)
AUGMENTATION = {"yaw": 45.0, "shift": [0.08, 0.08, 0.02], "points": 50}


@pytest.fixture
def dataset(tiny_data) -> KeyframeDataset:
    return KeyframeDataset.open(tiny_data, SIGHT, Conventions(every=None, horizon=10))


@pytest.mark.parametrize("batch", [2, 3, 5])
def test_an_epoch_has_every_transition_once(dataset, batch):
    sampler = Sampler(dataset, 0, batch, 3.0, "epochs")
    drawn = [number for step in range(4 * len(dataset)) for number in sampler.choose(step)]
    epochs = np.array(drawn).reshape(-1, len(dataset))
    assert (np.sort(epochs, axis=1) == np.arange(len(dataset))).all()
    assert len({tuple(epoch) for epoch in epochs}) > 1
    assert [n for step in (7, 8) for n in sampler.choose(step)] == drawn[7 * batch : 9 * batch]


@pytest.mark.parametrize("sampling", ["epochs", "balanced"])
def test_two_processes_see_together_what_one_sees(dataset, sampling):
    sampler = Sampler(dataset, 3, 4, 3.0, sampling)
    for step in range(3):
        whole = sampler.draw(step, AUGMENTATION, SIGHT)
        parts = [sampler.draw(step, AUGMENTATION, SIGHT, range(rank, 4, 2)) for rank in range(2)]
        together = [parts[place % 2][place // 2] for place in range(4)]
        assert [s.name for s in together] == [s.name for s in whole] == sampler.names(step)
        assert all((a.points == b.points).all() for a, b in zip(together, whole, strict=True))


def test_another_way_to_sample_is_refused(dataset):
    with pytest.raises(InputError, match="unknown sampling 'epoch': did you mean epochs"):
        Sampler(dataset, 0, 2, 1.0, "epoch")


def test_memory_is_bounded_and_changes_no_sample(dataset, tiny_data):
    one = dataset[0]
    room = 2 * (one.points.nbytes + one.colours.nbytes) + 1000
    memory = Memory(room)
    bounded = KeyframeDataset.open(tiny_data, SIGHT, Conventions(every=None, horizon=10), memory=memory)
    for number in range(len(dataset)):
        assert (bounded[number].points == dataset[number].points).all()
    assert 0 < memory.used <= room
    kept = [number for number in range(len(bounded)) if bounded[number] is bounded[number]]
    assert 0 < len(kept) < len(bounded)
    assert dataset[0] is not dataset[0]  # without memory nothing is kept


def test_what_is_held_back_is_left_out(dataset, tiny_data):
    rules = Conventions(every=None, horizon=10)
    rest = KeyframeDataset.open(tiny_data, SIGHT, rules, leave_out=[1])
    held = KeyframeDataset.open(tiny_data, SIGHT, rules, select=[1])
    assert {p.name for p in rest.episodes} == {"episode0"} and {p.name for p in held.episodes} == {"episode1"}
    assert len(rest) + len(held) == len(dataset)
    with pytest.raises(InputError, match="no episode is left beside episode0, episode1"):
        KeyframeDataset.open(tiny_data, SIGHT, rules, leave_out=[0, 1])


def test_episodes_with_other_cameras_or_pictures_are_named(tiny_data, tmp_path):
    episode = open_episode(find_episodes(tiny_data, "open_drawer")[0])
    frames = [episode.observation(number) for number in range(len(episode))]
    mixed = [replace(f, cameras={**f.cameras, "wrist": f.cameras["front"]}) for f in frames]
    small = CameraView(np.zeros((8, 8, 3), np.uint8), np.ones((8, 8), np.float32), np.diag([9.0, 9, 1]), np.eye(4))
    small.intrinsics[:2, 2] = 3.5
    shrunk = [replace(f, cameras={"front": small}) for f in frames]
    rules = Conventions(every=None, horizon=10)
    for name, others, message in (
        ("mixed", mixed, r"episode1 has the cameras front, wrist, other episodes only front: name the ones to use"),
        ("shrunk", shrunk, r"episode1 has pictures of \(8, 8\), .*episode0 of \(16, 16\).*: train on one size"),
    ):
        for number, content in enumerate((frames, others)):
            write_episode(episode_directory(tmp_path / name, "open_drawer", number), content, ["open"], 0)
        with pytest.raises(InputError, match=message):
            KeyframeDataset.open(tmp_path / name, SIGHT, rules)
    named = SimpleNamespace(**{**vars(SIGHT), "cameras": ("front",)})
    assert len(KeyframeDataset.open(tmp_path / "mixed", named, rules)) > 0
