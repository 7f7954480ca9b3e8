"""The robot's own bus through rclpy: a node process in ROS's Python environment, and the transport that talks to it."""

from __future__ import annotations

import itertools
import os
import queue
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from envs.ros.goals import Goal
from envs.ros.messages import CompressedImage, Image, MalformedMessage, Message
from envs.ros.node.wire import Link
from envs.ros.transport import Feedback, GoalHandle, GoalState, M, NotConnected, ServedGoal, ServingTransport
from manifield.errors import InputError

HERE = Path(__file__).resolve().parent
LOOPBACK_PROFILE = HERE / "setup" / "fastdds_loopback.xml"
INSTALLED = HERE.parents[1] / ".ros"  # where envs/ros/setup/install.sh puts ROS by default
_END_WAIT = 3.0  # seconds for the node to leave by itself


def find_python(given: str | None) -> str:
    """The Python that can import rclpy: the one given, $MANIFIELD_ROS_PYTHON, `.ros/bin/python` of the checkout.

    Raises:
        InputError: there is none.
    """
    for choice in (given, os.environ.get("MANIFIELD_ROS_PYTHON"), str(INSTALLED / "bin" / "python")):
        if choice:
            if shutil.which(choice):
                return choice
            if choice == given:
                raise InputError(f"transport.python={given}: no such program")
    raise InputError(
        "no Python with rclpy was found: run envs/ros/setup/install.sh, or name one with transport.python=… "
        "(a sourced ROS 2's own is /usr/bin/python3), or use transport=rosbridge"
    )


def ros_environment(python: str, domain: int, loopback_only: bool) -> dict[str, str]:
    """Environment variables for a process in ROS's Python environment. domain: ROS_DOMAIN_ID."""
    variables = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    prefix = Path(python).absolute().parents[1]
    if (prefix / "share" / "ament_index").is_dir() and (prefix / "pyvenv.cfg").is_file():  # made of wheels, not sourced
        variables |= {"ROS_DISTRO": "jazzy", "AMENT_PREFIX_PATH": str(prefix), "VIRTUAL_ENV": str(prefix)}
    elif "PYTHONPATH" in os.environ:  # a sourced ROS is found by it
        variables["PYTHONPATH"] = os.environ["PYTHONPATH"]
    variables["ROS_DOMAIN_ID"] = str(domain)
    if loopback_only:
        variables["FASTRTPS_DEFAULT_PROFILES_FILE"] = str(LOOPBACK_PROFILE)
        variables["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "SYSTEM_DEFAULT"  # the profile has the say
    return variables


class RclpyTransport(ServingTransport):
    """ROS 2 through a node in a process of its own. When the node dies, the connection is lost; `start` begins anew."""

    def __init__(
        self, python: str | None = None, domain: int = 0, loopback_only: bool = True, name: str = "manifield"
    ) -> None:
        """
        Args:
            python: of ROS's environment, see `find_python`. domain: ROS_DOMAIN_ID.
            loopback_only: hear and be heard on this machine only; False for the network that ROS is set up for.
            name: of the node.
        """
        super().__init__()
        self._python, self._domain, self._loopback_only, self._name = find_python(python), domain, loopback_only, name
        self._process: subprocess.Popen | None = None
        self._link: Link | None = None
        self._listeners: dict[str, list[tuple[type[Any], Callable[[Any], None]]]] = {}
        self._latched: dict[str, bool] = {}
        self._goals: dict[int, tuple[GoalHandle, Feedback | None]] = {}
        self._served: dict[int, _Served] = {}
        self._servers: dict[str, tuple[type[Goal], Callable[[Goal], bool], Callable[[ServedGoal], Any]]] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.RLock()

    @property
    def connected(self) -> bool:
        return self._link is not None

    def start(self, timeout: float = 20.0) -> None:
        self.close()
        ours, theirs = socket.socketpair()
        try:
            self._process = subprocess.Popen(
                [self._python, str(HERE / "node"), str(theirs.fileno()), self._name],
                pass_fds=[theirs.fileno()],
                env=ros_environment(self._python, self._domain, self._loopback_only),
                start_new_session=True,  # Ctrl-C is for us; we tell the node
            )
        except OSError as error:
            raise NotConnected(f"{self._python} cannot be started: {error}") from None
        finally:
            theirs.close()
        link = Link(ours)
        ready: queue.Queue[bool] = queue.Queue()
        threading.Thread(target=self._listen, args=(link, ready), daemon=True, name="ros").start()
        try:
            is_ready = ready.get(timeout=timeout)
        except queue.Empty:
            is_ready = False
        if not is_ready:
            self._stop_process()
            link.close()
            raise NotConnected(f"the ROS node did not start within {timeout:g} s (see its messages above)")
        with self._lock:
            self._link = link
            self.session += 1
            for topic, listeners in self._listeners.items():
                link.send("subscribe", topic=topic, type=listeners[0][0].ROS_TYPE, latched=self._latched[topic])
            for action, (kind, _, _) in self._servers.items():
                link.send("serve", action=action, type=kind.ROS_TYPE)
        self._tell(True)

    def close(self) -> None:
        with self._lock:
            link, self._link = self._link, None
        if link is not None:
            link.close()
            self._lose_goals("the connection was closed")
        self._stop_process()

    def subscribe(self, topic: str, kind: type[M], callback: Callable[[M], None], latched: bool = False) -> None:
        with self._lock:
            known = self._listeners.setdefault(topic, [])
            known.append((kind, callback))
            if len(known) == 1:
                self._latched[topic] = latched
                if self._link is not None:
                    self._link.send("subscribe", topic=topic, type=kind.ROS_TYPE, latched=latched)

    def advertise(self, topic: str, kind: type[Message], latched: bool = False) -> None:
        self._connected_link().send("advertise", topic=topic, type=kind.ROS_TYPE, latched=latched)

    def publish(self, topic: str, message: Message, latched: bool = False) -> None:
        link = self._connected_link()
        content = {"topic": topic, "type": message.ROS_TYPE, "latched": latched, "message": message.to_wire()}
        if isinstance(message, Image | CompressedImage):  # where the node does not keep up, old ones are of no use
            link.send_newest(topic, "publish", **content)
        else:
            link.send("publish", **content)

    def prepare_action(self, action: str, kind: type[Goal]) -> None:
        self._connected_link().send("prepare_action", action=action, type=kind.ROS_TYPE)

    def send_goal(self, action: str, goal: Goal, on_feedback: Feedback | None = None) -> GoalHandle:
        link, number = self._connected_link(), next(self._numbers)
        handle = GoalHandle(action, lambda handle: link.send("cancel_goal", id=number))
        with self._lock:
            self._goals[number] = handle, on_feedback
        link.send("send_goal", id=number, action=action, type=goal.ROS_TYPE, goal=goal.to_wire())
        if self._link is not link:  # went in between: nobody would end it
            self._lose_goals("the connection went while the goal was being sent")
        return handle

    def cancel_all(self, action: str) -> None:
        self._connected_link().send("cancel_all", action=action)

    def serve(
        self, action: str, kind: type[Goal], accepts: Callable[[Goal], bool], run: Callable[[ServedGoal], Any]
    ) -> None:
        with self._lock:
            self._servers[action] = kind, accepts, run
            if self._link is not None:
                self._link.send("serve", action=action, type=kind.ROS_TYPE)

    @property
    def process_id(self) -> int | None:
        """Of the node's process, for whoever measures or kills it."""
        return self._process.pid if self._process else None

    def _connected_link(self) -> Link:
        link = self._link
        if link is None:
            raise NotConnected("there is no connection to ROS")
        return link

    def _listen(self, link: Link, ready: queue.Queue[bool]) -> None:
        while (frame := link.receive()) is not None:
            op = frame.pop("op")
            if op == "ready":
                ready.put(True)
            else:
                getattr(self, f"_on_{op}")(link, **frame)
        ready.put(False)
        with self._lock:
            if self._link is not link:
                return
            self._link = None
        self._lose_goals("the ROS node has died")
        self._tell(False)

    def _on_message(self, link: Link, topic: str, message: dict[str, Any]) -> None:
        for kind, callback in list(self._listeners.get(topic, ())):
            self.deliver(topic, kind, message, callback)

    def _on_problem(self, link: Link, kind: str, words: str) -> None:
        self.problem(kind, words)

    def _on_goal_feedback(self, link: Link, id: int, values: dict[str, Any]) -> None:
        known = self._goals.get(id)
        if known and known[1]:
            known[1](values)

    def _on_goal_state(self, link: Link, id: int, state: str, result: dict[str, Any], reason: str) -> None:
        known = self._goals.get(id)
        if known is None:
            return
        known[0].move_to(GoalState(state), result, reason)
        if known[0].state.is_final:
            with self._lock:
                self._goals.pop(id, None)

    def _on_goal_request(self, link: Link, id: int, action: str, goal: dict[str, Any]) -> None:
        kind, accepts, _ = self._servers[action]
        try:
            parsed = kind.parse(goal)
            accepted = bool(accepts(parsed))
        except MalformedMessage as error:
            self.problem(action, str(error))
            accepted = False
        if accepted:
            self._served[id] = _Served(parsed, action, id, link)
        link.send("answer", id=id, accepted=accepted)

    def _on_goal_begun(self, link: Link, id: int) -> None:
        served = self._served[id]
        run = self._servers[served.action][2]
        threading.Thread(target=run, args=(served,), daemon=True, name=served.action).start()

    def _on_cancel_request(self, link: Link, id: int) -> None:
        if id in self._served:
            self._served[id].cancel_asked.set()

    def _lose_goals(self, reason: str) -> None:
        with self._lock:
            goals, self._goals = list(self._goals.values()), {}
        for handle, _ in goals:
            handle.move_to(GoalState.LOST, reason=reason)

    def _tell(self, connected: bool) -> None:
        for tell in list(self.on_connection):
            tell(connected)

    def _stop_process(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        deadline = time.monotonic() + _END_WAIT
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()


class _Served(ServedGoal):
    def __init__(self, goal: Goal, action: str, number: int, link: Link) -> None:
        self.goal, self.action, self._number, self._link = goal, action, number, link
        self.cancel_asked = threading.Event()

    def feedback(self, values: dict[str, Any]) -> None:
        self._link.send("feedback", id=self._number, type=self.goal.ROS_TYPE, values=values)

    def succeed(self, result: dict[str, Any]) -> None:
        self._end("succeeded", result)

    def abort(self, result: dict[str, Any]) -> None:
        self._end("aborted", result)

    def confirm_cancel(self, result: dict[str, Any]) -> None:
        self._end("canceled", result)

    def _end(self, state: str, result: dict[str, Any]) -> None:
        self._link.send("end_goal", id=self._number, type=self.goal.ROS_TYPE, state=state, result=result)
