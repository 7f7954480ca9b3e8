"""The small interface to a robot's bus: topics in both directions, and goals with feedback, result and cancellation.

Implementations: `envs.ros.rosbridge` (a rosbridge server, from a host without ROS) and `envs.ros.rclpy_bus` (a node in
ROS 2's own Python environment). Nothing above this interface knows which one it is.

What every implementation keeps to:

* Callbacks run on one thread of the transport's, one at a time and in order; they must be short.
* A command is sent now or not at all: without a connection `publish` and `send_goal` raise `NotConnected`, and nothing
  is queued, so nothing is replayed after a reconnection. Subscriptions are renewed after one.
* When the connection goes, every open goal ends as LOST: whether the robot still carries it out is not known.
* What arrives and cannot be read is counted in `problems`, told to `on_problem`, and never reaches a callback.
"""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from enum import Enum
from typing import Any, TypeVar

from envs.ros.goals import Goal
from envs.ros.messages import MalformedMessage, Message

logger = logging.getLogger(__name__)
M = TypeVar("M", bound=Message)
Feedback = Callable[[dict[str, Any]], None]


class NotConnected(ConnectionError):
    """A command cannot be sent, or a bus cannot be reached; the message says why."""


class GoalState(Enum):
    """How far a goal is. SENT: nobody has answered yet. LOST: the connection went, or the action's server did."""

    SENT = "sent"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    SUCCEEDED = "succeeded"
    ABORTED = "aborted"
    CANCELED = "canceled"
    LOST = "lost"

    @property
    def is_final(self) -> bool:
        return self not in (GoalState.SENT, GoalState.ACCEPTED)


class GoalHandle:
    """A goal on its way. The transport calls `move_to`; everybody else waits, looks and cancels.

    Attributes:
        action: name of the action. state: how far it is. result: the action's Result as a dict once it has ended.
        reason: words for an end that is no success, as far as they are known.
    """

    def __init__(self, action: str, cancel: Callable[[GoalHandle], None]) -> None:
        self.action, self.state, self.result, self.reason = action, GoalState.SENT, {}, ""  # type: ignore[var-annotated]
        self._cancel = cancel
        self._changed = threading.Condition()

    def cancel(self) -> None:
        """Ask for cancellation; harmless when the goal has ended. Whether it worked shows in `state`."""
        if not self.state.is_final:
            self._cancel(self)

    def wait(self, timeout: float) -> bool:
        """Wait for the end, at most `timeout` seconds; whether it has come."""
        with self._changed:
            return self._changed.wait_for(lambda: self.state.is_final, timeout)

    def move_to(self, state: GoalState, result: dict[str, Any] | None = None, reason: str = "") -> None:
        """Go on to another state; an end is for ever."""
        with self._changed:
            if self.state.is_final:
                return
            self.state, self.result, self.reason = state, result or {}, reason
            self._changed.notify_all()


class Transport(ABC):
    """A connection to a bus. Use `start` and `close`, or `with`.

    Attributes:
        session: counts connections, from 1; a goal or an observation of an earlier session says nothing in this one.
        problems: how often which kind of unreadable message, server complaint, … came, by topic or kind.
        on_problem: called with words about each of those.
        on_connection: called with whether there is a connection now, whenever that changes.
    """

    def __init__(self) -> None:
        self.session = 0
        self.problems: Counter[str] = Counter()
        self.on_problem: list[Callable[[str], None]] = []
        self.on_connection: list[Callable[[bool], None]] = []

    @property
    @abstractmethod
    def connected(self) -> bool:
        """Whether messages can be sent and received now."""

    @abstractmethod
    def start(self, timeout: float = 10.0) -> None:
        """Connect.

        Raises:
            NotConnected: not within `timeout` seconds.
        """

    @abstractmethod
    def close(self) -> None:
        """Disconnect for good; harmless twice."""

    @abstractmethod
    def subscribe(self, topic: str, kind: type[M], callback: Callable[[M], None], latched: bool = False) -> None:
        """Call `callback` with every message of `topic` from now on, over reconnections too.

        Args:
            latched: the last message from before is wanted too (transient local durability), e.g. of /tf_static.
        """

    @abstractmethod
    def publish(self, topic: str, message: Message, latched: bool = False) -> None:
        """Send a message. latched: those who subscribe later get it too.

        Raises:
            NotConnected: there is no connection; the message is gone.
        """

    @abstractmethod
    def advertise(self, topic: str, kind: type[Message], latched: bool = False) -> None:
        """Announce a topic, so that the first message already finds the subscribers that are there."""

    @abstractmethod
    def prepare_action(self, action: str, kind: type[Goal]) -> None:
        """Look for an action's server, so that the first goal need not."""

    @abstractmethod
    def send_goal(self, action: str, goal: Goal, on_feedback: Feedback | None = None) -> GoalHandle:
        """Send a goal to an action's server.

        Raises:
            NotConnected: there is no connection; the goal is gone.
        """

    @abstractmethod
    def cancel_all(self, action: str) -> None:
        """Ask an action's server to cancel whatever it is doing, also for others, e.g. what was asked for in an earlier
        session. Nobody waits for the answer; a server that is not discovered yet is not asked.

        Raises:
            NotConnected: there is no connection.
        """

    def __enter__(self) -> Transport:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def problem(self, kind: str, words: str) -> None:
        """Count something that is wrong, and tell of it. For implementations."""
        self.problems[kind] += 1
        logger.warning("%s: %s", kind, words)
        for tell in self.on_problem:
            tell(f"{kind}: {words}")

    def deliver(self, topic: str, kind: type[M], wire: dict[str, Any], callback: Callable[[M], None]) -> None:
        """Read a message and hand it over; one that cannot be read is a problem. For implementations."""
        try:
            message = kind.parse(wire)
        except MalformedMessage as error:
            self.problem(topic, str(error))
            return
        try:
            callback(message)
        except Exception as error:  # one listener's bug must not cut the others off from the bus
            logger.exception("a listener of %s failed", topic)
            self.problem(topic, f"a listener failed: {error}")


class ServedGoal(ABC):
    """A goal that somebody else has sent to an action served here. The server ends it with exactly one of `succeed`,
    `abort` and `confirm_cancel`."""

    goal: Goal
    cancel_asked: threading.Event

    @abstractmethod
    def feedback(self, values: dict[str, Any]) -> None:
        """Publish feedback."""

    @abstractmethod
    def succeed(self, result: dict[str, Any]) -> None:
        """End it as done."""

    @abstractmethod
    def abort(self, result: dict[str, Any]) -> None:
        """End it as failed."""

    @abstractmethod
    def confirm_cancel(self, result: dict[str, Any]) -> None:
        """End it as cancelled, after `cancel_asked`."""


class ServingTransport(Transport):
    """A transport that can also be a robot: it serves actions. For the rehearsal arm and for tests."""

    @abstractmethod
    def serve(
        self, action: str, kind: type[Goal], accepts: Callable[[Goal], bool], run: Callable[[ServedGoal], Any]
    ) -> None:
        """Serve an action.

        Args:
            accepts: whether to take a goal; on the transport's thread, must be quick.
            run: called with each accepted goal on a thread of its own.
        """
