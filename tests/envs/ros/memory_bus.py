"""A bus inside one process, for tests of what stands above a transport: no ROS, no threads but those of served goals.

Messages pass through their wire form, as on a real bus.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from envs.ros.goals import Goal
from envs.ros.messages import Message
from envs.ros.transport import Feedback, GoalHandle, GoalState, M, NotConnected, ServedGoal, ServingTransport


class Bus:
    """What the transports on it share. commands: every goal and every message on a topic in `watched`, as it came."""

    def __init__(self) -> None:
        self.listeners: dict[str, list[tuple[MemoryTransport, type[Any], Callable[[Any], None]]]] = defaultdict(list)
        self.latched: dict[str, dict[str, Any]] = {}
        self.servers: dict[
            str, tuple[MemoryTransport, type[Goal], Callable[[Goal], bool], Callable[[ServedGoal], Any]]
        ] = {}
        self.watched: set[str] = set()
        self.commands: list[Any] = []
        self.said: list[tuple[str, Any]] = []


class MemoryTransport(ServingTransport):
    def __init__(self, bus: Bus) -> None:
        super().__init__()
        self.bus, self._connected = bus, False

    @property
    def connected(self) -> bool:
        return self._connected

    def start(self, timeout: float = 1.0) -> None:
        self._connected = True
        self.session += 1
        for tell in list(self.on_connection):
            tell(True)

    def close(self) -> None:
        self.drop()

    def drop(self) -> None:
        """Lose the connection."""
        if self._connected:
            self._connected = False
            for tell in list(self.on_connection):
                tell(False)

    def subscribe(self, topic: str, kind: type[M], callback: Callable[[M], None], latched: bool = False) -> None:
        self.bus.listeners[topic].append((self, kind, callback))
        if latched and topic in self.bus.latched:
            self.deliver(topic, kind, self.bus.latched[topic], callback)

    def advertise(self, topic: str, kind: type[Message], latched: bool = False) -> None:
        pass

    def publish(self, topic: str, message: Message, latched: bool = False) -> None:
        if not self._connected:
            raise NotConnected("dropped")
        wire = message.to_wire()
        self.bus.said.append((topic, message))
        if topic in self.bus.watched:
            self.bus.commands.append(message)
        if latched:
            self.bus.latched[topic] = wire
        for transport, kind, callback in list(self.bus.listeners[topic]):
            if transport.connected:
                transport.deliver(topic, kind, wire, callback)

    def prepare_action(self, action: str, kind: type[Goal]) -> None:
        pass

    def send_goal(self, action: str, goal: Goal, on_feedback: Feedback | None = None) -> GoalHandle:
        if not self._connected:
            raise NotConnected("dropped")
        self.bus.commands.append(goal)
        served: list[_Served] = []
        handle = GoalHandle(action, lambda handle: served[0].cancel_asked.set())
        if action not in self.bus.servers:
            handle.move_to(GoalState.LOST, reason="no server")
            return handle
        _, kind, accepts, run = self.bus.servers[action]
        served.append(_Served(kind.parse(goal.to_wire()), handle))
        if not accepts(served[0].goal):
            handle.move_to(GoalState.REJECTED, reason="rejected")
            return handle
        handle.move_to(GoalState.ACCEPTED)
        threading.Thread(target=run, args=(served[0],), daemon=True).start()
        return handle

    def cancel_all(self, action: str) -> None:
        pass

    def serve(
        self, action: str, kind: type[Goal], accepts: Callable[[Goal], bool], run: Callable[[ServedGoal], Any]
    ) -> None:
        self.bus.servers[action] = self, kind, accepts, run


class _Served(ServedGoal):
    def __init__(self, goal: Goal, handle: GoalHandle) -> None:
        self.goal, self._handle, self.cancel_asked = goal, handle, threading.Event()

    def feedback(self, values: dict[str, Any]) -> None:
        pass

    def succeed(self, result: dict[str, Any]) -> None:
        self._handle.move_to(GoalState.SUCCEEDED, result)

    def abort(self, result: dict[str, Any]) -> None:
        self._handle.move_to(GoalState.ABORTED, result)

    def confirm_cancel(self, result: dict[str, Any]) -> None:
        self._handle.move_to(GoalState.CANCELED, result)
