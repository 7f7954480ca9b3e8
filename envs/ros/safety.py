"""The safety layer between a policy and the bus. It is the only part that sends commands, over whichever transport.

Before a motion it refuses (`Refusal`), during one it stops (`Stopped`): cancels the goal, lets the controller hold its
position, and stays latched until a person resets it. Each of both has its reason in the log and on a topic.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from envs.ros.checks import MotionGoal, Refusal, check_goal, check_gripper, check_path, check_trajectory
from envs.ros.config import RosConfig
from envs.ros.frames import NoTransform
from envs.ros.geometry import interpolate, pose_distance
from envs.ros.goals import FollowJointTrajectory, Goal, MoveGroup
from envs.ros.messages import PoseStamped, Text
from envs.ros.planning import PlanningScene
from envs.ros.sensing import Sensors
from envs.ros.transport import GoalHandle, GoalState, NotConnected, Transport

logger = logging.getLogger(__name__)
TICK = 0.005  # seconds between two looks at sensors and goal while the arm moves
CANCEL_WAIT = 0.3  # seconds for a cancellation to be confirmed
CANCELLATIONS, CANCELLATION_PAUSE = 10, 0.5  # how often, and seconds between, after a reconnection
POSE_RATE = 50.0  # poses a second to a Cartesian controller
AT_REST = 0.02  # rad/s


class Stopped(Exception):
    """A motion under way was stopped. kind: a word; the message is the whole reason."""

    def __init__(self, kind: str, words: str) -> None:
        super().__init__(f"{kind}: {words}")
        self.kind = kind


@dataclass(frozen=True)
class Proposal:
    """What a person is asked to confirm. path: [N, J] joints, or None where the controller plans. seconds: how long it
    will take."""

    goal: MotionGoal
    path: np.ndarray | None
    seconds: float
    words: str


Confirm = Callable[[Proposal], bool]


def deadline(expected: float) -> float:
    """Seconds that an action may take that should take `expected`."""
    return 1.1 * expected + 0.5


class Guard:
    """See the module. One command at a time.

    Args:
        scene: the planner's; None for an arm that it has no model of. confirm: asks a person; None asks nobody.

    Attributes:
        latched: why nothing moves any more, or None. refusals: how many of which kind there were.
    """

    def __init__(
        self,
        transport: Transport,
        sensors: Sensors,
        config: RosConfig,
        scene: PlanningScene | None,
        confirm: Confirm | None = None,
        wall: Callable[[], int] = time.time_ns,
    ) -> None:
        if config.limits.confirm and confirm is None:
            raise ValueError("limits.confirm asks for a person's consent, and there is nobody to ask")
        self._transport, self._sensors, self._config, self._scene = transport, sensors, config, scene
        self._confirm, self._wall = confirm, wall
        self._limits = config.limits
        self.latched: str | None = None
        self.refusals: dict[str, int] = {}
        self._active: GoalHandle | None = None
        self._busy = threading.Lock()
        sensors.on_stop.append(self._on_stop)
        transport.on_connection.append(self._on_connection)

    def check_latch(self) -> None:
        """Raises `Refusal` after a stop that nobody has reset."""
        self._try(self._check_latch)

    def check(self, goal: MotionGoal, tool: np.ndarray) -> None:
        """Whether a goal may be planned for at all. tool: [4, 4] where the tool is.

        Raises:
            Refusal: it may not.
        """

        def check() -> None:
            self._check_state()
            check_goal(goal, tool, self._wall(), self._transport.session, self._limits)

        self._try(check)

    def follow(
        self,
        goal: MotionGoal,
        command: FollowJointTrajectory,
        cloud: np.ndarray,
        tick: Callable[[], None] | None = None,
    ) -> None:
        """Carry a planned trajectory out. cloud: [N, 3] what the cameras see, see `PlanningScene.cloud`.

        Raises:
            Refusal: not sent. Stopped: stopped on the way.
        """
        trajectory, config = command.trajectory, self._config

        def check() -> None:
            self._check_present(goal)
            joints = self._sensors.present_joints()
            assert joints is not None and self._scene is not None
            check_trajectory(trajectory, joints, config.arm.joints, self._limits)
            check_path(trajectory, joints, goal, self._scene, cloud, self._limits, config.arm.arrival)

        self._ask(goal, check, trajectory.positions, float(trajectory.times[-1]) if len(trajectory.times) else 0.0)
        if not self._limits.dry_run:
            self._carry_out(config.arm.trajectory_action, command, float(trajectory.times[-1]), tick)

    def move_group(
        self, goal: MotionGoal, command: MoveGroup, expected: float, tick: Callable[[], None] | None = None
    ) -> None:
        """Let MoveIt plan and go. expected: seconds, planning included. Raises as `follow`."""

        def check() -> None:
            self._check_present(goal)
            if not (np.isfinite(command.position).all() and np.isfinite(command.quaternion).all()):
                raise Refusal("not finite", "the goal for MoveIt")

        self._ask(goal, check, None, expected)
        if not self._limits.dry_run:
            self._carry_out(self._config.arm.moveit_action, command, expected, tick)

    def go_straight(
        self,
        goal: MotionGoal,
        to_message: Callable[[np.ndarray], PoseStamped],
        expected: float,
        tick: Callable[[], None] | None = None,
    ) -> None:
        """Lead a Cartesian controller along the straight line. to_message: of a world pose [4, 4]. expected: seconds,
        which set the speed. Raises as `follow`."""
        self._ask(goal, lambda: self._check_present(goal), None, expected)
        if self._limits.dry_run:
            return
        topic, start, target = self._config.arm.pose_topic, self._tool(), goal.matrix()
        arrival, begin = self._config.arm.arrival, time.monotonic()

        def send(pose: np.ndarray) -> None:
            self._transport.publish(topic, to_message(pose))

        with self._alone():
            sent = -1.0
            while True:  # an interruption leaves the last pose sent, at most 1 / POSE_RATE ahead of the tool
                passed = time.monotonic() - begin
                reason = self._reason_to_stop()
                if reason is None and passed > deadline(expected):
                    reason = ("deadline", f"not there after {passed:.1f} s (expected {expected:.1f} s)")
                if reason is not None:
                    try:
                        send(self._tool())  # a Cartesian controller holds where it is told to be
                    except (NotConnected, Refusal):
                        pass
                    self._stop(*reason)
                if passed - sent >= 1 / POSE_RATE and sent < expected:
                    try:
                        send(interpolate(start, target, min(1.0, passed / max(expected, 1e-3))))
                    except NotConnected as error:
                        self._stop("connection", str(error))
                    sent = passed
                try:
                    distance, turn = pose_distance(self._tool(), target)
                except Refusal as refusal:
                    self._stop(refusal.kind, str(refusal))
                newest = self._sensors.arm.newest
                if sent >= expected and distance <= arrival[0] and turn <= arrival[1] and newest is not None:
                    if np.abs(newest.velocities).max(initial=0.0) < AT_REST:
                        return
                if tick:
                    tick()
                time.sleep(TICK)

    def grip(self, action: str, command: Goal, tick: Callable[[], None] | None = None) -> None:
        """Open or close the gripper. Raises as `follow`."""

        def check() -> None:
            self._check_state()
            check_gripper(command, self._config.gripper, self._limits)

        self._try(check)
        if not self._limits.dry_run:
            self._carry_out(action, command, self._config.gripper.seconds, tick)

    def reset(self, who: str) -> None:
        """Let motions happen again, after a stop.

        Args:
            who: the person that has looked at the robot; goes into the log.

        Raises:
            Refusal: what stopped the robot is still there.
        """
        self._sensors.forgive()
        pressed = [fault for fault in self._sensors.faults() if fault.kind == "emergency stop"]
        if pressed:
            raise Refusal("emergency stop", f"cannot be reset: {pressed[0].words}")
        if self.latched is not None:
            logger.warning("reset by %s after: %s", who, self.latched)
            self._say("reset", f"by {who}")
        self.latched = None

    def refuse(self, refusal: Refusal) -> None:
        """Log and publish the reason of a refusal that was found elsewhere (no plan), as of those found here."""
        self.refusals[refusal.kind] = self.refusals.get(refusal.kind, 0) + 1
        logger.warning("refused: %s", refusal)
        self._say("refused", str(refusal))

    def _try(self, check: Callable[[], None]) -> None:
        try:
            check()
        except Refusal as refusal:
            self.refuse(refusal)
            raise

    def _ask(self, goal: MotionGoal, check: Callable[[], None], path: np.ndarray | None, seconds: float) -> None:
        """Check, ask a person where one is to be asked, and check again, because that takes its time."""
        self._try(check)
        dry = " (dry run: will not be sent)" if self._limits.dry_run else ""
        words = f"to {np.round(goal.position, 3).tolist()} in {seconds:.1f} s{dry}"
        if self._confirm is not None and self._limits.confirm:
            if not self._confirm(Proposal(goal, path, seconds, words)):
                refusal = Refusal("not confirmed", f"a person said no to going {words}")
                self.refuse(refusal)
                raise refusal
            self._try(check)
        if self._limits.dry_run:
            logger.info("dry run: would go %s", words)

    def _check_latch(self) -> None:
        if self.latched is not None:
            raise Refusal("latched", f"stopped before ({self.latched}): a person must look and reset")

    def _check_state(self) -> None:
        self._check_latch()
        faults = self._sensors.faults()
        if faults:
            raise Refusal(faults[0].kind, "; ".join(fault.words for fault in faults))

    def _check_present(self, goal: MotionGoal) -> None:
        self._check_state()
        check_goal(goal, self._tool(), self._wall(), self._transport.session, self._limits)

    def _tool(self) -> np.ndarray:
        """[4, 4] where the tool is now: by TF, or by the model where TF is not asked."""
        joints = self._sensors.present_joints()
        by_model = None if self._scene is None or joints is None else self._scene.tool_pose(joints)
        if self._config.frames.tool is None:
            if by_model is None:
                raise Refusal("frames", "neither TF nor a model says where the tool is")
            return by_model
        try:
            by_frames = self._sensors.tool_pose()
        except NoTransform as error:
            raise Refusal("frames", str(error)) from None
        if by_model is not None:
            distance, _ = pose_distance(by_frames, by_model)
            newest = self._sensors.arm.newest
            moving = newest is not None and np.abs(newest.velocities).max(initial=0.0) > 0.1
            if distance > self._config.sensing.tool_error and not moving:
                raise Refusal(
                    "frames", f"TF and the model of the arm disagree about the tool by {distance:.3f} m: check frames.*"
                )
        return by_frames

    def _carry_out(self, action: str, command: Goal, expected: float, tick: Callable[[], None] | None) -> None:
        with self._alone():
            begin = time.monotonic()
            try:
                handle = self._active = self._transport.send_goal(action, command)
            except NotConnected as error:
                self._stop("connection", str(error))
            except ValueError as error:
                refusal = Refusal("not finite", f"{action}: {error}")
                self.refuse(refusal)
                raise refusal from None
            try:
                self._watch(handle, begin, expected, tick)
            except (Stopped, Refusal):
                raise
            except BaseException as error:  # Ctrl-C, or a bug in what `tick` calls: not with the arm moving on
                self._cancel_and_stop(handle, "interrupted", type(error).__name__, error)
            finally:
                self._active = None

    def _watch(self, handle: GoalHandle, begin: float, expected: float, tick: Callable[[], None] | None) -> None:
        while not handle.wait(TICK):
            reason = self._reason_to_stop()
            passed = time.monotonic() - begin
            if reason is None and passed > deadline(expected):
                state = "nobody has answered" if handle.state is GoalState.SENT else "no result"
                reason = ("deadline", f"{handle.action}: {state} after {passed:.1f} s (expected {expected:.1f} s)")
            if reason is not None:
                self._cancel_and_stop(handle, *reason)
            if tick:
                tick()
        reason = self._reason_to_stop()
        if reason is not None and handle.state is not GoalState.SUCCEEDED:
            self._stop(*reason)
        if handle.state is GoalState.REJECTED:
            self._stop("rejected", f"{handle.action}: {handle.reason or handle.result}")
        if handle.state is GoalState.LOST:
            self._stop("connection", f"{handle.action}: {handle.reason}")
        # control_msgs has a number of its own for what went wrong, moveit_msgs a message around one; the state says it.
        if handle.state is not GoalState.SUCCEEDED:
            self._stop("arm", f"{handle.action} ended as {handle.state.value}: {handle.result or handle.reason}")

    def _reason_to_stop(self) -> tuple[str, str] | None:
        if self.latched is not None:
            return ("latched", self.latched)
        faults = self._sensors.faults()
        return (faults[0].kind, "; ".join(fault.words for fault in faults)) if faults else None

    def _cancel_and_stop(
        self, handle: GoalHandle, kind: str, words: str, cause: BaseException | None = None
    ) -> NoReturn:
        self._latch(Stopped(kind, words))
        try:
            handle.cancel()
            confirmed = handle.wait(CANCEL_WAIT)
        except NotConnected:
            confirmed = False
        self._stop(kind, words + ("" if confirmed else "; the cancellation was not confirmed"), cause)

    def _stop(self, kind: str, words: str, cause: BaseException | None = None) -> NoReturn:
        """Latch, say why, raise `Stopped`, or what made it stop."""
        stopped = Stopped(kind, words)
        self._latch(stopped)
        logger.error("stopped: %s", stopped)
        self._say("stopped", str(stopped))
        raise cause or stopped

    def _latch(self, stopped: Stopped) -> None:
        if self.latched is None:
            self.latched = str(stopped)

    def _on_stop(self, pressed: bool) -> None:
        """The emergency stop's topic; on the transport's thread, to lose no time."""
        if not pressed:
            return
        if self.latched is None:
            self.latched = "emergency stop: pressed"
            logger.error("stopped: %s", self.latched)
        handle = self._active
        if handle is not None:
            try:
                handle.cancel()
            except NotConnected:
                pass

    def _on_connection(self, connected: bool) -> None:
        """The bus is back. If a motion was under way when it went, the arm may still be carrying it out."""
        if connected and self.latched is not None and self._config.arm.execution != "pose":
            threading.Thread(target=self._cancel_what_was, args=(self._transport.session,), daemon=True).start()

    def _cancel_what_was(self, session: int) -> None:
        """Several times: the action's server may not have been discovered yet, and nobody says so."""
        arm = self._config.arm
        action = arm.trajectory_action if arm.execution == "trajectory" else arm.moveit_action
        for _ in range(CANCELLATIONS):
            if self.latched is None or self._transport.session != session:
                return
            try:
                self._transport.cancel_all(action)
            except NotConnected:
                return
            time.sleep(CANCELLATION_PAUSE)

    def _say(self, event: str, reason: str) -> None:
        """Publish on the topic for reasons; the log has it even where that fails."""
        text = json.dumps({"event": event, "reason": reason, "stamp": self._wall()})
        try:
            self._transport.publish(self._config.topics.refusals, Text(text), latched=True)
        except (NotConnected, ValueError):
            pass

    def _alone(self) -> threading.Lock:
        if self._busy.locked():
            raise RuntimeError("one command at a time")
        return self._busy
