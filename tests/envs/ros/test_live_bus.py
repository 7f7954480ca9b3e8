"""Both transports on a real bus: topics, latching, goals, cancellation, latency, and who can hear it."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from envs.ros.goals import FollowJointTrajectory, FrankaGrasp, FrankaMove, Goal, GripperCommand
from envs.ros.messages import Bool, Image, JointState, JointTrajectory, PoseStamped, Transform, Transforms
from envs.ros.rclpy_bus import RclpyTransport
from envs.ros.rosbridge import RosbridgeTransport
from envs.ros.transport import GoalState, NotConnected, ServedGoal, Transport
from tests.envs.ros.conftest import DOMAIN, Bridge, wait_for

pytestmark = pytest.mark.ros
BOTH = ("rclpy", "rosbridge")


@pytest.fixture(scope="module")
def robot(ros_python: str) -> Iterator[RclpyTransport]:
    """The other side: a node that publishes and serves."""
    with RclpyTransport(domain=DOMAIN, name="robot") as transport:
        yield transport


@pytest.fixture(params=BOTH)
def client(request: pytest.FixtureRequest, bridge: Bridge) -> Iterator[Transport]:
    transport: Transport = (
        RclpyTransport(domain=DOMAIN, name="client")
        if request.param == "rclpy"
        else RosbridgeTransport(port=bridge.port)
    )
    with transport:
        yield transport


def heard(transport: Transport, topic: str, kind: Any, latched: bool = False) -> list[Any]:
    found: list[Any] = []
    transport.subscribe(topic, kind, found.append, latched)
    return found


@pytest.mark.parametrize(
    "message",
    [
        Image(7, "cam", "rgb8", np.arange(48 * 64 * 3, dtype=np.uint32).reshape(48, 64, 3).astype(np.uint8)),
        Image(8, "cam", "16UC1", np.arange(48 * 64, dtype=np.uint16).reshape(48, 64)),
        Image(8, "cam", "32FC1", np.random.default_rng(0).normal(size=(48, 64)).astype(np.float32)),
        JointState(9, ("a", "b"), np.array([0.25, -1.5]), np.array([1.0, 2.0])),
        PoseStamped(10, "world", np.array([1.0, 2.0, 3.0]), np.array([0.0, 0.0, 0.0, 1.0])),
        Transforms((Transform(11, "base", "cam", np.eye(4)),)),
    ],
    ids=lambda message: type(message).__name__,
)
def test_messages_cross_in_both_directions(robot: RclpyTransport, client: Transport, message: Any) -> None:
    name = f"/test/{type(message).__name__.lower()}_{type(client).__name__.lower()}"
    for number, (source, target) in enumerate(((robot, client), (client, robot))):
        topic = f"{name}_{number}_{getattr(message, 'encoding', 'x').lower()}"
        found = heard(target, topic, type(message))
        source.advertise(topic, type(message))

        def sent(source: Transport = source, topic: str = topic, found: list[Any] = found) -> bool:
            source.publish(topic, message)
            time.sleep(0.05)
            return bool(found)

        wait_for(sent, 10, f"{topic} arrives")
        assert found[0].to_wire() == message.to_wire()


def test_who_joins_late_gets_the_latched_value(robot: RclpyTransport, client: Transport) -> None:
    topic = f"/test/latched_{type(client).__name__.lower()}"
    robot.publish(topic, Bool(True), latched=True)
    time.sleep(1.0)
    found = heard(client, topic, Bool, latched=True)
    wait_for(lambda: found, 5, "the latched value arrives")
    assert found[0] == Bool(True)


def test_what_a_later_publisher_latches_arrives_too(robot: RclpyTransport, client: Transport) -> None:
    topic = f"/test/latched_later_{type(client).__name__.lower()}"
    found = heard(client, topic, Bool, latched=True)
    time.sleep(1.0)
    robot.publish(topic, Bool(True), latched=True)  # once, before either side can have found the other
    wait_for(lambda: found, 10, "the latched value arrives")
    assert found[0] == Bool(True)


def test_a_publisher_that_does_not_latch_is_heard_too(robot: RclpyTransport, client: Transport) -> None:
    topic = f"/test/unlatched_{type(client).__name__.lower()}"
    found = heard(client, topic, Bool, latched=True)
    robot.advertise(topic, Bool)

    def sent() -> bool:
        robot.publish(topic, Bool(True))
        time.sleep(0.05)
        return bool(found)

    wait_for(sent, 5, "the value arrives")


def trajectory(points: int = 5) -> FollowJointTrajectory:
    times = 0.02 * np.arange(1, points + 1)
    return FollowJointTrajectory(JointTrajectory(("a", "b"), times, np.ones((points, 2)), np.zeros((points, 2))))


class Server:
    """Serves one action as told."""

    def __init__(self, robot: RclpyTransport, action: str, kind: type[Goal]) -> None:
        self.taken: list[Goal] = []
        self.way = "succeed"
        robot.serve(action, kind, lambda goal: self.way != "reject", self.run)

    def run(self, served: ServedGoal) -> None:
        self.taken.append(served.goal)
        served.feedback({})
        if self.way == "abort":
            served.abort({})
        elif self.way == "wait":
            served.cancel_asked.wait(20)
            served.confirm_cancel({})
        else:
            served.succeed({})


@pytest.mark.parametrize(
    ("goal", "name"),
    [
        (trajectory(), "follow"),
        (GripperCommand(0.04, 20.0), "gripper"),
        (FrankaMove(0.08, 0.1), "move"),
        (FrankaGrasp(0.0, 0.1, 20.0, 0.005, 0.08), "grasp"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_goals_of_every_kind(robot: RclpyTransport, client: Transport, goal: Goal, name: str) -> None:
    action = f"/test/{name}_{type(client).__name__.lower()}"
    server = Server(robot, action, type(goal))
    client.prepare_action(action, type(goal))

    def found() -> bool:
        handle = client.send_goal(action, goal)
        return handle.wait(5) and handle.state is GoalState.SUCCEEDED

    wait_for(found, 20, "the server is discovered")
    server.taken.clear()
    for way, state in (
        ("succeed", GoalState.SUCCEEDED),
        ("abort", GoalState.ABORTED),
        ("reject", GoalState.REJECTED),
    ):
        server.way = way
        handle = client.send_goal(action, goal)
        assert handle.wait(5), f"{way}: {handle.state}"
        assert handle.state is state, (way, handle.state, handle.reason, handle.result)
    assert len(server.taken) == 2
    assert server.taken[0].to_wire() == goal.to_wire()
    server.way = "wait"
    handle = client.send_goal(action, goal)
    wait_for(lambda: len(server.taken) == 3, 5, "the goal is taken")
    begin = time.monotonic()
    handle.cancel()
    assert handle.wait(5) and handle.state is GoalState.CANCELED
    assert time.monotonic() - begin < 0.2


def test_an_action_without_a_server(client: Transport) -> None:
    handle = client.send_goal("/test/nobody", trajectory())
    if isinstance(client, RclpyTransport):
        assert handle.wait(5) and handle.state is GoalState.LOST and "no server" in handle.reason
    else:  # the server of rosbridge waits for it in silence: the deadline of whoever asked must end it
        assert not handle.wait(0.5) or handle.state is not GoalState.SUCCEEDED
    handle.cancel()


def test_a_malformed_message_is_a_problem_and_no_message(robot: RclpyTransport, client: Transport) -> None:
    """A rotation of length zero is a valid ROS message and no pose."""
    topic = f"/test/malformed_{type(client).__name__.lower()}"
    found = heard(client, topic, Transforms)
    broken = Transforms((Transform(0, "a", "b", np.eye(4)),)).to_wire()
    broken["transforms"][0]["transform"]["rotation"]["w"] = 0.0

    class Broken(Transforms):
        def to_wire(self) -> dict[str, Any]:
            return broken

    def told() -> bool:
        robot.publish(topic, Broken(()))
        time.sleep(0.05)
        return bool(client.problems[topic])

    wait_for(told, 5, "the problem is counted")
    assert found == []


def test_a_bridges_complaint_is_counted(bridge: Bridge) -> None:
    with RosbridgeTransport(port=bridge.port) as client:
        told: list[str] = []
        client.on_problem.append(told.append)
        client._send({"op": "publish", "topic": "/test/complaint", "msg": {"data": 3}})
        client._send({"op": "no_such_operation", "id": "x"})
        client._send({"op": "subscribe", "topic": "/test/complaint2", "type": "no_such_msgs/msg/Thing"})
        wait_for(lambda: client.problems["rosbridge"], 5, "the bridge complains")
        assert told


def test_without_a_connection_nothing_is_sent_or_kept(robot: RclpyTransport, bridge: Bridge) -> None:
    client = RosbridgeTransport(port=bridge.port)
    for send in (lambda: client.publish("/test/x", Bool(True)), lambda: client.send_goal("/test/x", trajectory())):
        with pytest.raises(NotConnected):
            send()
    found = heard(robot, "/test/x", Bool)
    with client:
        time.sleep(0.5)
    assert found == []


def test_not_a_number_is_refused_before_it_is_sent(bridge: Bridge) -> None:
    with RosbridgeTransport(port=bridge.port) as client, pytest.raises(ValueError):
        client.send_goal("/test/x", GripperCommand(float("nan"), 1.0))


def test_commands_are_not_delayed_by_fast_timers(robot: RclpyTransport, client: Transport) -> None:
    """Joint states at 100 Hz, pictures at 30 Hz in both directions: a command and its echo still take milliseconds."""
    kind = type(client).__name__.lower()
    ended = threading.Event()
    picture = np.zeros((128, 128, 3), np.uint8)

    def chatter(transport: Transport, name: str) -> None:
        upcoming, number = time.monotonic(), 0
        while not ended.is_set():
            transport.publish(f"/test/{name}/joints", JointState(time.time_ns(), ("a",), np.zeros(1)))
            if number % 3 == 0:
                transport.publish(f"/test/{name}/picture", Image(time.time_ns(), "", "rgb8", picture))
            number += 1
            upcoming += 0.01
            time.sleep(max(0.0, upcoming - time.monotonic()))

    seen = heard(client, f"/test/{kind}_robot/joints", JointState)
    heard(client, f"/test/{kind}_robot/picture", Image)
    heard(robot, f"/test/{kind}_client/joints", JointState)
    robot.subscribe(f"/test/{kind}/command", PoseStamped, lambda pose: robot.publish(f"/test/{kind}/echo", pose))
    robot.advertise(f"/test/{kind}/echo", PoseStamped)
    echoes: dict[int, float] = {}
    client.subscribe(f"/test/{kind}/echo", PoseStamped, lambda pose: echoes.setdefault(pose.stamp, time.perf_counter()))
    client.advertise(f"/test/{kind}/command", PoseStamped)
    threads = [
        threading.Thread(target=chatter, args=(robot, f"{kind}_robot"), daemon=True),
        threading.Thread(target=chatter, args=(client, f"{kind}_client"), daemon=True),
    ]
    for thread in threads:
        thread.start()
    sent: dict[int, float] = {}
    try:
        wait_for(lambda: len(seen) > 20, 10, "the joints are heard")
        for number in range(1, 201):
            pose = PoseStamped(number, "world", np.zeros(3), np.array([0, 0, 0, 1.0]))
            sent[number] = time.perf_counter()
            client.publish(f"/test/{kind}/command", pose)
            time.sleep(0.015)
        time.sleep(0.3)
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    trips = 1e3 * np.array([echoes[number] - sent[number] for number in sent if number in echoes])
    print(f"{kind}: {len(trips)} echoes, median {np.median(trips):.1f} ms, 95 % {np.percentile(trips, 95):.1f} ms")
    assert len(trips) > 150
    assert np.median(trips) < 10


def test_a_dead_node_is_noticed_and_started_again(robot: RclpyTransport) -> None:
    changes: list[bool] = []
    client = RclpyTransport(domain=DOMAIN, name="mortal")
    client.on_connection.append(changes.append)
    with client:
        found = heard(client, "/test/mortal", Bool)
        process = client.process_id
        assert process is not None
        os.kill(process, 9)
        begin = time.monotonic()
        wait_for(lambda: not client.connected, 2, "the death is noticed")
        assert time.monotonic() - begin < 0.5
        with pytest.raises(NotConnected):
            client.publish("/test/mortal", Bool(True))
        client.start()
        assert client.session == 2 and changes == [True, False, True]

        def sent() -> bool:
            robot.publish("/test/mortal", Bool(True))
            time.sleep(0.05)
            return bool(found)

        wait_for(sent, 10, "the subscription is renewed")


def test_nothing_listens_but_on_loopback(robot: RclpyTransport, bridge: Bridge, rig: Any) -> None:
    """Every TCP and UDP socket of every process that was started here."""
    mine = {os.getpid()}
    for _ in range(5):  # and its children's children
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                except (OSError, IndexError):
                    continue
                if parent in mine:
                    mine.add(int(entry.name))
    inodes = set()
    for pid in mine:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            try:
                target = os.readlink(link)
            except OSError:
                continue
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    bound = []
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            listening = fields[3] == "0A" if table.startswith("tcp") else fields[2].split(":")[1] == "0000"
            if fields[9] in inodes and listening:
                bound.append((table, fields[1]))
    assert len([b for b in bound if b[0] == "udp"]) >= 4, bound  # the nodes are seen at all
    loopback = ("0100007F", "0" * 24 + "01000000", "0000000000000000FFFF00000100007F")
    assert [b for b in bound if b[1].split(":")[0] not in loopback] == []


def test_the_bridge_script_does_not_listen_elsewhere_by_default() -> None:
    script = Path(__file__).resolve().parents[3] / "envs" / "ros" / "setup" / "rosbridge.sh"
    assert '--bind "${2:-127.0.0.1}:' in script.read_text()
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
