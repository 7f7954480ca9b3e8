"""From a bag to the frames of a demonstration: what a policy at the robot would have seen, at a fixed rate.

The same code that senses a live robot (`envs.ros.sensing`) listens to the bag, on the bag's clock, so a frame is what
an observation at that moment was: pictures, joints and camera poses of one moment, rectified and cropped alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from demos.bags.bag import Bag
from demos.bags.playback import Playback
from demos.keyframes import REST_SPEED
from envs.interface import Observation
from envs.ros.config import RosConfig
from envs.ros.sensing import SensorFault, Sensors
from manifield.errors import InputError


@dataclass(frozen=True)
class Frame:
    """stamp: nanoseconds, of its pictures. time: of the tick, on the bag's clock."""

    observation: Observation
    stamp: int
    time: int


class Take:
    """A bag with a robot's sensors listening to it.

    Args:
        config: of the robot; its emergency stop is not looked at: hands that guide an arm have often pressed it.
    """

    def __init__(self, bag: Bag, config: RosConfig) -> None:
        self.bag, self.config = bag, replace(config, topics=replace(config.topics, stop=None))
        self.playback = Playback(bag)
        self.sensors = Sensors(self.playback, self.config, self.playback.wall, self.playback.clock)
        self.sensors.start()
        check_topics(bag, self.config)

    def observe(self, time: int) -> Frame:
        """The newest observation at a time (nanoseconds), which must not be before that of an earlier call.

        Raises:
            SensorFault: there is none, or it is not sound; says why.
        """
        self.playback.play(time)
        self.sensors.forgive()  # a person's hand may push an arm as fast as it likes
        sight = self.sensors.observe(timeout=0.0)
        return Frame(sight.observation, sight.stamp, time)

    def frames(self, rate: float, start: float = 0.0, end: float | None = None) -> Iterator[Frame]:
        """Frames at a rate (1/s), from the first moment at which there is an observation.

        Args:
            start, end: seconds from the bag's first message; None for its end.

        Raises:
            InputError: there is none at all, or a gap between the first and the last.
        """
        step, fault, gap, newest = round(1e9 / rate), "", "", -1
        time = self.bag.start + round(start * 1e9)
        last = self.bag.end if end is None else min(self.bag.end, self.bag.start + round(end * 1e9))
        begun = False
        while True:
            try:
                frame = self.observe(time)
            except SensorFault as error:
                fault = str(error)
                if begun and not gap:
                    gap = f"{(time - self.bag.start) / 1e9:.2f} s: {error}"
            else:
                if gap:
                    raise InputError(
                        f"{self.bag.path}: a gap at {gap}; cut the take there (take.start, take.end) or allow more "
                        "(env.sensing.picture_age, joint_age, stamp_age, mismatch)"
                    )
                begun = True
                if frame.stamp > newest:  # else the cameras are slower than the rate: nothing new
                    newest = frame.stamp
                    yield frame
            if time >= last:
                break
            time = min(time + step, last)  # the end itself too: there the task is done
        if not begun:
            raise InputError(f"{self.bag.path}: no moment with sound sensors, the last because of {fault}")


def check_topics(bag: Bag, config: RosConfig) -> None:
    """Whether a bag holds what is needed.

    Raises:
        InputError: names the topics that are missing and those that there are.
    """
    topics, suffix = config.topics, "/compressed" if config.topics.compressed else ""
    needed = [*topics.joints]
    for camera in config.cameras:
        needed += [template.format(camera=camera) + suffix for template in (topics.color, topics.depth)]
        needed.append(topics.info.format(camera=camera))
    if config.frames.tool is not None:
        needed.append("/tf")
    missing = [topic for topic in needed if not bag.counts.get(topic)]
    if missing:
        raise InputError(
            f"{bag.path}: nothing on {', '.join(missing)}; it holds {', '.join(sorted(bag.counts))}: set env.topics, "
            "env.cameras and env.frames to what was recorded"
        )


def with_speeds(frames: list[Frame]) -> list[Frame]:
    """The same frames; if the driver tells no joint speeds, with those that follow from positions and stamps."""
    if len(frames) < 2 or any(np.any(f.observation.joint_velocities) for f in frames):
        return frames
    positions = np.stack([f.observation.joint_positions for f in frames])
    times = np.array([f.stamp - frames[0].stamp for f in frames]) / 1e9
    moments, places = np.unique(times, return_index=True)  # a slow camera shows one moment in several frames
    if len(moments) < 2:
        return frames
    speeds = np.gradient(positions[places], moments, axis=0)[np.searchsorted(moments, times)]
    return [
        replace(f, observation=replace(f.observation, joint_velocities=v)) for f, v in zip(frames, speeds, strict=True)
    ]


def faster(frames: list[Frame], factor: float) -> list[Frame]:
    """The same frames as of a take performed `factor` times as fast: speeds grow, the rate stays."""
    if factor == 1.0:
        return frames
    return [
        replace(f, observation=replace(f.observation, joint_velocities=f.observation.joint_velocities * factor))
        for f in frames
    ]


def without_pauses(frames: list[Frame]) -> list[Frame]:
    """Frames without those in which arm and gripper only wait, such that each standstill gives one key-frame.

    People pause; an expert in simulation does not, and the rule for key-frames counts a stop every few frames of a
    pause. Of a standstill the end is kept, where what was grasped or let go is so; around a change of the gripper the
    last frame before it.
    """
    resting = np.array([(np.abs(f.observation.joint_velocities) <= REST_SPEED).all() for f in frames])
    is_open = np.array([f.observation.gripper_open > 0.5 for f in frames])
    kept: list[int] = []
    begin = 0
    while begin < len(frames):
        end = begin
        while end + 1 < len(frames) and resting[end + 1] == resting[begin]:
            end += 1
        if resting[begin]:
            kept += _standstill(begin, end, is_open, begin == 0, end == len(frames) - 1)
        else:
            kept += range(begin, end + 1)
        begin = end + 1
    return [frames[k] for k in kept]


def _standstill(begin: int, end: int, is_open: np.ndarray, first: bool, last: bool) -> list[int]:
    """Numbers to keep of frames begin to end, in which the arm rests."""
    states = np.split(np.arange(begin, end + 1), np.flatnonzero(np.diff(is_open[begin : end + 1])) + 1)
    changed_before = begin > 0 and is_open[begin] != is_open[begin - 1]
    if len(states) == 1 and not changed_before:
        # Four resting frames are one stop. At the beginning there is none to find, at the end the last frame is one.
        return list(range(max(begin, end + 1 - (2 if first else 1 if last else 4)), end + 1))
    kept: list[int] = []
    for number, state in enumerate(states):
        kept += state[-1:].tolist() if number == 0 and not changed_before else state[-2:].tolist()
    return kept
