"""The safety layer: what is hostile does not reach the bus, and has its reason; the rest is within limits."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from envs.mujoco.panda import START
from envs.ros.checks import WORLD, MotionGoal, Refusal, sparse_path
from envs.ros.goals import FollowJointTrajectory, FrankaGrasp, FrankaMove, Goal, GripperCommand
from envs.ros.messages import JointTrajectory
from envs.ros.safety import Guard, Proposal, Stopped, deadline
from envs.ros.transport import ServedGoal
from tests.envs.ros.robot_feed import EPOCH, RobotFeed, make_config

DOWN = np.array([1.0, 0.0, 0.0, 0.0])
NO_CLOUD = np.zeros((0, 3))


class Robot(RobotFeed):
    """With a guard, and a controller that ends every goal in the way that `behave` says."""

    def __init__(self, **limits: Any) -> None:
        super().__init__(make_config(limits=limits))
        self.run(0.3)
        self.asked: list[Proposal] = []
        self.answer = True
        self.guard = Guard(
            self.transport,
            self.sensors,
            self.config,
            self.scene,
            self._confirm if limits.get("confirm") else None,
            self.wall,
        )
        self.behave = "succeed"
        config = self.config
        for action, kind in (
            (config.arm.trajectory_action, FollowJointTrajectory),
            (config.gripper.action, GripperCommand),
            (config.gripper.move_action, FrankaMove),
            (config.gripper.grasp_action, FrankaGrasp),
        ):
            self._robot.serve(action, kind, lambda goal: self.behave != "reject", self._serve)

    def _serve(self, served: ServedGoal) -> None:
        if self.behave == "succeed":
            served.succeed({"error_code": 0})
        elif self.behave == "abort":
            served.abort({"error_string": "motion aborted by reflex"})
        elif served.cancel_asked.wait(10):
            served.confirm_cancel({})

    def _confirm(self, proposal: Proposal) -> bool:
        self.asked.append(proposal)
        return self.answer

    def goal(self, **changes: Any) -> MotionGoal:
        tool = self.scene.tool_pose(self.joints)
        goal = MotionGoal(
            self.wall(), self.transport.session, WORLD, tool[:3, 3], Rotation.from_matrix(tool[:3, :3]).as_quat()
        )
        return replace(goal, **changes)

    def motion(self, to: np.ndarray, seconds: float = 2.0) -> tuple[MotionGoal, FollowJointTrajectory]:
        """A trajectory to joints [7], with the goal that it leads to."""
        tool = self.scene.tool_pose(to)
        goal = self.goal(position=tool[:3, 3], quaternion=Rotation.from_matrix(tool[:3, :3]).as_quat())
        times = np.linspace(0, seconds, 41)[1:]
        positions = self.joints + (to - self.joints) * (times / seconds)[:, None]
        velocities = np.tile((to - self.joints) / seconds, (40, 1))
        return goal, FollowJointTrajectory(JointTrajectory(tuple(self.config.arm.joints), times, positions, velocities))

    def reasons(self) -> list[str]:
        """What was said on the topic for refusals."""
        topic = self.config.topics.refusals
        return [json.loads(message.text)["reason"] for name, message in self.bus.said if name == topic]

    def reasons_since(self, count: int) -> list[str]:
        """What was said after the first `count` messages, which are forgotten."""
        found = [json.loads(message.text)["reason"] for _, message in self.bus.said[count:]]
        del self.bus.said[count:]
        return found


NEAR = START + [0.2, 0.1, 0.0, -0.1, 0.0, 0.1, 0.0]


@pytest.fixture
def robot() -> Robot:
    return Robot()


def test_a_sound_motion_goes_through(robot: Robot) -> None:
    goal, command = robot.motion(NEAR)
    robot.guard.follow(goal, command, NO_CLOUD)
    assert robot.bus.commands == [command]
    assert robot.reasons() == []


bad = st.sampled_from([np.nan, np.inf, -np.inf])
number = st.floats(-5, 5)


def outside(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(high + 1e-3, high + 10) | st.floats(low - 10, low - 1e-3) | st.sampled_from([1e9, -1e9, 1e300])


KINDS = ("not finite", "workspace", "collision", "step", "quaternion", "frame", "old", "future", "session", "malformed")


@st.composite
def hostile_goals(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """(kind of refusal, what is wrong with an otherwise sound goal)."""
    kind = draw(st.sampled_from(KINDS))
    if kind == "not finite":
        position, quaternion = np.array([0.3, 0.0, 1.2]), DOWN.copy()
        target = draw(st.sampled_from([position, quaternion]))
        target[draw(st.integers(0, len(target) - 1))] = draw(bad)
        return kind, {"position": position, "quaternion": quaternion}
    if kind == "workspace":
        position = np.array([0.3, 0.0, 1.2])
        axis = draw(st.integers(0, 2))
        position[axis] = draw(outside([-0.3, -0.5, 0.752][axis], [0.7, 0.5, 1.6][axis]))
        return kind, {"position": position}
    if kind == "collision":  # through the table, which is the box below z = 0.752, or so near that the hand is in it
        z = draw(st.floats(0.752, 0.7615))
        return kind, {"position": np.array([draw(st.floats(0.15, 0.45)), draw(st.floats(-0.15, 0.15)), z])}
    if kind == "step":
        side = draw(st.sampled_from([-1, 1]))
        return kind, {"position": np.array([draw(st.floats(-0.3, -0.25)), 0.49 * side, draw(st.floats(0.8, 0.85))])}
    if kind == "quaternion":
        length = draw(st.floats(0, 0.99) | st.floats(1.01, 1e6))
        return kind, {"quaternion": DOWN * length}
    if kind == "frame":
        return kind, {
            "frame_id": draw(
                st.sampled_from(["", "panda_link0", "WORLD", "map", "camera"])
                | st.text(max_size=8).filter(lambda name: name != WORLD)
            )
        }
    if kind == "old":
        return kind, {"age": draw(st.floats(30.1, 1e6))}
    if kind == "future":
        return kind, {"age": -draw(st.floats(0.06, 1e6))}
    if kind == "session":
        return kind, {"session": draw(st.integers(-5, 0) | st.integers(2, 9))}
    shape = draw(st.sampled_from([(0,), (2,), (4,), (3, 1), (7,)]))
    return kind, {"position": np.full(shape, 0.3)}


@pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=pytest.mark.ros)])
def test_hostile_goals(count: int) -> None:
    """None reaches the bus, and each has its reason, in the log and on the topic."""
    robot = Robot(step=0.75)
    tool = robot.scene.tool_pose(robot.joints)
    refused: Counter[str] = Counter()

    @settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(hostile_goals())
    def send(case: tuple[str, dict[str, Any]]) -> None:
        kind, changes = case
        age = changes.pop("age", 0.0)
        goal = robot.goal(stamp=robot.wall() - int(age * 1e9), **changes)
        before, logged = len(robot.bus.said), len(log)
        with pytest.raises(Refusal) as caught:
            robot.guard.check(goal, tool)
        assert caught.value.kind == kind
        assert robot.reasons_since(before) == [str(caught.value)]
        assert log[logged:] == [f"refused: {caught.value}"]
        refused[kind] += 1

    log: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: log.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("envs.ros.safety")
    logger.addHandler(handler)
    logger.propagate = False
    try:
        send()
    finally:
        logger.removeHandler(handler)
        logger.propagate = True
    print(f"{sum(refused.values())} goals refused: {dict(refused)}")
    assert sum(refused.values()) >= count and set(refused) == set(KINDS)
    assert robot.bus.commands == []
    assert sum(robot.guard.refusals.values()) == sum(refused.values())


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(number | bad, min_size=7, max_size=7), st.booleans(), st.integers(-40, 2))
def test_what_is_let_through_is_within_limits(values: list[float], may_touch: bool, age: int) -> None:
    """Any goal whatever: either refused, or inside everything that the config says, by an independent reckoning."""
    robot = SHARED
    position, quaternion = np.array(values[:3]), np.array(values[3:])
    if values[6] > 0 and np.isfinite(quaternion).all() and np.linalg.norm(quaternion) > 0:
        quaternion = quaternion / np.linalg.norm(quaternion)
    goal = robot.goal(position=position, quaternion=quaternion, may_touch=may_touch, stamp=robot.wall() + age * 10**9)
    try:
        robot.guard.check(goal, robot.scene.tool_pose(robot.joints))
    except Refusal:
        return
    finally:
        assert robot.bus.commands == []
    tool = robot.scene.tool_pose(robot.joints)[:3, 3]
    assert -0.3 <= position[0] <= 0.7 and -0.5 <= position[1] <= 0.5 and 0.752 <= position[2] <= 1.6
    assert np.linalg.norm(position - tool) <= 0.8 and abs(np.linalg.norm(quaternion) - 1) < 2e-3
    assert -30 <= age <= 0


SHARED = Robot()


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("joints", lambda t: replace(t, names=t.names[::-1])),
        ("joints", lambda t: replace(t, names=())),
        ("malformed", lambda t: replace(t, positions=t.positions[:3])),
        ("malformed", lambda t: replace(t, times=t.times[:0], positions=t.positions[:0], velocities=t.velocities[:0])),
        ("malformed", lambda t: replace(t, velocities=t.velocities[:5])),
        ("not finite", lambda t: replace(t, positions=np.where(t.times[:, None] > 1.9, np.nan, t.positions))),
        ("not finite", lambda t: replace(t, velocities=np.full_like(t.velocities, np.inf))),
        ("not finite", lambda t: replace(t, times=np.append(t.times[:-1], np.inf))),
        ("stamp", lambda t: replace(t, stamp=EPOCH)),
        ("times", lambda t: replace(t, times=t.times[::-1])),
        ("times", lambda t: replace(t, times=t.times - 1.0)),
        ("times", lambda t: replace(t, times=t.times * 100)),
        ("joint limit", lambda t: replace(t, positions=t.positions + [0, 0, 0, 5.0, 0, 0, 0])),
        ("speed", lambda t: replace(t, times=t.times / 50, velocities=t.velocities[:0])),
        ("speed", lambda t: replace(t, velocities=t.velocities * 100)),
        ("speed", lambda t: replace(t, positions=t.positions + [0.5, 0, 0, 0, 0, 0, 0])),
        ("start", lambda t: replace(t, positions=t.positions + 0.1, times=np.append(0.0, t.times[:-1]))),
        ("goal", lambda t: replace(t, times=t.times[:-10], positions=t.positions[:-10], velocities=t.velocities[:-10])),
    ],
)
def test_hostile_trajectories(robot: Robot, kind: str, change: Any) -> None:
    goal, command = robot.motion(NEAR)
    with pytest.raises(Refusal) as caught:
        robot.guard.follow(goal, FollowJointTrajectory(change(command.trajectory)), NO_CLOUD)
    assert caught.value.kind == kind
    assert robot.bus.commands == [] and robot.reasons() == [str(caught.value)]


def test_through_the_table_and_through_what_is_seen(robot: Robot) -> None:
    under = START + [0.0, 1.2, 0.0, 0.0, 0.0, 0.3, 0.0]
    assert robot.scene.collision(np.stack([START, under]), True, NO_CLOUD) is not None
    goal, command = robot.motion(under, 4.0)
    with pytest.raises(Refusal, match="collision|workspace"):
        robot.guard.follow(replace(goal, may_touch=True), command, NO_CLOUD)
    goal, command = robot.motion(NEAR)
    obstacle = robot.scene.tool_pose(NEAR)[:3, 3] + np.array([[0, 0, 0.0], [0, 0, 0.02]])
    with pytest.raises(Refusal, match="collision"):
        robot.guard.follow(goal, command, obstacle)
    robot.guard.follow(replace(goal, may_touch=True), command, obstacle)


def test_the_arm_through_itself(robot: Robot) -> None:
    folded = np.array([0.0, -1.7, 0.0, -3.0, 0.0, 0.5, 0.0])
    assert "itself" in str(robot.scene.collision(np.stack([START, folded]), True, NO_CLOUD))


@pytest.mark.parametrize(
    "command",
    [
        GripperCommand(0.05, 10.0),
        GripperCommand(-0.01, 10.0),
        GripperCommand(np.nan, 10.0),
        GripperCommand(0.0, 1e6),
        GripperCommand(0.0, -1.0),
        FrankaMove(0.2, 0.1),
        FrankaMove(0.08, 5.0),
        FrankaMove(0.08, np.inf),
        FrankaGrasp(0.02, 0.1, 500.0, 0.01, 0.01),
        FrankaGrasp(0.02, 0.1, 20.0, np.nan, 0.01),
        FollowJointTrajectory(JointTrajectory((), np.zeros(0), np.zeros((0, 0)), np.zeros((0, 0)))),
    ],
)
def test_hostile_gripper_commands(robot: Robot, command: Goal) -> None:
    with pytest.raises(Refusal):
        robot.guard.grip(robot.config.gripper.action, command)
    assert robot.bus.commands == [] and len(robot.reasons()) == 1


def test_gripper_commands_go_through(robot: Robot) -> None:
    gripper = robot.config.gripper
    robot.guard.grip(gripper.action, GripperCommand(0.0, 20.0))
    robot.guard.grip(gripper.move_action, FrankaMove(0.08, 0.1))
    robot.guard.grip(gripper.grasp_action, FrankaGrasp(0.0, 0.1, 20.0, 0.08, 0.08))
    assert len(robot.bus.commands) == 3


@pytest.mark.parametrize("changes", [{"joints": False}, {"color": False}, {"skew": 1.0}, {"pressed": True}])
def test_no_motion_with_unsound_sensors(robot: Robot, changes: dict[str, Any]) -> None:
    robot.run(0.2, **changes)
    with pytest.raises(Refusal):
        robot.guard.follow(*robot.motion(NEAR), NO_CLOUD)
    assert robot.bus.commands == []


def test_tf_and_the_model_must_agree(robot: Robot) -> None:
    robot.joints = NEAR.copy()
    robot.run(0.2, positions=START)
    with pytest.raises(Refusal, match="disagree about the tool by"):
        robot.guard.follow(robot.goal(), robot.motion(NEAR)[1], NO_CLOUD)


def test_the_emergency_stop_latches_until_a_person_resets(robot: Robot) -> None:
    robot.run(0.02, pressed=True)
    assert robot.guard.latched == "emergency stop: pressed"
    with pytest.raises(Refusal, match="cannot be reset"):
        robot.guard.reset("somebody")
    robot.run(0.1)
    with pytest.raises(Refusal, match="latched.*a person must look and reset"):
        robot.guard.follow(*robot.motion(NEAR), NO_CLOUD)
    assert robot.bus.commands == []
    robot.guard.reset("somebody")
    robot.guard.follow(*robot.motion(NEAR), NO_CLOUD)
    assert len(robot.bus.commands) == 1


def test_an_arm_that_gives_up_is_not_asked_again(robot: Robot) -> None:
    robot.behave = "abort"
    with pytest.raises(Stopped, match="motion aborted by reflex"):
        robot.guard.follow(*robot.motion(NEAR), NO_CLOUD)
    with pytest.raises(Refusal, match="latched"):
        robot.guard.follow(*robot.motion(NEAR), NO_CLOUD)
    assert len(robot.bus.commands) == 1


def test_a_rejected_goal_counts_as_failed(robot: Robot) -> None:
    robot.behave = "reject"
    with pytest.raises(Stopped, match="rejected"):
        robot.guard.follow(*robot.motion(NEAR), NO_CLOUD)


def test_the_deadline_of_an_action(robot: Robot) -> None:
    robot.behave = "never"
    keep = threading.Event()

    def feed() -> None:
        while not keep.wait(0.01):
            robot.now += 0.01
            robot.tell()

    threading.Thread(target=feed, daemon=True).start()
    begin = time.monotonic()
    try:
        with pytest.raises(Stopped, match="deadline.*no result after") as caught:
            robot.guard.follow(*robot.motion(NEAR, 0.5), NO_CLOUD)
    finally:
        keep.set()
    assert caught.value.kind == "deadline"
    assert deadline(0.5) == pytest.approx(1.05)
    assert 1.0 < time.monotonic() - begin < 1.5
    assert robot.guard.latched is not None


def test_an_interruption_cancels() -> None:
    robot = Robot()
    robot.behave = "never"

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        robot.guard.follow(*robot.motion(NEAR), NO_CLOUD, interrupt)
    assert robot.guard.latched == "interrupted: KeyboardInterrupt"


def test_a_person_is_asked_and_may_say_no() -> None:
    robot = Robot(confirm=True)
    robot.answer = False
    with pytest.raises(Refusal, match="a person said no"):
        robot.guard.follow(*robot.motion(NEAR), NO_CLOUD)
    assert robot.bus.commands == [] and len(robot.asked) == 1
    robot.answer = True
    robot.guard.follow(*robot.motion(NEAR), NO_CLOUD)
    assert len(robot.bus.commands) == 1


def test_what_changed_while_the_person_thought_is_seen() -> None:
    robot = Robot(confirm=True)
    motion = robot.motion(NEAR)
    robot._confirm = lambda proposal: robot.run(0.3, joints=False) or True  # type: ignore[method-assign]
    robot.guard._confirm = robot._confirm
    with pytest.raises(Refusal, match="nothing heard of the arm's joints"):
        robot.guard.follow(*motion, NO_CLOUD)
    assert robot.bus.commands == []


def test_there_must_be_somebody_to_ask() -> None:
    robot = Robot()
    config = make_config(limits={"confirm": True})
    with pytest.raises(ValueError, match="nobody to ask"):
        Guard(robot.transport, robot.sensors, config, robot.scene, None)


def test_a_dry_run_checks_and_sends_nothing() -> None:
    robot = Robot(dry_run=True)
    robot.guard.follow(*robot.motion(NEAR), NO_CLOUD)
    robot.guard.grip(robot.config.gripper.action, GripperCommand(0.0, 20.0))
    assert robot.bus.commands == []
    with pytest.raises(Refusal):
        robot.guard.grip(robot.config.gripper.action, GripperCommand(1.0, 20.0))


def test_a_goal_from_before_a_reconnection_is_not_sent(robot: Robot) -> None:
    motion = robot.motion(NEAR)
    robot.transport.drop()
    robot.transport.start()
    robot.run(0.3)
    with pytest.raises(Refusal, match="observe anew"):
        robot.guard.follow(*motion, NO_CLOUD)
    assert robot.bus.commands == []


def test_corners_of_a_path() -> None:
    corners = np.array([[0.0] * 7, [1.0] * 7, [1.0] * 6 + [2.0]])
    path = np.concatenate([np.linspace(corners[0], corners[1], 30), np.linspace(corners[1], corners[2], 30)[1:]])
    assert np.allclose(sparse_path(path), corners)
