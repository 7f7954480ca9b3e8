"""Takes become demonstrations: the frames, poses and key-frames of what the simulator did come back out of its bag."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from demos.bags.bag import Bag, BagWriter
from demos.bags.contact import is_close, with_contact
from demos.bags.convert import convert, demonstrate, find_bags
from demos.bags.take import Frame, faster, with_speeds, without_pauses
from demos.dataset import KeyframeDataset
from demos.keyframes import find_keyframes
from demos.store import open_episode
from demos.transitions import Conventions
from envs.interface import Observation
from manifield.configuration import compose
from manifield.errors import InputError
from tests.demos.bags.twin import START, STEP, messages, play, robot, write_bag

CAMERAS = ("front", "wrist")
SIZE = 48
ROBOT = robot(CAMERAS, SIZE)
TAKE = {"rate": 20.0, "speedup": 1.0, "start": 0.0, "end": None, "pauses": True, "contact": 0.0, "depth_bits": 24}


@pytest.fixture(scope="module")
def episode() -> tuple[list[Observation], list[int]]:
    return play(CAMERAS, SIZE)


@pytest.fixture(scope="module")
def bag(episode: tuple[list[Observation], list[int]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bags") / "push_0"
    return write_bag(path, episode[0], task="push_buttons", instruction="push the maroon button\npress it")


def test_frames_and_keyframes_come_back(episode: tuple[list[Observation], list[int]], bag: Path) -> None:
    frames, ends = episode
    with Bag(bag) as opened:
        demonstration = demonstrate(opened, ROBOT, TAKE)
    assert len(demonstration.observations) == len(frames)
    assert demonstration.keyframes == keyframes_of(frames)
    assert len(demonstration.keyframes) == len(ends)
    for found, true in zip(demonstration.observations, frames, strict=True):
        assert np.allclose(found.joint_positions, true.joint_positions)
        assert np.allclose(found.joint_velocities, true.joint_velocities)
        assert np.allclose(found.gripper_pose[:3], true.gripper_pose[:3], atol=1e-9)
        assert abs(found.gripper_pose[3:] @ true.gripper_pose[3:]) > 1 - 1e-9
        assert found.gripper_open == true.gripper_open
        assert np.allclose(found.gripper_joint_positions, true.gripper_joint_positions.mean(), atol=2e-3)
        for name in CAMERAS:
            ours, theirs = found.cameras[name], true.cameras[name]
            assert np.array_equal(ours.rgb, theirs.rgb)
            assert np.allclose(ours.depth, theirs.depth, atol=1e-6)
            assert np.allclose(ours.T_world_camera, theirs.T_world_camera, atol=1e-9)
            assert np.allclose(ours.intrinsics, theirs.intrinsics)
            assert (ours.near, ours.far) == (0.01, 4.5)


@pytest.mark.parametrize("packed", [False, True])
def test_depth_in_millimetres(episode: tuple[list[Observation], list[int]], tmp_path: Path, packed: bool) -> None:
    frames = episode[0][:25]
    path = write_bag(tmp_path / "take", frames, "16UC1", packed)
    described = robot(CAMERAS, SIZE, near=0.05, far=3.0)
    described = replace(described, topics=replace(described.topics, compressed=packed))
    with Bag(path) as opened:
        found = demonstrate(opened, described, TAKE).observations
    for ours, theirs in zip(found, frames, strict=True):
        seen, true = ours.cameras["front"].depth, theirs.cameras["front"].depth
        near = true < 2.999
        assert np.abs(seen - true)[near].max() < 0.0006
        assert (seen[~near & (true > 3.001)] == 3.0).all()  # beyond the range: at its end, where nothing is looked for


def keyframes_of(observations: Sequence[Observation]) -> list[int]:
    """What the rule finds."""
    return find_keyframes(
        np.array([o.joint_velocities for o in observations]), np.array([o.gripper_open for o in observations])
    )


def settings(tmp_path: Path, *words: str):  # type: ignore[no-untyped-def]
    """The verb's config."""
    return compose("convert", ["bags=none", f"data={tmp_path / 'data'}", *words])


def test_a_demonstration_is_written_once_and_trains(
    episode: tuple[list[Observation], list[int]], bag: Path, tmp_path: Path
) -> None:
    config = settings(tmp_path, "take.contact=0.03", "variation=4")
    words = convert(bag, config, ROBOT)
    folder = tmp_path / "data" / "push_buttons" / "all_variations" / "episodes" / "episode0"
    assert str(folder) in words and "push the maroon button" in words
    assert "is" in convert(bag, config, ROBOT) and "already" in convert(bag, config, ROBOT)
    stored = open_episode(folder)
    assert stored.descriptions == ["push the maroon button", "press it"]
    assert stored.task == "push_buttons" and stored.variation == 4 and stored.cameras == CAMERAS
    keyframes = find_keyframes(stored.joint_velocities, stored.gripper_open)
    facts = json.loads((folder / "manifield.json").read_text())
    assert keyframes == facts["keyframes"] and len(keyframes) == len(episode[1])
    for number, end in zip(keyframes, episode[1], strict=True):
        assert np.allclose(stored.gripper_pose[number][:3], episode[0][end].gripper_pose[:3], atol=0.002)

    class Sight:
        low, high, cameras, spacing = (-0.3, -0.5, 0.6), (0.7, 0.5, 1.6), None, 0.007

    dataset = KeyframeDataset([stored], Sight(), Conventions())
    assert len(dataset) >= len(keyframes)
    sample = dataset[0]
    assert len(sample.points) > 200 and np.isfinite(sample.points).all()
    assert sample.descriptions == stored.descriptions and sample.ignore_collisions is not None
    again = write_bag(tmp_path / "push_1", [replace(o) for o in episode[0]], task="push_buttons", instruction="x")
    assert "already" in convert(again, config, ROBOT)  # the same take under another name


def test_pauses_of_a_person_add_no_keyframes(episode: tuple[list[Observation], list[int]], tmp_path: Path) -> None:
    frames, ends = episode
    paused: list[Observation] = []
    for number, frame in enumerate(frames):
        paused += [frame] * (30 if number in (0, *ends) else 1)
    path = write_bag(tmp_path / "slow", paused)
    with Bag(path) as opened:
        waiting = demonstrate(opened, ROBOT, TAKE)
    with Bag(path) as opened:
        brisk = demonstrate(opened, ROBOT, {**TAKE, "pauses": False})
    assert len(waiting.keyframes) > len(ends)
    assert len(brisk.keyframes) == len(ends)
    for number, end in zip(brisk.keyframes, ends, strict=True):
        assert np.allclose(brisk.observations[number].gripper_pose, frames[end].gripper_pose, atol=1e-3)
        assert brisk.observations[number].gripper_open == frames[end].gripper_open


def test_gaps_and_missing_topics_are_named(
    episode: tuple[list[Observation], list[int]], bag: Path, tmp_path: Path
) -> None:
    with Bag(bag) as opened, pytest.raises(InputError, match="nothing on /overhead/color/image_raw"):
        demonstrate(opened, robot((*CAMERAS, "overhead"), SIZE), TAKE)
    frames = episode[0]
    with BagWriter(tmp_path / "gap") as writer:
        for topic, message, time in messages(frames[:60]):
            if not (topic.startswith("/wrist/color/image") and 20 <= (time - START) // STEP < 30):
                writer.write(topic, message, time)
    with Bag(tmp_path / "gap") as opened, pytest.raises(InputError, match=r"a gap at 1\.\d+ s: stale: wrist") as caught:
        demonstrate(opened, ROBOT, TAKE)
    assert "take.start" in str(caught.value)
    with Bag(tmp_path / "gap") as opened:
        whole = demonstrate(opened, ROBOT, {**TAKE, "end": 0.9})
    assert 15 <= len(whole.observations) <= 20


def test_a_take_without_a_robot_that_moves_is_refused(
    episode: tuple[list[Observation], list[int]], tmp_path: Path
) -> None:
    path = write_bag(tmp_path / "still", [episode[0][0]] * 20)
    with Bag(path) as opened, pytest.raises(InputError, match="hardly moves"):
        demonstrate(opened, ROBOT, TAKE)


def test_words_are_asked_for(bag: Path, episode: tuple[list[Observation], list[int]], tmp_path: Path) -> None:
    path = write_bag(tmp_path / "mute", episode[0])
    with pytest.raises(InputError, match="task="):
        convert(path, settings(tmp_path), ROBOT)
    with pytest.raises(InputError, match="instruction="):
        convert(path, settings(tmp_path, "task=push_buttons"), ROBOT)
    convert(path, settings(tmp_path, "task=push_buttons", "instruction='push  it'"), ROBOT)
    folder = tmp_path / "data" / "push_buttons" / "all_variations" / "episodes" / "episode0"
    assert open_episode(folder).descriptions == ["push it"]


def test_folders_of_bags(bag: Path, tmp_path: Path) -> None:
    assert find_bags(str(bag.parent)) == [bag]
    assert find_bags([str(bag), "x.bag"]) == [bag, Path("x.bag")]
    with pytest.raises(InputError, match="neither a bag nor a folder"):
        find_bags(str(tmp_path))


def still_frame(speed: float, is_open: bool, place: float) -> Observation:
    """A frame of an arm at a place, for the rule of pauses."""
    return Observation(
        cameras={},
        joint_positions=np.full(7, place),
        joint_velocities=np.full(7, speed),
        gripper_pose=np.array([place, 0, 1, 0, 0, 0, 1.0]),
        gripper_open=float(is_open),
        gripper_joint_positions=np.full(2, 0.04 * is_open),
    )


@pytest.mark.parametrize("pause", [1, 3, 4, 6, 9, 40])
@pytest.mark.parametrize("grasp", [False, True])
def test_one_keyframe_for_every_standstill(pause: int, grasp: bool) -> None:
    """Wait, go, wait (or grasp), go, let go, wait: however long people wait."""
    frames = [still_frame(0.0, True, 0.0)] * pause
    frames += [still_frame(0.5, True, 0.1 * k) for k in range(1, 8)]
    frames += [still_frame(0.0, True, 0.8)] * pause
    if grasp:
        frames += [still_frame(0.0, False, 0.8)] * pause
    frames += [still_frame(0.5, not grasp, 0.8 + 0.1 * k) for k in range(1, 8)]
    frames += [still_frame(0.0, not grasp, 1.6)] * pause
    kept = without_pauses([Frame(o, START + k * STEP, START + k * STEP) for k, o in enumerate(frames)])
    observations = [frame.observation for frame in kept]
    found = keyframes_of(observations)
    assert [round(float(observations[k].gripper_pose[0]), 3) for k in found] == [0.8, 1.6]
    assert [observations[k].gripper_open > 0.5 for k in found] == [not grasp, not grasp]


def test_speeds_from_positions_and_of_faster_takes() -> None:
    frames = [Frame(still_frame(0.0, True, 0.02 * k), START + k * STEP, 0) for k in range(5)]
    with_them = with_speeds(frames)
    assert np.allclose([f.observation.joint_velocities for f in with_them], 0.4)
    assert np.allclose([f.observation.joint_velocities for f in faster(with_them, 2.5)], 1.0)
    assert with_speeds(with_them) is with_them


def test_goals_near_things_are_in_contact(episode: tuple[list[Observation], list[int]]) -> None:
    frames, ends = episode
    low, high = (-0.3, -0.5, 0.6), (0.7, 0.5, 1.6)
    flags = flags_of(frames, ends)
    labelled = with_contact(frames, ends, 0.03, low, high)
    told = [bool(labelled[end - 1].ignore_collisions) for end in ends]
    assert told == flags  # the expert's own: above the button free, down to it in contact
    assert not is_close(frames[0], frames[0].gripper_pose[:3], 0.03, low, high)  # its own hand is no obstacle


def flags_of(frames: Sequence[Observation], ends: Sequence[int]) -> list[bool]:
    """Which of the expert's actions may touch things."""
    return [bool(frames[end].ignore_collisions) for end in ends]
