"""What came in over the bus, with the time at which it came: pictures that belong together, joints over time."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from envs.ros.messages import CameraInfo, CompressedImage, Image, JointState

KEPT_PICTURES = 8
KEPT_JOINTS = 300
Picture = Image | CompressedImage


@dataclass(frozen=True)
class Pair:
    """Colour and depth of one moment. stamp: the colour's (ns). received: the later one's (monotonic seconds)."""

    color: Picture
    depth: Picture
    received: float

    @property
    def stamp(self) -> int:
        return self.color.stamp


@dataclass
class CameraStream:
    """The newest pictures of one camera, with the time of reception (monotonic seconds)."""

    color: deque[tuple[float, Picture]] = field(default_factory=lambda: deque(maxlen=KEPT_PICTURES))
    depth: deque[tuple[float, Picture]] = field(default_factory=lambda: deque(maxlen=KEPT_PICTURES))
    info: CameraInfo | None = None

    def pairs(self, mismatch: float) -> list[Pair]:
        """Colour pictures with a depth picture at most `mismatch` seconds apart, newest first."""
        depths = list(self.depth)
        found = []
        for received, color in reversed(list(self.color)):
            if depths:
                depth_received, depth = min(depths, key=lambda item: abs(item[1].stamp - color.stamp))
                if abs(depth.stamp - color.stamp) <= mismatch * 1e9:
                    found.append(Pair(color, depth, max(received, depth_received)))
        return found

    def nearest(self, stamp: int, mismatch: float) -> Pair | None:
        """The pair nearest to a moment."""
        return min(self.pairs(mismatch), key=lambda pair: abs(pair.stamp - stamp), default=None)


@dataclass
class JointSample:
    """Some joints at one moment, in the config's order. received: monotonic seconds."""

    stamp: int
    received: float
    positions: np.ndarray
    velocities: np.ndarray
    efforts: np.ndarray


class JointStream:
    """The newest states of some joints, picked out of messages that may name more."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self._samples: deque[JointSample] = deque(maxlen=KEPT_JOINTS)

    def names_in(self, message: JointState) -> bool:
        """Whether a message tells of these joints."""
        return bool(self.names) and set(self.names) <= set(message.names)

    def add(self, message: JointState, received: float) -> str | None:
        """Take a message in that `names_in`; words about it if it is not sound, which it is then not kept for."""
        order = [message.names.index(name) for name in self.names]
        positions = message.positions[order]
        velocities = message.velocities[order] if len(message.velocities) else np.zeros(len(order))
        efforts = message.efforts[order] if len(message.efforts) else np.zeros(len(order))
        if not np.isfinite(positions).all():
            bad = [name for name, value in zip(self.names, positions, strict=True) if not np.isfinite(value)]
            return f"the position of {', '.join(bad)} is no number"
        # Some drivers leave these open on purpose; a speed that nobody measured is no reason to stop.
        velocities, efforts = (np.where(np.isfinite(values), values, 0.0) for values in (velocities, efforts))
        last = self.newest
        if last is not None and message.stamp < last.stamp:
            return None  # overtaken on the way: older than what is known
        self._samples.append(JointSample(message.stamp, received, positions, velocities, efforts))
        return None

    @property
    def newest(self) -> JointSample | None:
        return self._samples[-1] if self._samples else None

    def before_newest(self) -> JointSample | None:
        return self._samples[-2] if len(self._samples) > 1 else None

    def at(self, stamp: int) -> JointSample | None:
        """The joints at a moment, interpolated between their neighbours; at its ends the history is not extended."""
        samples = list(self._samples)
        if not samples:
            return None
        place = bisect_left([sample.stamp for sample in samples], stamp)
        if place == len(samples):
            return samples[-1]
        if place == 0 or samples[place].stamp == stamp:
            return samples[place]
        before, after = samples[place - 1], samples[place]
        share = (stamp - before.stamp) / (after.stamp - before.stamp)
        mixed = [
            (1 - share) * getattr(before, name) + share * getattr(after, name)
            for name in ("positions", "velocities", "efforts")
        ]
        return JointSample(stamp, after.received, *mixed)

    def clear(self) -> None:
        self._samples.clear()
