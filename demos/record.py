"""One recorded episode: try scenes until the expert solves one, and keep nothing but that success."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from demos.keyframes import find_keyframes
from demos.viewpoints import FieldViewPlan
from envs.interface import CameraView, Environment, NoExpert, Observation
from envs.seeds import episode_seed, episode_variation
from manifield.workers import Stopped

SPLIT = "train"  # evaluation draws from the other splits, so that no recorded scene is ever one of its
ATTEMPTS_PER_EPISODE = 1000  # distance between the scene numbers of two episodes


@dataclass(frozen=True)
class Recording:
    """A successful demonstration, for `write_episode`. facts: seed, number of frames... field_views: by frame."""

    observations: list[Observation]
    descriptions: list[str]
    variation: int
    facts: dict[str, Any]
    field_views: dict[int, list[CameraView]] = field(default_factory=dict)


def record_episode(
    environment: Environment,
    seed: int,
    index: int,
    attempts: int,
    stopping: Callable[[], bool] = lambda: False,
    variations: Sequence[int] | None = None,
    plan: FieldViewPlan | None = None,
) -> tuple[Recording | None, list[str]]:
    """Record episode `index` of the environment's task.

    Args:
        seed: base seed. attempts: scenes to try. stopping: asked at every frame.
        variations: those to record, in turn; None takes all of the task's.
        plan: extra views to draw, if any.

    Returns:
        The demonstration (None if every attempt failed), and why each failed attempt was rejected.

    Raises:
        Stopped: `stopping()` became true.
    """
    variations = range(environment.variation_count()) if variations is None else variations
    variation = variations[episode_variation(SPLIT, seed, environment.task, index, len(variations))]
    rejected: list[str] = []
    for attempt in range(attempts):
        scene = episode_seed(SPLIT, seed, environment.task, index * ATTEMPTS_PER_EPISODE + attempt)
        drawn: dict[int, list[CameraView]] = {}
        frames, descriptions, ends, reason = _attempt(environment, scene, variation, stopping, plan, drawn)
        if reason is None:
            speeds = np.array([frame.joint_velocities for frame in frames])
            keyframes = find_keyframes(speeds, np.array([frame.gripper_open for frame in frames]))
            reason = _mismatch(keyframes, ends)
        if reason is None:
            facts = {
                "task": environment.task,
                "index": index,
                "split": SPLIT,
                "base_seed": seed,
                "seed": scene,
                "variation": variation,
                "frames": len(frames),
                "keyframes": keyframes,
                "attempts": attempt + 1,
                "rejected": rejected,
            }
            field_views = {}
            if plan is not None:
                field_views = {frame: drawn[frame] for frame in plan.wanted(keyframes, len(frames))}
                facts["field_views"] = {"frames": list(field_views), "each": plan.count}
            return Recording(frames, descriptions, variation, facts, field_views), rejected
        rejected.append(reason)
    return None, rejected


def _attempt(
    environment: Environment,
    scene: int,
    variation: int,
    stopping: Callable[[], bool],
    plan: FieldViewPlan | None,
    drawn: dict[int, list[CameraView]],
) -> tuple[list[Observation], list[str], list[int] | None, str | None]:
    """Let the expert act in one scene; fills `drawn` with the views of every frame of which `plan` may want them.

    Returns:
        Frames, descriptions, the number of the last frame of each action (None: the expert did not say), and why this
        is no demonstration (or None).
    """
    start = environment.reset(scene, variation)
    frames: list[Observation] = []
    ends: list[int] | None = None
    success = False

    def draw(complete: bool = False) -> None:
        number = len(frames) - 1
        if plan is not None and number not in drawn and plan.may_want(frames, complete):
            drawn[number] = environment.draw(plan.viewpoints(scene, number))

    def keep(observation: Observation) -> None:
        if stopping():
            raise Stopped
        frames.append(observation)
        draw()

    try:
        whole = environment.demonstrate(keep)
        if whole is not None:
            success = whole.success
        else:
            ends = []
            keep(start.observation)
            for action in environment.expert():
                outcome = environment.step(action, keep)
                ends.append(len(frames) - 1)
                success = outcome.success
                if outcome.failure is not None:
                    return frames, start.descriptions, ends, outcome.failure
    except NoExpert:
        return frames, start.descriptions, ends, "no expert"
    draw(complete=True)
    return frames, start.descriptions, ends, None if success else "not solved"


def _mismatch(keyframes: list[int], ends: list[int] | None) -> str | None:
    """Why the key-frames that training will find are not the expert's actions, one in the frames of each."""
    if ends is None:
        return None if keyframes else "no key-frame"
    if len(keyframes) != len(ends):
        return f"{'more' if len(keyframes) > len(ends) else 'fewer'} key-frames than actions"
    starts = [0, *ends[:-1]]
    if not all(start < frame <= end for start, frame, end in zip(starts, keyframes, ends, strict=True)):
        return "key-frames in other places than actions"
    return None
