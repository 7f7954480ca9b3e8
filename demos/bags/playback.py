"""A bag in a robot's place: whoever listens gets what was recorded, in its order, as time is let pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from demos.bags.bag import Bag, Recorded
from envs.ros.goals import Goal
from envs.ros.messages import Message, Transforms
from envs.ros.transport import Feedback, GoalHandle, M, NotConnected, Transport


class Playback(Transport):
    """Plays a bag. Subscribe first, then let time pass with `play`.

    What is still (/tf_static) is handed over at the beginning, whenever it was recorded: it does not depend on time.

    Attributes:
        now: nanoseconds on the bag's clock.
    """

    def __init__(self, bag: Bag) -> None:
        super().__init__()
        self.bag, self.now, self.session = bag, bag.start, 1
        self._listeners: dict[str, list[tuple[type[Any], Callable[[Any], None]]]] = {}
        self._still: set[str] = set()
        self._messages: Iterator[Recorded] | None = None
        self._next: Recorded | None = None

    @property
    def connected(self) -> bool:
        return True

    def start(self, timeout: float = 10.0) -> None:
        return

    def close(self) -> None:
        self.bag.close()

    def wall(self) -> int:
        """Nanoseconds since the epoch, as `time.time_ns` would have told."""
        return self.now

    def clock(self) -> float:
        """Seconds, as `time.monotonic` would have told."""
        return self.now / 1e9

    def subscribe(self, topic: str, kind: type[M], callback: Callable[[M], None], latched: bool = False) -> None:
        self._listeners.setdefault(topic, []).append((kind, callback))
        if latched and kind is Transforms:
            self._still.add(topic)

    def play(self, until: int) -> bool:
        """Let time pass up to `until` (nanoseconds); whether there is more after it.

        Raises:
            InputError: the bag is damaged.
        """
        if self._messages is None:
            if self._still:
                for recorded in self.bag.messages(self._still):
                    self._deliver(recorded)
            self._messages = self.bag.messages(set(self._listeners) - self._still)
            self._next = next(self._messages, None)
        while self._next is not None and self._next.time <= until:
            self.now = max(self.now, self._next.time)
            self._deliver(self._next)
            self._next = next(self._messages, None)
        self.now = max(self.now, until)
        return self._next is not None

    def publish(self, topic: str, message: Message, latched: bool = False) -> None:
        raise NotConnected("a bag cannot be told anything")

    def advertise(self, topic: str, kind: type[Message], latched: bool = False) -> None:
        raise NotConnected("a bag cannot be told anything")

    def prepare_action(self, action: str, kind: type[Goal]) -> None:
        return

    def send_goal(self, action: str, goal: Goal, on_feedback: Feedback | None = None) -> GoalHandle:
        raise NotConnected("a bag cannot move an arm")

    def cancel_all(self, action: str) -> None:
        return

    def _deliver(self, recorded: Recorded) -> None:
        for kind, callback in self._listeners.get(recorded.topic, ()):
            if recorded.kind is not kind:
                self.problem(recorded.topic, f"is of type {recorded.kind.ROS_TYPE}, not {kind.ROS_TYPE}")
                continue
            self.deliver(recorded.topic, kind, recorded.wire, callback)
