"""What an agent learns from a demonstration: from this frame, go to that key-frame.

The published loader (PerAct's, which GNFactor took over) repeats transitions without saying so, stores the collision
flag of the wrong frame and restarts the time feature at every augmented start. Here each is a named choice of
`Conventions`; the default is the corrected one, `PERACT` gives the published list entry by entry.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from demos.keyframes import find_keyframes
from demos.store import Episode
from envs.interface import Observation
from manifield.errors import InputError, choose

FINGER_RANGE = 0.04  # metres that one finger of the Panda's gripper opens


@dataclass(frozen=True)
class Conventions:
    """How transitions are drawn from an episode.

    every: demo augmentation: chains of transitions start at frames 0, every, 2 * every... (None: at frame 0 only).
    horizon: key-frames that an episode may have, in training and in evaluation alike: the scale of the time feature.
    weighting: "distinct" gives each distinct transition once, with weight 1; "count" once, weighted by how often the
        published list repeats it; "duplicates" the published list itself.
    collision_label: "target" takes the flag of the frame before the target, i.e. of the motion that leads there;
        "current" (published) that of the source frame, i.e. of the motion before.
    time_feature: "horizon" counts the key-frames reached since the beginning of the demonstration; "peract" (published)
        those since the beginning of the chain, so augmented starts pretend to be at time 0.
    """

    every: int | None = 10
    horizon: int = 25
    weighting: str = "distinct"
    collision_label: str = "target"
    time_feature: str = "horizon"

    def __post_init__(self) -> None:
        choose(self.weighting, ("distinct", "count", "duplicates"), "weighting")
        choose(self.collision_label, ("target", "current"), "collision_label")
        choose(self.time_feature, ("horizon", "peract"), "time_feature")
        if self.every is not None and self.every < 1:
            raise InputError(f"every = {self.every}: give a number of frames ≥ 1, or null for no demo augmentation")
        if self.horizon < 2:
            raise InputError(f"horizon = {self.horizon}: give the number of key-frames of the longest episode, ≥ 2")
        if self.time_feature == "peract" and self.weighting != "duplicates":
            raise InputError(
                "time_feature 'peract' depends on the chain a transition stands in; it needs weighting 'duplicates'"
            )


PERACT = Conventions(weighting="duplicates", collision_label="current", time_feature="peract")


@dataclass(frozen=True, eq=False)
class Transition:
    """One sample: what is seen at `source` and the action that leads to the key-frame `target`.

    first_frame: where the chain starts. source, target: frames. step: key-frames reached at `source` (0 at first), out
    of `steps` in the episode. time: the time feature in [-1, 1]. weight: relative frequency in training.
    target_pose: [7] position and quaternion xyzw. target_gripper_open. ignore_collisions: None in episodes that predate
    the flag. terminal: `target` is the last key-frame.
    """

    episode: Path
    first_frame: int
    source: int
    target: int
    step: int
    steps: int
    time: float
    weight: float
    target_pose: np.ndarray
    target_gripper_open: bool
    ignore_collisions: bool | None
    terminal: bool


def make_transitions(episode: Episode, conventions: Conventions | None = None) -> list[Transition]:
    """Every transition of an episode in the published order: by start of the chain, then along it.

    Raises:
        InputError: the episode is too short to have a key-frame.
    """
    rules = conventions or Conventions()
    keyframes = find_keyframes(episode.joint_velocities, episode.gripper_open)
    if not keyframes:
        raise InputError(f"{episode.path}: {len(episode)} frame(s) hold no key-frame; delete the episode")
    flags = episode.ignore_collisions
    entries = _chains(len(episode), keyframes, rules.every)
    repeats = Counter((source, target) for _, _, source, target in entries)
    result: list[Transition] = []
    done: set[tuple[int, int]] = set()
    for first_frame, place, source, target in entries:
        if rules.weighting != "duplicates" and (source, target) in done:
            continue
        done.add((source, target))
        step = sum(keyframe <= source for keyframe in keyframes)
        labelled = target - 1 if rules.collision_label == "target" else source
        result.append(
            Transition(
                episode=episode.path,
                first_frame=first_frame,
                source=source,
                target=target,
                step=step,
                steps=len(keyframes),
                time=time_feature(step if rules.time_feature == "horizon" else place, rules.horizon),
                weight=float(repeats[source, target]) if rules.weighting == "count" else 1.0,
                target_pose=episode.gripper_pose[target],
                target_gripper_open=bool(episode.gripper_open[target] > 0.5),
                ignore_collisions=None if flags is None else bool(flags[labelled]),
                terminal=target == keyframes[-1],
            )
        )
    return result


def _chains(length: int, keyframes: list[int], every: int | None) -> list[tuple[int, int, int, int]]:
    """(first frame, place in the chain, source, target): from each start along all key-frames after it."""
    entries = []
    for first in range(0, length - 1, every or length):
        ahead = [keyframe for keyframe in keyframes if keyframe > first]
        sources = [first, *ahead[:-1]]
        entries += [(first, k, source, target) for k, (source, target) in enumerate(zip(sources, ahead, strict=False))]
    return entries


def time_feature(step: int, horizon: int) -> float:
    """1 at the beginning, falling evenly to -1 at the last of `horizon` key-frames and staying there.

    Args:
        step: key-frames reached so far.
    """
    return max(1.0 - 2.0 * step / (horizon - 1), -1.0)


def low_dim_state(observation: Observation, time: float) -> np.ndarray:
    """[4] float32: gripper open (1) or closed (0), two finger positions clipped to [0, 0.04] m, time feature."""
    fingers = np.clip(observation.gripper_joint_positions, 0.0, FINGER_RANGE)
    return np.array([observation.gripper_open, *fingers, time], np.float32)
