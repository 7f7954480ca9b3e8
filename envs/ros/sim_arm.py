"""The rehearsal arm: the simulator's twin as a ROS robot, in real time, for `manifield sim-arm` and for tests.

It behaves as a robot's drivers do: a trajectory controller that holds its position when a goal is cancelled, a gripper
with both usual interfaces, a Cartesian controller on a pose topic, cameras with calibration and frames, joint states,
an emergency stop. Beside these it has three topics that no robot has: which episode to set up, that it has begun, and
whether the task is solved (see `envs.ros.arm`).
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from envs.mujoco import panda
from envs.mujoco.control import GRIPPER_SECONDS
from envs.mujoco.environment import MujocoEnvironment
from envs.mujoco.scene import TIME_STEP
from envs.ros.arm import BEGUN_TOPIC, EPISODE_TOPIC, SUCCESS_TOPIC
from envs.ros.config import RosConfig
from envs.ros.geometry import pose_matrix
from envs.ros.goals import FollowJointTrajectory, FrankaGrasp, FrankaMove, Goal, GripperCommand
from envs.ros.messages import (
    Bool,
    CameraInfo,
    CompressedImage,
    Image,
    JointState,
    PoseStamped,
    Text,
    Transform,
    Transforms,
)
from envs.ros.transport import NotConnected, ServedGoal, ServingTransport
from manifield.errors import InputError

logger = logging.getLogger(__name__)
STOP_BUTTON = "/sim_arm/stop_button"  # Bool: press or release the emergency stop
FAULT_TOPIC = "/sim_arm/fault"  # JSON of `Faults`
TAKEN_TOPIC = "/sim_arm/taken"  # every goal that was accepted
HALTED_TOPIC = "/sim_arm/halted"  # JSON: when (ns) and why a motion ended before its goal
JOINT_RATE = 100.0
MOST_AT_ONCE = 0.5  # seconds that are caught up with after a pause of the machine's
SUCCESS_RATE = 10.0
STOP_RATE = 5.0
PATH_TOLERANCE = 0.25  # radians behind the path at which the controller gives up
GOAL_TOLERANCE = 0.02
AT_REST = 0.05  # rad/s
CARTESIAN_SPEED = 1.0  # rad/s of every joint towards the pose asked for
HAND, TOOL = "hand", "hand_tcp"


@dataclass
class Faults:
    """What is wrong with the robot, for rehearsals of that: set over `FAULT_TOPIC`.

    frozen: "joints", "cameras" or both: no longer published. nan: a joint's position is no number. skew: seconds added
    to every stamp. depth_lag: seconds taken from the depth pictures' stamps. jump: radians added to the first joint's
    position as told. deaf: goals are accepted and never end. reject: goals are rejected. abort: goals end as aborted,
    as by a reflex.
    """

    frozen: list[str] = field(default_factory=list)
    nan: bool = False
    skew: float = 0.0
    depth_lag: float = 0.0
    jump: float = 0.0
    deaf: bool = False
    reject: bool = False
    abort: bool = False


class _Motion:
    """A trajectory under way."""

    def __init__(self, goal: FollowJointTrajectory, start: np.ndarray, begin: float) -> None:
        trajectory = goal.trajectory
        self.times = np.concatenate([[0.0], trajectory.times])
        self.positions = np.concatenate([start[None], trajectory.positions])
        self.begin = begin  # in the simulator's time
        self.patience = goal.goal_time
        self.ended = threading.Event()
        self.error = 0
        self.words = ""

    def target(self, passed: float) -> tuple[np.ndarray, np.ndarray]:
        """Positions and velocities [7] after `passed` seconds."""
        passed = min(passed, float(self.times[-1]))
        place = int(np.clip(np.searchsorted(self.times, passed, side="right") - 1, 0, len(self.times) - 2))
        span = max(self.times[place + 1] - self.times[place], 1e-9)
        step = self.positions[place + 1] - self.positions[place]
        velocity = step / span if passed < self.times[-1] else np.zeros(7)
        return self.positions[place] + step * (passed - self.times[place]) / span, velocity

    def end(self, error: int = 0, words: str = "") -> None:
        self.error, self.words = error, words
        self.ended.set()


class SimArm:
    """See the module. Everything of the simulator's happens on the thread that calls `spin`.

    Args:
        transport: that can serve actions; started and closed by the caller. config: names of topics, frames and joints.
        camera_rate: pictures a second of every camera.
    """

    def __init__(
        self,
        transport: ServingTransport,
        config: RosConfig,
        task: str,
        camera_rate: float = 30.0,
        unseen: Sequence[str] = (),
        serve_trajectories: bool = True,
        serve_franka: bool = False,
        seed: int = 0,
        variation: int = 0,
    ) -> None:
        self._transport, self._config, self._camera_rate = transport, config, camera_rate
        self._unseen = list(unseen)
        self._serve_trajectories, self._serve_franka = serve_trajectories, serve_franka
        self._environment = MujocoEnvironment(task, config.cameras, config.image_size, unseen=unseen)
        self._wanted: dict[str, Any] | None = {"task": task, "seed": seed, "variation": variation, "request": 0}
        self._request: Any = 0  # the last one
        self._asked_again = False
        self._begun: dict[str, Any] = {}
        self._lock = threading.RLock()
        self._motion: _Motion | None = None
        self._pose_target: np.ndarray | None = None
        self._hold = panda.START.copy()
        self._grip: bool | None = None
        self.faults = Faults()
        self.stop_pressed = False
        self.is_ready = threading.Event()
        self._ending = threading.Event()

    def start(self) -> None:
        """Announce topics, listen, serve. The transport must have been started."""
        config, bus = self._config, self._transport
        kind = CompressedImage if config.topics.compressed else Image
        for camera in config.cameras:
            bus.advertise(self._picture_topic(config.topics.color, camera), kind)
            bus.advertise(self._picture_topic(config.topics.depth, camera), kind)
            bus.advertise(config.topics.info.format(camera=camera), CameraInfo)
        bus.advertise(config.topics.joints[0], JointState)
        bus.advertise("/tf", Transforms)
        bus.advertise(HALTED_TOPIC, Text)
        bus.advertise(TAKEN_TOPIC, Text)
        if config.topics.stop:
            bus.publish(config.topics.stop, Bool(False), latched=True)
        bus.subscribe(EPISODE_TOPIC, Text, self._take_episode)
        bus.subscribe(STOP_BUTTON, Bool, lambda message: self.press_stop(message.value))
        bus.subscribe(FAULT_TOPIC, Text, self._take_fault)
        bus.subscribe(config.arm.pose_topic, PoseStamped, self._take_pose)
        if self._serve_trajectories:
            bus.serve(config.arm.trajectory_action, FollowJointTrajectory, self._accepts, self._run_trajectory)
        bus.serve(config.gripper.action, GripperCommand, lambda goal: not self._refuses(), self._run_gripper)
        if self._serve_franka:
            bus.serve(config.gripper.move_action, FrankaMove, lambda goal: not self._refuses(), self._run_gripper)
            bus.serve(config.gripper.grasp_action, FrankaGrasp, lambda goal: not self._refuses(), self._run_gripper)

    def spin(self, stopping: Callable[[], bool] = lambda: False) -> None:
        """Live in real time until `stopping` or `end`."""
        period = 1.0 / JOINT_RATE
        upcoming = last = time.monotonic()
        next_pictures = next_success = next_stop = upcoming
        try:
            while not (stopping() or self._ending.is_set()):
                self._set_up()
                now = time.monotonic()
                self._advance(min(now - last, MOST_AT_ONCE))
                last = now
                try:
                    self._tell_state()
                    if now >= next_pictures:
                        next_pictures = max(next_pictures + 1 / self._camera_rate, now)
                        self._tell_pictures()
                    if now >= next_success:
                        next_success = now + 1 / SUCCESS_RATE
                        self._tell_success()
                    if now >= next_stop:
                        next_stop = now + 1 / STOP_RATE
                        self._tell_stop()
                except NotConnected:
                    logger.error("the connection to ROS is gone")
                    return
                upcoming += period
                pause = upcoming - time.monotonic()
                if pause > 0:
                    time.sleep(pause)
                elif pause < -0.5:  # the machine was busy: do not run after it
                    upcoming = time.monotonic()
        finally:
            self._environment.close()

    def end(self) -> None:
        """Let `spin` return."""
        self._ending.set()

    def press_stop(self, pressed: bool) -> None:
        """The emergency stop's button: everything halts at once, and the topic says so."""
        with self._lock:
            self.stop_pressed = pressed
            self._tell_stop()
            if pressed:
                self._halt(-100, "emergency stop")

    def _halt(self, error: int, words: str) -> None:
        """End what is going on, and hold the position."""
        with self._lock:
            motion, self._motion = self._motion, None
            self._pose_target = None
            if self._is_up():
                self._hold = self._environment.simulation.joints.copy()
        if motion is not None:
            halted = {"stamp": time.time_ns(), "words": words}
            motion.end(error, words)
            self._transport.publish(HALTED_TOPIC, Text(json.dumps(halted)))

    def _is_up(self) -> bool:
        return bool(self._begun) and not self._begun.get("error")

    def _set_up(self) -> None:
        """Build the scene that was asked for."""
        with self._lock:
            wanted, again, self._wanted, self._asked_again = self._wanted, self._asked_again, None, False
        if wanted is None:
            if again:
                self._tell_begun()
            return
        self._halt(-101, "another episode")
        begun = {**wanted}
        try:
            task = str(wanted["task"])
            if task != self._environment.task:
                other = MujocoEnvironment(task, self._config.cameras, self._config.image_size, unseen=self._unseen)
                self._environment.close()
                self._environment = other
            start = self._environment.reset(int(wanted["seed"]), int(wanted["variation"]))
            begun |= {"descriptions": start.descriptions}
        except (InputError, KeyError, TypeError, ValueError) as error:
            begun |= {"error": str(error)}
        with self._lock:
            self._begun = begun
            if self._is_up():
                self._hold = self._environment.simulation.joints.copy()
        self._tell_static_frames()
        begun["stamp"] = time.time_ns()
        self._tell_begun()
        self.is_ready.set()

    def _advance(self, seconds: float) -> None:
        """Let the simulator's time pass while the controllers lead the arm."""
        simulation = self._environment.simulation
        with self._lock:
            if self._grip is not None:
                simulation.gripper_open = self._grip
                command = panda.FINGER_OPEN if self._grip else panda.FINGER_SQUEEZE
                simulation.data.ctrl[simulation.finger_servo] = command
                self._grip = None
        for _ in range(max(1, round(seconds / (2 * TIME_STEP)))):
            with self._lock:
                position, velocity = self._target(2 * TIME_STEP)
            simulation.data.ctrl[simulation.arm_servos] = position + panda.SERVO_LAG * velocity
            simulation.step(2 * TIME_STEP)
        self._judge()

    def _target(self, seconds: float) -> tuple[np.ndarray, np.ndarray]:
        if self._motion is not None:
            return self._motion.target(float(self._environment.simulation.data.time) - self._motion.begin)
        if self._pose_target is not None:
            step = np.clip(self._pose_target - self._hold, -CARTESIAN_SPEED * seconds, CARTESIAN_SPEED * seconds)
            self._hold = self._hold + step
            return self._hold, step / seconds
        return self._hold, np.zeros(7)

    def _judge(self) -> None:
        """Whether the trajectory under way has come to an end, good or bad."""
        with self._lock:
            motion, simulation = self._motion, self._environment.simulation
            if motion is None:
                return
            passed = float(simulation.data.time) - motion.begin
            joints = simulation.joints
            behind = float(np.abs(joints - motion.target(passed)[0]).max())
            over = passed - float(motion.times[-1])
            if self.faults.abort:
                self._halt(-4, "motion aborted by reflex")
            elif behind > PATH_TOLERANCE:
                self._halt(-4, f"{behind:.2f} rad from the path")
            elif over >= 0:
                error = float(np.abs(joints - motion.positions[-1]).max())
                if error < GOAL_TOLERANCE and np.abs(simulation.joint_speeds).max() < AT_REST:
                    self._motion, self._hold = None, motion.positions[-1].copy()
                    motion.end()
                elif over > motion.patience:
                    # Pressing against something is what many key-frames want: keep pressing, and say how far it came.
                    self._motion, self._hold = None, motion.positions[-1].copy()
                    motion.end(0 if error < PATH_TOLERANCE else -5, f"{error:.3f} rad from the goal")

    def _refuses(self) -> bool:
        return self.stop_pressed or self.faults.reject or not self._is_up()

    def _accepts(self, goal: Goal) -> bool:
        if not isinstance(goal, FollowJointTrajectory) or self._refuses():
            return False
        trajectory = goal.trajectory
        right = list(trajectory.names) == self._config.arm.joints and len(trajectory.times) > 0
        return right and bool((np.diff(trajectory.times) > 0).all()) and bool(np.isfinite(trajectory.positions).all())

    def _run_trajectory(self, served: ServedGoal) -> None:
        goal = served.goal
        assert isinstance(goal, FollowJointTrajectory)
        self._halt(-102, "preempted by another goal")
        self._transport.publish(TAKEN_TOPIC, Text(goal.ROS_TYPE))
        simulation = self._environment.simulation
        motion = _Motion(goal, simulation.joints.copy(), float(simulation.data.time))
        if self.faults.deaf:
            motion.times[1:] += 1e6  # accepted, hardly begun
        with self._lock:
            self._motion = motion
        last_feedback = 0.0
        while not motion.ended.wait(0.004):
            if served.cancel_asked.is_set() and not self.faults.deaf:
                with self._lock:
                    if self._motion is motion:
                        self._halt(-103, "cancelled")
                served.confirm_cancel({"error_string": "cancelled"})
                return
            if time.monotonic() - last_feedback > 0.1:
                last_feedback = time.monotonic()
                served.feedback({"joint_names": list(goal.trajectory.names)})
        if served.cancel_asked.is_set():
            served.confirm_cancel({"error_string": motion.words})
        elif motion.error:
            served.abort({"error_code": motion.error, "error_string": motion.words})
        else:
            served.succeed({"error_code": 0, "error_string": motion.words})

    def _run_gripper(self, served: ServedGoal) -> None:
        goal, gripper = served.goal, self._config.gripper
        if isinstance(goal, GripperCommand):
            opened = abs(goal.position - gripper.opened) < abs(goal.position - gripper.closed)
        else:
            opened = isinstance(goal, FrankaMove) and goal.width > gripper.width / 2
        with self._lock:
            self._grip = opened
        if served.cancel_asked.wait(GRIPPER_SECONDS):
            served.confirm_cancel({})
            return
        while self.faults.deaf:
            time.sleep(0.05)
        width = self._width()
        if isinstance(goal, GripperCommand):
            position = gripper.closed + (gripper.opened - gripper.closed) * width / gripper.width
            reached = abs(position - goal.position) < 0.05 * abs(gripper.opened - gripper.closed)
            served.succeed({"position": position, "effort": 0.0, "stalled": not reached, "reached_goal": reached})
        else:
            served.succeed({"success": True, "error": ""})

    def _width(self) -> float:
        simulation = self._environment.simulation
        return float(simulation.data.qpos[simulation.finger_positions].clip(0.0, None).sum())

    def _take_episode(self, message: Text) -> None:
        try:
            wanted = json.loads(message.text)
        except ValueError:
            return
        if isinstance(wanted, dict):
            with self._lock:
                if wanted.get("request") != self._request:
                    self._request, self._wanted = wanted.get("request"), wanted
                else:  # the answer is still to come, or was lost
                    self._asked_again = True

    def _take_fault(self, message: Text) -> None:
        self.faults = Faults(**json.loads(message.text))

    def _take_pose(self, message: PoseStamped) -> None:
        """A Cartesian controller: go where the message says, by inverse kinematics from where the arm is led now."""
        if self._refuses() or message.frame_id != self._config.frames.base:
            return
        if not (np.isfinite(message.position).all() and np.isfinite(message.quaternion).all()):
            return
        T_base_frame = pose_matrix(np.concatenate([message.position, message.quaternion]))
        T_world_tool = self._base_pose() @ T_base_frame @ pose_matrix(self._config.frames.tool_offset)
        from envs.mujoco.ik import InverseKinematics

        with self._lock:
            seed = self._hold.copy()
        found = InverseKinematics(self._environment.simulation).solve(T_world_tool[:3, 3], T_world_tool[:3, :3], seed)
        with self._lock:
            if found is not None and self._motion is None:
                self._pose_target = found

    def _base_pose(self) -> np.ndarray:
        """[4, 4] of the robot's base in the simulator's world."""
        return self._body_pose("link0")

    def _body_pose(self, body: str) -> np.ndarray:
        simulation = self._environment.simulation
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = simulation.rotation(body), simulation.position(body)
        return pose

    def _stamp(self) -> int:
        return time.time_ns() + int(self.faults.skew * 1e9)

    def _tell_state(self) -> None:
        """Joints and moving frames."""
        if "joints" in self.faults.frozen:
            return
        simulation, config, stamp = self._environment.simulation, self._config, self._stamp()
        positions = simulation.joints.copy()
        positions[0] += self.faults.jump
        if self.faults.nan:
            positions[0] = np.nan
        gripper = config.gripper
        opening = self._width() / gripper.width
        fingers = [gripper.closed + (gripper.opened - gripper.closed) * opening] * len(gripper.joints)
        none = np.zeros(len(fingers))
        self._transport.publish(
            config.topics.joints[0],
            JointState(
                stamp,
                (*config.arm.joints, *gripper.joints),
                np.concatenate([positions, fingers]),
                np.concatenate([simulation.joint_speeds, none]),
                np.concatenate([simulation.data.qfrc_actuator[simulation.arm_velocities], none]),
            ),
        )
        T_base_hand = np.linalg.inv(self._base_pose()) @ self._body_pose("hand")
        self._transport.publish(
            "/tf", Transforms((Transform(stamp, config.frames.base, self._frame(HAND), T_base_hand),))
        )

    def _tell_static_frames(self) -> None:
        """Where the fixed cameras and the one on the hand are, and the tool on the hand."""
        config, stamp = self._config, time.time_ns()
        T_world_hand, T_world_base = self._body_pose("hand"), self._base_pose()
        T_hand_tool = panda.T_HAND_TOOL @ np.linalg.inv(pose_matrix(config.frames.tool_offset))
        found = [Transform(stamp, self._frame(HAND), config.frames.tool or self._frame(TOOL), T_hand_tool)]
        for name, view in self._environment.views(config.cameras).items():
            parent, T_world_parent = (
                (self._frame(HAND), T_world_hand) if name == "wrist" else (config.frames.base, T_world_base)
            )
            T_parent_camera = np.linalg.inv(T_world_parent) @ view.T_world_camera
            found.append(Transform(stamp, parent, self._optical_frame(name), T_parent_camera))
        self._transport.publish("/tf_static", Transforms(tuple(found)), latched=True)

    def _tell_pictures(self) -> None:
        if "cameras" in self.faults.frozen:
            return
        config, stamp = self._config, self._stamp()
        for name, view in self._environment.views(config.cameras).items():
            frame = self._optical_frame(name)
            color = Image(stamp, frame, "rgb8", view.rgb)
            millimetres = np.rint(view.depth * 1000).clip(0, 65535).astype(np.uint16)
            depth = Image(stamp - int(self.faults.depth_lag * 1e9), frame, "16UC1", millimetres)
            height, width = view.depth.shape
            info = CameraInfo(stamp, frame, height, width, view.intrinsics)
            self._transport.publish(config.topics.info.format(camera=name), info)
            for template, image in ((config.topics.color, color), (config.topics.depth, depth)):
                message = CompressedImage.of(image) if config.topics.compressed else image
                self._transport.publish(self._picture_topic(template, name), message)

    def _tell_begun(self) -> None:
        self._transport.publish(BEGUN_TOPIC, Text(json.dumps(self._begun)), latched=True)

    def _tell_success(self) -> None:
        if self._is_up():
            said = {
                "request": self._begun.get("request"),
                "success": self._environment.solved(),
                "stamp": time.time_ns(),
            }
            self._transport.publish(SUCCESS_TOPIC, Text(json.dumps(said)), latched=True)

    def _tell_stop(self) -> None:
        if self._config.topics.stop:
            with self._lock:  # what was so before the button was pressed must not be said after it
                self._transport.publish(self._config.topics.stop, Bool(self.stop_pressed), latched=True)

    def _picture_topic(self, template: str, camera: str) -> str:
        return template.format(camera=camera) + ("/compressed" if self._config.topics.compressed else "")

    def _optical_frame(self, camera: str) -> str:
        return f"{camera}_color_optical_frame"

    def _frame(self, short: str) -> str:
        """A frame of the arm, named as its base is: panda_link0 → panda_hand."""
        return self._config.frames.base.removesuffix("link0") + short
