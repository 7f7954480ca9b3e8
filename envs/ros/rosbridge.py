"""A robot's bus through a rosbridge server (protocol 2), with roslibpy: for hosts without ROS.

roslibpy queues what is sent while there is no connection and sends it after the next one, drops what it cannot encode
without a word, and has no handler for the server's complaints. For a robot all three are wrong, so this file sends on
the connection that is there now or refuses, encodes strictly, and counts every complaint.
"""

from __future__ import annotations

import base64
import itertools
import json
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

from envs.ros.goals import Goal
from envs.ros.messages import Message
from envs.ros.transport import Feedback, GoalHandle, GoalState, M, NotConnected, Transport

# action_msgs/GoalStatus
_ENDS = {4: GoalState.SUCCEEDED, 5: GoalState.CANCELED, 6: GoalState.ABORTED}
_RECONNECT = 1.0  # seconds at most between two tries to reconnect


class RosbridgeTransport(Transport):
    """rosbridge at HOST:PORT. Reconnects by itself; see `Transport` for what that means for goals."""

    def __init__(self, host: str = "127.0.0.1", port: int = 9090) -> None:
        super().__init__()
        self._host, self._port = host, port
        self._ros: Any = None
        self._protocol: Any = None
        self._listeners: dict[str, list[tuple[type[Any], Callable[[Any], None]]]] = {}
        self._advertised: dict[str, tuple[str, bool]] = {}
        self._goals: dict[str, tuple[GoalHandle, Feedback | None]] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.RLock()

    @property
    def connected(self) -> bool:
        return self._protocol is not None

    def start(self, timeout: float = 10.0) -> None:
        import roslibpy  # brings Twisted, which only those need who come here

        self.close()
        _calm(roslibpy)
        ready = threading.Event()
        self._ros = ros = roslibpy.Ros(self._host, self._port, transport="twisted")
        ros.factory.maxDelay = ros.factory.initialDelay = _RECONNECT

        def opened(protocol: Any) -> None:
            if self._ros is ros:
                self._open(protocol)
                ready.set()

        ros.factory.on("ready", opened)
        if ros.factory._proto is not None:  # already there, before anybody listened: it connects by itself
            opened(ros.factory._proto)
        ros.factory.on("close", lambda protocol: self._close(protocol) if self._ros is ros else None)
        ros.factory.manager.run()
        if not ready.wait(timeout):
            self.close()
            raise NotConnected(f"no rosbridge server answers at {self._host}:{self._port} within {timeout:g} s")

    def close(self) -> None:
        ros, self._ros = self._ros, None
        if ros is None:
            return
        protocol = self._protocol
        self._close(protocol)
        ros.factory.stopTrying()
        if protocol is not None:
            protocol.send_close()

    def subscribe(self, topic: str, kind: type[M], callback: Callable[[M], None], latched: bool = False) -> None:
        with self._lock:
            known = self._listeners.setdefault(topic, [])
            known.append((kind, callback))
            if len(known) == 1 and self.connected:
                self._subscribe(topic, kind.ROS_TYPE)

    def advertise(self, topic: str, kind: type[Message], latched: bool = False) -> None:
        with self._lock:
            if self._advertised.get(topic) != (kind.ROS_TYPE, latched):
                self._send({"op": "advertise", "topic": topic, "type": kind.ROS_TYPE, "latch": latched})
                self._advertised[topic] = kind.ROS_TYPE, latched

    def publish(self, topic: str, message: Message, latched: bool = False) -> None:
        self.advertise(topic, type(message), latched)
        self._send({"op": "publish", "topic": topic, "msg": message.to_wire()})

    def prepare_action(self, action: str, kind: type[Goal]) -> None:
        """Nothing: the server looks for it itself."""

    def send_goal(self, action: str, goal: Goal, on_feedback: Feedback | None = None) -> GoalHandle:
        number = f"goal:{action}:{next(self._numbers)}"
        session = self.session

        def cancel(handle: GoalHandle) -> None:
            if self.session == session:  # a goal of an earlier connection is not this one's to cancel
                self._send({"op": "cancel_action_goal", "id": number, "action": action})

        handle = GoalHandle(action, cancel)
        with self._lock:
            self._goals[number] = handle, on_feedback
        try:
            self._send(
                {
                    "op": "send_action_goal",
                    "id": number,
                    "action": action,
                    "action_type": goal.ROS_TYPE,
                    "args": goal.to_wire(),
                    "feedback": True,
                }
            )
        except Exception:
            with self._lock:
                self._goals.pop(number, None)
            raise
        if self.session != session or not self.connected:
            self._lose_goals()
        return handle

    def cancel_all(self, action: str) -> None:
        # A request without a goal's id and time means all of them (action_msgs/srv/CancelGoal).
        service = {"service": f"{action}/_action/cancel_goal", "type": "action_msgs/srv/CancelGoal"}
        self._send({"op": "call_service", "id": f"cancel:{action}", **service, "args": {}})

    def _send(self, frame: dict[str, Any]) -> None:
        """Encode strictly and send on the present connection.

        Raises:
            NotConnected: there is none. ValueError: a number is not finite, which JSON has no word for.
        """
        text = json.dumps(frame, default=_encode, allow_nan=False)
        protocol = self._protocol
        if protocol is None:
            raise NotConnected(f"there is no connection to rosbridge at {self._host}:{self._port}")
        protocol.send_message(text.encode())

    def _open(self, protocol: Any) -> None:
        protocol.on_message = lambda payload: self._receive(payload)
        with self._lock:
            if protocol is self._protocol:
                return
            self._protocol = protocol
            self.session += 1
            self._advertised.clear()
            for topic, listeners in self._listeners.items():
                self._subscribe(topic, listeners[0][0].ROS_TYPE)
        self._tell(True)

    def _close(self, protocol: Any) -> None:
        with self._lock:
            if self._protocol is None or protocol is not self._protocol:
                return
            self._protocol = None
        self._lose_goals()
        self._tell(False)

    def _subscribe(self, topic: str, kind: str) -> None:
        self._send({"op": "subscribe", "id": f"subscribe:{topic}", "topic": topic, "type": kind, "queue_length": 1})

    def _receive(self, payload: bytes) -> None:
        """Take one frame of the server's; on the reactor's thread."""
        try:
            frame = json.loads(payload)
            op = frame["op"]
        except (ValueError, KeyError, TypeError) as error:
            self.problem("rosbridge", f"an unreadable frame: {error}")
            return
        if op == "publish":
            topic = frame.get("topic", "")
            for kind, callback in list(self._listeners.get(topic, ())):
                self.deliver(topic, kind, frame.get("msg", {}), callback)
        elif op == "action_feedback":
            known = self._goals.get(frame.get("id", ""))
            if known:
                known[0].move_to(GoalState.ACCEPTED)
                if known[1]:
                    known[1](frame.get("values", {}))
        elif op == "action_result":
            self._end(frame)
        elif op == "status":
            self._complaint(frame)

    def _end(self, frame: Mapping[str, Any]) -> None:
        with self._lock:
            known = self._goals.pop(str(frame.get("id")), None)
        if known is None:
            return
        values = frame.get("values", {})
        status = frame.get("status", values.get("status") if isinstance(values, dict) else None)
        if status in _ENDS and isinstance(values, dict):
            known[0].move_to(_ENDS[status], values)
        else:  # words in the place of a result: how a server says that a goal was not taken, whatever the status is
            known[0].move_to(GoalState.REJECTED, reason=str(values or "the action's server rejected it"))

    def _complaint(self, frame: Mapping[str, Any]) -> None:
        """The server could not do what a frame of ours asked for. A goal among those has failed."""
        words = str(frame.get("msg", frame))
        if frame.get("level", "error") in ("info", "none"):
            return
        self.problem("rosbridge", words)
        with self._lock:
            known = self._goals.pop(str(frame.get("id")), None)
        if known:
            known[0].move_to(GoalState.REJECTED, reason=words)

    def _lose_goals(self) -> None:
        with self._lock:
            goals, self._goals = list(self._goals.values()), {}
        for handle, _ in goals:
            handle.move_to(GoalState.LOST, reason="the connection to rosbridge was lost")

    def _tell(self, connected: bool) -> None:
        for tell in list(self.on_connection):
            tell(connected)


def _encode(value: Any) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise TypeError(f"{type(value).__name__} cannot be sent over rosbridge")


def _calm(roslibpy: Any) -> None:
    """Twisted logs every connection at level INFO."""
    logging.getLogger("twisted").setLevel(logging.WARNING)
