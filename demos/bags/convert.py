"""`manifield convert`: takes of a teleoperated or hand-guided arm become demonstrations in RLBench's format."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from demos.bags.bag import Bag
from demos.bags.contact import with_contact
from demos.bags.take import Take, faster, with_speeds, without_pauses
from demos.keyframes import find_keyframes
from demos.writer import EXTRA, episode_directory, remove_unfinished, write_episode
from envs.interface import Observation
from envs.ros.config import RosConfig
from envs.ros.connect import robot_config
from manifield.errors import InputError, within
from manifield.files import only_writer
from manifield.progress import Progress

MANY = 15  # key-frames of a demonstration, from which on the take was probably too slow or full of pauses
BELOW = 0.05  # metres around the box that the tool may be in: things may reach to its very bottom
SOURCE = "bag_start"  # what an episode remembers of its bag: when it began


@dataclass(frozen=True)
class Demonstration:
    """observations: the frames. keyframes: their numbers. times: seconds into the bag, of each frame."""

    observations: list[Observation]
    keyframes: list[int]
    times: list[float]


def run(config: DictConfig) -> int:
    """Convert what `configs/convert.yaml` names; returns the exit code."""
    check(config)
    robot = robot_config(config.env)
    bags = find_bags(config.bags)
    with only_writer(Path(config.data), "convert", "data"), Progress("convert", len(bags), "bags") as progress:
        for path in bags:
            progress.note(convert(path, config, robot))
            progress.advance()
    print(f"look at them: manifield view {config.data}")
    return 0


def check(config: DictConfig) -> None:
    """Refuse what makes no sense in `take` and `variation`.

    Raises:
        InputError: names the key and its range.
    """
    within(config, variation=(0, 10**6))
    take: dict[str, Any] = {f"take.{name}": value for name, value in config.take.items()}
    ranges = {"rate": (1, 100), "speedup": (0.1, 20), "start": (0, 10**6), "contact": (0, 0.5), "depth_bits": (12, 24)}
    if config.take.end is not None:
        ranges["end"] = (config.take.start, 10**6)
    within(take, **{f"take.{name}": limits for name, limits in ranges.items()})


def find_bags(given: Sequence[str] | str) -> list[Path]:
    """Bags from what a user names: bags, or folders of bags.

    Raises:
        InputError: one of them is neither.
    """
    found: list[Path] = []
    for name in [given] if isinstance(given, str) else given:
        path = Path(name)
        inside = sorted(p.parent for p in path.glob("*/metadata.yaml")) + sorted(path.glob("*.bag"))
        if not path.is_dir() or (path / "metadata.yaml").is_file():
            found.append(path)  # whatever it is, opening it will tell
        elif inside:
            found += inside
        else:
            raise InputError(f"{path}: neither a bag nor a folder of bags; record some with `manifield record`")
    return found


def convert(path: Path, config: DictConfig, robot: RosConfig) -> str:
    """Write one bag's demonstration; one line about it.

    Args:
        config: of `configs/convert.yaml`, without `bags`.
    """
    with Bag(path) as bag:
        task = config.task or bag.facts.get("task")
        if not task:
            raise InputError(f"{path}: says no task: give task=…, a word like open_drawer")
        root = Path(config.data)
        index, known = _next_index(root, str(task), bag.start)
        if known is not None:
            return f"{path}: is {known} already"
        demonstration = demonstrate(bag, robot, config.take)
        words = _instructions(config.instruction, bag)
    facts = {
        "task": str(task),
        "index": index,
        "variation": config.variation,
        "frames": len(demonstration.observations),
        "keyframes": demonstration.keyframes,
        "bag": path.name,
        SOURCE: bag.start,
        "rate": config.take.rate,
        "speedup": config.take.speedup,
        "times": [round(time, 3) for time in demonstration.times],
    }
    directory = episode_directory(root, str(task), index)
    remove_unfinished(directory.parent)
    write_episode(
        directory, demonstration.observations, words, config.variation, facts, depth_bits=config.take.depth_bits
    )
    return f"{path}: {directory}, “{words[0]}”, {describe(demonstration)}"


def demonstrate(bag: Bag, robot: RosConfig, config: Mapping[str, Any] | DictConfig) -> Demonstration:
    """The demonstration in a bag. config: `configs/take/demonstration.yaml`.

    Raises:
        InputError: gaps, or nothing happens in it.
    """
    take = Take(bag, robot)
    # At `speedup` times the speed, fewer moments make up the rate.
    frames = list(take.frames(config["rate"] / config["speedup"], config["start"], config["end"]))
    frames = faster(with_speeds(frames), config["speedup"])
    if not config["pauses"]:
        frames = without_pauses(frames)
    observations = [replace(frame.observation, ignore_collisions=None) for frame in frames]
    keyframes = find_keyframes(
        np.array([o.joint_velocities for o in observations]), np.array([o.gripper_open for o in observations])
    )
    if not keyframes or _still(observations):
        raise InputError(f"{bag.path}: the arm hardly moves in it; record it again, or look at take.start and take.end")
    if config["contact"]:
        low, high = np.array(robot.limits.low) - BELOW, np.array(robot.limits.high)
        observations = with_contact(observations, keyframes, config["contact"], low, high)
    return Demonstration(observations, keyframes, [(frame.stamp - bag.start) / 1e9 for frame in frames])


def describe(demonstration: Demonstration) -> str:
    """Frames and key-frames in words."""
    times = ", ".join(f"{demonstration.times[k]:.1f}" for k in demonstration.keyframes)
    words = f"{len(demonstration.observations)} frames, {len(demonstration.keyframes)} key-frames (at {times} s)"
    if len(demonstration.keyframes) > MANY:
        words += "; that is many: a slow take seems full of stops, try take.speedup=2 or more"
    return words


def _still(observations: Sequence[Observation]) -> bool:
    poses = np.array([o.gripper_pose[:3] for o in observations])
    return bool(np.ptp(poses, axis=0).max() < 0.01)


def _next_index(root: Path, task: str, start: int) -> tuple[int, Path | None]:
    """The first number that is free, and the episode that was made of this bag already, if any."""
    folder = episode_directory(root, task, 0).parent
    numbers = []
    for path in folder.glob("episode*"):
        if path.name.removeprefix("episode").isdigit():
            numbers.append(int(path.name.removeprefix("episode")))
            try:
                facts = json.loads((path / EXTRA).read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            if isinstance(facts, dict) and facts.get(SOURCE) == start:
                return -1, path
    return max(numbers, default=-1) + 1, None


def _instructions(given: Any, bag: Bag) -> list[str]:
    """Phrasings: those given, the bag's, or what a person at the terminal says.

    Raises:
        InputError: nobody says anything.
    """
    words = [given] if isinstance(given, str) else list(given or [])
    words = words or [text for text in bag.facts.get("instruction", "").split("\n") if text]
    if not words and sys.stdin.isatty():
        words = [input(f"{bag.path}: what was the robot told to do? ")]
    words = [" ".join(str(text).split()) for text in words]
    if not words or not all(words):
        raise InputError(f"{bag.path}: says no instruction: give instruction='open the top drawer'")
    return words
