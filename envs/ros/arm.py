"""A real arm (or the rehearsal arm) as an `Environment`: the same interface as the simulators'."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from envs.interface import Action, Environment, Observation, Outcome, Recorder, Start
from envs.mujoco.timing import SPEED_LIMITS, time_path
from envs.ros.checks import WORLD, MotionGoal, Refusal
from envs.ros.config import RosConfig
from envs.ros.connect import make_transport
from envs.ros.geometry import pose_distance, pose_matrix, pose_vector
from envs.ros.goals import FollowJointTrajectory, FrankaGrasp, FrankaMove, Goal, GripperCommand, MoveGroup
from envs.ros.messages import JointTrajectory, PoseStamped, Text
from envs.ros.planning import PlanningScene
from envs.ros.safety import Confirm, Guard, Stopped
from envs.ros.sensing import Seen, SensorFault, Sensors
from envs.ros.transport import NotConnected, Transport
from manifield.errors import InputError

logger = logging.getLogger(__name__)
TIME_STEP = 0.02  # seconds between the points of a trajectory
RECORDING_RATE = 20.0  # observations a second for `record` while the arm moves
TOOL_SPEED, TOOL_TURN = 0.4, 1.2  # metres and radians a second of a Cartesian controller at full speed
BRIEFLY = 1.0  # seconds that an action that failed waits for a last look
SETTLE = 0.1  # seconds after a motion before what is seen counts as the state that it led to
# The rehearsal arm's topics, see `envs.ros.sim_arm`.
EPISODE_TOPIC, BEGUN_TOPIC, SUCCESS_TOPIC = "/sim_arm/episode", "/sim_arm/begun", "/sim_arm/success"
_EPISODE_WAIT, _EPISODE_AGAIN = 60.0, 1.0  # seconds; a machine may be busy with other things


class RosEnvironment(Environment):
    """One arm on one bus. Every command goes through the safety layer (`envs.ros.safety.Guard`), always.

    Connects when it is first used. An action that was refused or stopped ends as `Outcome.failure` with the reason;
    after a stop nothing moves until a person has called `reset_stop`.
    """

    def __init__(
        self,
        task: str,
        cameras: Sequence[str],
        image_size: int,
        confirm: Confirm | None = None,
        transport_override: Transport | None = None,
        **config: Any,
    ) -> None:
        """
        Args:
            task: what is to be done, e.g. the task's name; the rehearsal arm sets its scene up by it.
            cameras: names to put into the topics. image_size: pixels of the square pictures that the policy wants.
            confirm: asks a person before every motion, see `limits.confirm`.
            transport_override: a transport to use instead of the one that the config describes; closed with this.
            config: further parts of `RosConfig`.

        Raises:
            InputError: the config does not make sense.
        """
        self.config = RosConfig.of({"cameras": list(cameras), "image_size": image_size, **config})
        if self.config.limits.confirm and confirm is None:
            raise InputError(
                "limits.confirm=true asks a person before every motion, and this command has nobody to ask: "
                "use `manifield deploy`, or env.limits.confirm=false on the rehearsal arm"
            )
        self.task, self.cameras = task, tuple(cameras)
        self._confirm = confirm
        arm, limits = self.config.arm, self.config.limits
        self._scene = (
            PlanningScene(self.config.frames.base_in_world, limits.boxes, limits.contact_depth) if arm.model else None
        )
        self.transport = transport_override or make_transport(self.config.transport)
        self.sensors = Sensors(self.transport, self.config)
        self.guard = Guard(self.transport, self.sensors, self.config, self._scene, confirm)
        self._begun: dict[str, Any] | None = None
        self._success = 0, False  # when (ns) it was said, and whether it is solved
        self._connected_once = False
        self._seen: Seen | None = None  # what the next action is decided upon
        self._last: Observation | None = None

    def connect(self, timeout: float = 20.0) -> None:
        """Connect and listen; done by whatever needs it first. Over rosbridge a lost connection comes back by itself, a
        dead ROS node is started again here.

        Raises:
            NotConnected: there is no bus.
        """
        if not self._connected_once:
            self.sensors.start()
            if self.config.rehearsal:
                self.transport.subscribe(BEGUN_TOPIC, Text, self._take_begun, latched=True)
                self.transport.subscribe(SUCCESS_TOPIC, Text, self._take_success, latched=True)
            self.transport.start(timeout)
            for action, kind in self._actions():
                self.transport.prepare_action(action, kind)
            self.transport.advertise(self.config.topics.refusals, Text, latched=True)
            self._connected_once = True
        elif not self.transport.connected and self.config.transport.name == "rclpy":
            self.transport.start(timeout)

    def variation_count(self) -> int:
        """As many as the rehearsal arm's task has; a real scene is what it is."""
        if not self.config.rehearsal:
            return 1
        from envs.mujoco.tasks import make_task

        return make_task(self.task).variation_count

    def reset(self, seed: int, variation: int) -> Start:
        """The rehearsal arm builds its scene; on a real arm it stands as a person has set it up, who also
        says what to do."""
        self.connect()
        if not self.config.rehearsal:
            return Start(self.observe(), [self.task.replace("_", " ")], variation)
        episode = {"task": self.task, "seed": seed, "variation": variation, "request": time.time_ns()}
        self._begun, self._success = None, (0, False)
        begin, asked = time.monotonic(), -1.0
        while self._begun is None or self._begun.get("request") != episode["request"]:
            if time.monotonic() - begin > _EPISODE_WAIT:
                raise InputError(
                    f"the rehearsal arm has not begun {self.task} within {_EPISODE_WAIT:g} s: does `manifield sim-arm` "
                    "run, with the same domain?"
                )
            if time.monotonic() - asked > _EPISODE_AGAIN:  # it may not have been discovered yet
                asked = time.monotonic()
                self.transport.publish(EPISODE_TOPIC, Text(json.dumps(episode)))
            time.sleep(0.01)
        begun = self._begun
        if begun.get("error"):
            raise InputError(f"the rehearsal arm: {begun['error']}")
        self.sensors.forget_scene()
        self.sensors.forgive()
        first = self._look(int(begun["stamp"])).observation
        self.guard.reset("the rehearsal")
        return Start(first, list(begun["descriptions"]), variation)

    def observe(self) -> Observation:
        """Raises `SensorFault` if the sensors are not sound within the config's patience."""
        return self._look().observation

    def step(self, action: Action, record: Recorder | None = None) -> Outcome:
        self.connect()
        failure: str | None = None
        after = 0
        try:
            self.guard.check_latch()
            seen = self._seen or self._look()
            self.sensors.wait_until_sound()
            self._act(action, seen, self._recorder(record))
            after = time.time_ns() + int(SETTLE * 1e9)
        except Refusal as refusal:
            failure = f"refused: {refusal}"
        except Stopped as stopped:
            failure = f"stopped: {stopped}"
        except (NotConnected, SensorFault) as error:
            failure = f"stopped: {error}"
        try:
            observation = self._look(after, None if failure is None else BRIEFLY).observation
        except (NotConnected, SensorFault) as error:  # nothing newer can be had, and the one who asks must know that
            if self._last is None:
                raise
            failure = failure or f"stopped: {error}"
            observation, self._seen = self._last, None
        if record and failure is None:
            record(observation)
        return Outcome(observation, self._solved(after), failure)

    def reset_stop(self, who: str) -> None:
        """A person has looked at the robot and lets it move again. Raises `Refusal` while the cause is still there."""
        self.guard.reset(who)
        self._seen = None

    def close(self) -> None:
        self.transport.close()

    def _look(self, after: int = 0, timeout: float | None = None) -> Seen:
        self.connect()
        seen = self.sensors.observe(after, timeout)
        if self.config.frames.tool is None and self._scene is not None:
            seen.observation.gripper_pose = pose_vector(self._scene.tool_pose(seen.observation.joint_positions))
        self._seen, self._last = seen, seen.observation
        return seen

    def _act(self, action: Action, seen: Seen, tick: Callable[[], None] | None) -> None:
        goal = MotionGoal(
            seen.stamp,
            seen.session,
            WORLD,
            np.asarray(action.position),
            np.asarray(action.quaternion),
            bool(action.ignore_collisions),
        )
        self.guard.check(goal, pose_matrix(seen.observation.gripper_pose))
        self._move(goal, seen, tick)
        if self.config.gripper.driver != "none" and bool(action.gripper_open) != bool(
            seen.observation.gripper_open > 0.5
        ):
            self.guard.grip(*self._gripper_goal(bool(action.gripper_open)), tick)

    def _move(self, goal: MotionGoal, seen: Seen, tick: Callable[[], None] | None) -> None:
        arm = self.config.arm
        if arm.execution == "trajectory":
            assert self._scene is not None
            cloud = np.zeros((0, 3))
            if self.config.limits.cloud and not goal.may_touch:
                cloud = self._scene.cloud(seen.observation)
            joints = self.sensors.present_joints()
            assert joints is not None
            plan = self._scene.plan(joints, goal.position, goal.quaternion, goal.may_touch, cloud)
            if plan.path is None:
                refusal = Refusal("no path" if plan.failure is None else plan.failure, "the planner finds no way there")
                self.guard.refuse(refusal)
                raise refusal
            trajectory = self.trajectory(plan.path, arm.speed * (arm.contact_speed if plan.is_straight else 1.0))
            if trajectory is not None:
                self.guard.follow(goal, FollowJointTrajectory(trajectory), cloud, tick)
            return
        distance, turn = pose_distance(pose_matrix(seen.observation.gripper_pose), goal.matrix())
        seconds = max(distance / TOOL_SPEED, turn / TOOL_TURN, 0.5) / arm.speed
        if goal.may_touch:
            seconds /= arm.contact_speed
        if arm.execution == "pose":
            self.guard.go_straight(goal, self._pose_message, seconds, tick)
        else:
            target = self._pose_message(goal.matrix())
            command = MoveGroup(
                arm.moveit_group,
                self.config.frames.tool or "",
                target.frame_id,
                target.position,
                target.quaternion,
                speed=arm.speed,
                acceleration=arm.speed,
            )
            # Its path may be several times as long as the straight line, and it plans first.
            self.guard.move_group(goal, command, command.planning_time + 3 * seconds, tick)

    def trajectory(self, path: np.ndarray, speed: float) -> JointTrajectory | None:
        """When to be where on a joint path [N, 7]; speed: share of the full one. None if it has no length."""
        fastest = float(np.min(np.asarray(self.config.limits.joint_speed) / SPEED_LIMITS))
        positions = time_path(path, TIME_STEP, min(speed, fastest))
        if not len(positions):
            return None
        times = TIME_STEP * np.arange(1, len(positions) + 1)
        whole = np.concatenate([path[:1], positions])
        velocities = np.gradient(whole, TIME_STEP, axis=0)[1:]
        velocities[-1] = 0.0
        return JointTrajectory(tuple(self.config.arm.joints), times, positions, velocities)

    def tool_path(self, path: np.ndarray | None) -> np.ndarray:
        """[N, 3] world positions of the tool along a joint path [N, J]; empty where there is none, or no model."""
        if path is None or self._scene is None or not len(path):
            return np.zeros((0, 3))
        picks = np.unique(np.linspace(0, len(path) - 1, min(len(path), 100)).astype(int))
        return np.stack([self._scene.tool_pose(path[k])[:3, 3] for k in picks])

    def _pose_message(self, T_world_tool: np.ndarray) -> PoseStamped:
        """A world pose of the tool as a pose of `frames.tool` in `frames.base`."""
        frames = self.config.frames
        T_base_frame = np.linalg.inv(pose_matrix(frames.base_in_world)) @ T_world_tool
        T_base_frame = T_base_frame @ np.linalg.inv(pose_matrix(frames.tool_offset))
        quaternion = Rotation.from_matrix(T_base_frame[:3, :3]).as_quat()
        return PoseStamped(time.time_ns(), frames.base, T_base_frame[:3, 3], quaternion)

    def _gripper_goal(self, opened: bool) -> tuple[str, Goal]:
        gripper = self.config.gripper
        if gripper.driver == "command":
            return gripper.action, GripperCommand(gripper.opened if opened else gripper.closed, gripper.effort)
        if opened:
            return gripper.move_action, FrankaMove(gripper.width, gripper.speed)
        # Whatever is between the fingers, also nothing: pushing with closed fingers is a thing to do.
        return gripper.grasp_action, FrankaGrasp(0.0, gripper.speed, gripper.effort, gripper.width, gripper.width)

    def _actions(self) -> list[tuple[str, type[Goal]]]:
        """The actions that will be used."""
        arm, gripper = self.config.arm, self.config.gripper
        found: list[tuple[str, type[Goal]]] = []
        if arm.execution == "trajectory":
            found.append((arm.trajectory_action, FollowJointTrajectory))
        if arm.execution == "moveit":
            found.append((arm.moveit_action, MoveGroup))
        if gripper.driver == "command":
            found.append((gripper.action, GripperCommand))
        if gripper.driver == "franka":
            found += [(gripper.move_action, FrankaMove), (gripper.grasp_action, FrankaGrasp)]
        return found

    def _recorder(self, record: Recorder | None) -> Callable[[], None] | None:
        """Called while the arm moves: hands observations on at the recording rate."""
        if record is None:
            return None
        last = 0.0

        def tick() -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= 1 / RECORDING_RATE:
                last = now
                try:
                    record(self.sensors.observe(timeout=0.0).observation)
                except SensorFault:  # the safety layer sees it, too, and stops
                    pass

        return tick

    def _solved(self, after: int) -> bool:
        """Whether the rehearsal arm says that the task is solved, after a moment (ns); a real scene does not say."""
        if not self.config.rehearsal:
            return False
        begin = time.monotonic()
        while self._success[0] <= after and time.monotonic() - begin < 1.0:
            time.sleep(0.005)
        return self._success[1]

    def _take_begun(self, message: Text) -> None:
        self._begun = _json(message.text)

    def _take_success(self, message: Text) -> None:
        said = _json(message.text)
        if self._begun is not None and said.get("request") == self._begun.get("request"):
            self._success = int(said.get("stamp", 0)), bool(said.get("success"))


def _json(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return dict(value) if isinstance(value, Mapping) else {}
