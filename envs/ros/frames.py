"""Frames over time, as /tf and /tf_static tell of them: where was the camera when this picture was taken?"""

from __future__ import annotations

import threading
from bisect import bisect_left

import numpy as np

from envs.ros.geometry import interpolate
from envs.ros.messages import Transform

HISTORY = 10 * 10**9  # nanoseconds kept of every moving frame
_DEEPEST = 64  # links from a frame to the root: more is a loop


class NoTransform(LookupError):
    """A frame is not known at a time; the message says which, and what is known."""


class FrameTree:
    """Keeps transforms and answers where a frame was. Safe to use from several threads."""

    def __init__(self, history: int = HISTORY) -> None:
        self._history = history
        self._lock = threading.Lock()
        self._parents: dict[str, str] = {}
        self._static: dict[str, np.ndarray] = {}
        self._moving: dict[str, tuple[list[int], list[np.ndarray]]] = {}

    def add(self, transform: Transform, is_static: bool = False) -> None:
        """Take a transform in. An older one than the newest of its frame finds its place, a repeated one is dropped."""
        child = transform.child_frame_id
        with self._lock:
            if self._parents.get(child, transform.frame_id) != transform.frame_id or is_static:
                self._moving.pop(child, None)  # hung up elsewhere: what was known before means nothing now
            self._parents[child] = transform.frame_id
            if is_static:
                self._static[child] = transform.matrix
                return
            self._static.pop(child, None)
            stamps, matrices = self._moving.setdefault(child, ([], []))
            place = bisect_left(stamps, transform.stamp)
            if place < len(stamps) and stamps[place] == transform.stamp:
                return
            stamps.insert(place, transform.stamp)
            matrices.insert(place, transform.matrix)
            drop = bisect_left(stamps, stamps[-1] - self._history)
            del stamps[:drop], matrices[:drop]

    def lookup(self, target: str, source: str, stamp: int | None = None, tolerance: int = 0) -> np.ndarray:
        """[4, 4] that takes points from frame `source` to frame `target`.

        Args:
            stamp: when (nanoseconds), between two known transforms interpolated; None for the newest of every link.
            tolerance: nanoseconds beyond the newest transform of a link for which that one still serves.

        Raises:
            NoTransform: a frame is unknown, the two are not connected, or `stamp` lies outside what is known.
        """
        with self._lock:
            to_root_target, to_root_source = self._chain(target, stamp, tolerance), None
            if target != source:
                to_root_source = self._chain(source, stamp, tolerance)
            if to_root_source is None:
                return np.eye(4)
            if to_root_target[0] != to_root_source[0]:
                raise NoTransform(f"frames {target} and {source} are not connected")
        return np.linalg.inv(to_root_target[1]) @ to_root_source[1]

    def newest(self, child: str) -> int | None:
        """Stamp of the newest transform of a moving frame; None if there is none (or if it is a static one)."""
        with self._lock:
            stamps = self._moving.get(child, ([], []))[0]
            return stamps[-1] if stamps else None

    def ancestors(self, frame: str) -> list[str]:
        """The frame, its parent, that one's parent and so on.

        Raises:
            NoTransform: they run in a circle.
        """
        found = [frame]
        with self._lock:
            while found[-1] in self._parents:
                found.append(self._parents[found[-1]])
                if len(found) > _DEEPEST:
                    raise NoTransform(f"the frames above {frame} run in a circle")
        return found

    def frames(self) -> list[str]:
        """Names of all frames."""
        with self._lock:
            return sorted({*self._parents, *self._parents.values()})

    def _chain(self, frame: str, stamp: int | None, tolerance: int) -> tuple[str, np.ndarray]:
        """The root above a frame, and the frame's pose in it."""
        if frame not in self._parents and frame not in self._parents.values():
            known = ", ".join(sorted({*self._parents, *self._parents.values()})[:12]) or "none"
            raise NoTransform(f"frame {frame} is not known; known: {known}")
        matrix = np.eye(4)
        for _ in range(_DEEPEST):
            if frame not in self._parents:
                return frame, matrix
            matrix = self._link(frame, stamp, tolerance) @ matrix
            frame = self._parents[frame]
        raise NoTransform(f"the frames above {frame} run in a circle")

    def _link(self, child: str, stamp: int | None, tolerance: int) -> np.ndarray:
        if child in self._static:
            return self._static[child]
        stamps, matrices = self._moving[child]
        if stamp is None or stamp == stamps[-1]:
            return matrices[-1]
        if stamp > stamps[-1]:
            if stamp - stamps[-1] <= tolerance:
                return matrices[-1]
            raise NoTransform(f"frame {child} is {(stamp - stamps[-1]) / 1e9:.3f} s behind what is asked for")
        if stamp < stamps[0]:
            raise NoTransform(f"frame {child} is known only from {(stamps[0] - stamp) / 1e9:.3f} s later on")
        place = bisect_left(stamps, stamp)
        if stamps[place] == stamp:
            return matrices[place]
        before, after = stamps[place - 1], stamps[place]
        return interpolate(matrices[place - 1], matrices[place], (stamp - before) / (after - before))
