"""From the bus to an observation, and whether the sensors can be trusted at this moment.

Nothing here waits for better times by itself: `faults` says what is wrong now, `observe` gives an observation of sound
sensors or raises. Pictures of all cameras, joints and camera poses of one observation belong to one moment.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from envs.interface import CameraView, Observation
from envs.ros.config import RosConfig
from envs.ros.frames import FrameTree, NoTransform
from envs.ros.geometry import pose_matrix, pose_vector
from envs.ros.messages import (
    Bool,
    CameraInfo,
    CompressedImage,
    Image,
    JointState,
    MalformedMessage,
    Message,
    Transforms,
)
from envs.ros.rectify import CannotRectify, square, square_intrinsics, undistorted
from envs.ros.streams import CameraStream, JointSample, JointStream, Pair
from envs.ros.transport import Transport

_TF_TOLERANCE = 50_000_000  # ns by which a moving frame may lag behind a picture
_OPEN_SHARE = 0.9  # RLBench's rule: a gripper opened less than this counts as closed
_FINGER = 0.04  # metres that RLBench's fingers travel
_FASTEST_JOINT = 3.0  # rad/s: a joint that covers more than this and `jump` between two messages has not moved there


@dataclass(frozen=True)
class Fault:
    """Something is wrong with a sensor. kind: a word for it; words: for a person."""

    kind: str
    words: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.words}"


class SensorFault(Exception):
    """There is no observation to act on; the message says why."""


@dataclass(frozen=True)
class Seen:
    """An observation and where it comes from. stamp: its moment (ns). session: of the transport. age: seconds from the
    oldest picture's stamp to now."""

    observation: Observation
    stamp: int
    session: int
    age: float


class Sensors:
    """Listens to a robot. `start` once the transport is there; safe to use from several threads."""

    def __init__(
        self,
        transport: Transport,
        config: RosConfig,
        wall: Callable[[], int] = time.time_ns,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._transport, self._config, self._limits = transport, config, config.sensing
        self._wall, self._clock = wall, clock
        self._lock = threading.RLock()
        self.frames = FrameTree()
        self.arm = JointStream(config.arm.joints)
        self.gripper = JointStream(config.gripper.joints if config.gripper.driver != "none" else [])
        self._cameras = {name: CameraStream() for name in config.cameras}
        self._invalid: dict[str, tuple[float, str]] = {}
        self._jump: Fault | None = None
        self._stop: tuple[float, bool] | None = None
        self._T_world_base = pose_matrix(config.frames.base_in_world)
        self._T_frame_tool = pose_matrix(config.frames.tool_offset)
        self.on_stop: list[Callable[[bool], None]] = []

    def start(self) -> None:
        """Subscribe to everything that the config names."""
        topics, subscribe = self._config.topics, self._transport.subscribe
        picture: type[Message] = CompressedImage if topics.compressed else Image
        suffix = "/compressed" if topics.compressed else ""
        for name, stream in self._cameras.items():
            for template, queue in ((topics.color, stream.color), (topics.depth, stream.depth)):
                subscribe(template.format(camera=name) + suffix, picture, self._appender(queue))
            subscribe(topics.info.format(camera=name), CameraInfo, self._keeper(stream))
        for topic in dict.fromkeys(topics.joints):
            subscribe(topic, JointState, self._take_joints)
        subscribe("/tf", Transforms, lambda message: self._take_frames(message, False))
        subscribe("/tf_static", Transforms, lambda message: self._take_frames(message, True), latched=True)
        if topics.stop is not None:
            subscribe(topics.stop, Bool, self._take_stop, latched=True)
        self._transport.on_connection.append(lambda connected: self.forget())

    def forget(self) -> None:
        """Everything that was heard: after a reconnection, what is shown must be newer than it."""
        with self._lock:
            self.forget_scene()
            self._stop = None

    def forget_scene(self) -> None:
        """Pictures and joints: of another scene, from which the arm has not come here by moving."""
        with self._lock:
            for stream in self._cameras.values():
                stream.color.clear()
                stream.depth.clear()
            self.arm.clear()
            self.gripper.clear()

    def forgive(self) -> None:
        """A person has looked at a jump of the joints."""
        with self._lock:
            self._jump = None

    def faults(self) -> list[Fault]:
        """What is wrong now, the worst first; empty when the robot may move."""
        with self._lock:
            now, wall = self._clock(), self._wall()
            if not self._transport.connected:
                return [Fault("connection", "there is no connection to the robot's bus")]
            found = self._stop_faults(now)
            if self._jump is not None:
                found.append(self._jump)
            for topic, (when, words) in list(self._invalid.items()):
                if now - when <= self._limits.joint_age:
                    found.append(Fault("invalid", f"{topic}: {words}"))
            for stream, what in ((self.arm, "the arm's joints"), (self.gripper, "the gripper's joints")):
                if stream.names:
                    found += self._joint_faults(stream.newest, what, now, wall)
            for name, camera in self._cameras.items():
                found += self._camera_faults(name, camera, now, wall)
            return found

    def wait_until_sound(self) -> None:
        """Wait out a hiccup, e.g. of a machine that has been busy deciding.

        Raises:
            SensorFault: there are faults still after the config's patience.
        """
        deadline = self._clock() + self._limits.patience
        while faults := self.faults():
            if self._clock() >= deadline:
                raise SensorFault("; ".join(map(str, faults)))
            time.sleep(0.005)

    def present_joints(self) -> np.ndarray | None:
        """[J] the arm's joints as last heard, or None."""
        newest = self.arm.newest
        return None if newest is None else newest.positions.copy()

    def tool_pose(self, stamp: int | None = None) -> np.ndarray:
        """[4, 4] the tool in the policy's world, from TF (newest, or at a moment).

        Raises:
            NoTransform: TF does not know.
        """
        frames = self._config.frames
        if frames.tool is None:
            raise NoTransform("frames.tool is null")
        T_base_frame = self.frames.lookup(frames.base, frames.tool, stamp, _TF_TOLERANCE)
        return self._T_world_base @ T_base_frame @ self._T_frame_tool

    def observe(self, after: int = 0, timeout: float | None = None) -> Seen:
        """The newest observation in which everything is later than `after` (ns), as soon as there is one.

        Raises:
            SensorFault: none within `timeout` seconds (default: the config's patience); says what was wrong last.
        """
        deadline = self._clock() + (self._limits.patience if timeout is None else timeout)
        while True:
            try:
                sight = self._observe(after)
                if sight is not None:
                    return sight
                reason = "no pictures of all cameras and no joints since the last motion"
            except SensorFault as error:
                reason = str(error)
            if self._clock() >= deadline:
                raise SensorFault(reason)
            time.sleep(0.005)

    def _observe(self, after: int) -> Seen | None:
        with self._lock:
            session = self._transport.session
            faults = self.faults()
            if faults:
                raise SensorFault("; ".join(map(str, faults)))
            newest = {name: stream.pairs(self._limits.mismatch)[0] for name, stream in self._cameras.items()}
            arm = self.arm.newest
            assert arm is not None  # its absence is a fault
            moment = min([pair.stamp for pair in newest.values()] or [arm.stamp])
            pairs = {
                name: stream.nearest(moment, self._limits.mismatch) or newest[name]
                for name, stream in self._cameras.items()
            }
            infos = {name: stream.info for name, stream in self._cameras.items()}
            if moment <= after or arm.stamp <= after:
                return None
            spread = max([abs(pair.stamp - moment) for pair in pairs.values()] or [0]) / 1e9
            if spread > self._limits.spread:
                raise SensorFault(f"spread: the cameras' pictures are {spread:.3f} s apart")
            joints, gripper = self.arm.at(moment), self.gripper.at(moment)
        assert joints is not None
        views = {name: self._view(name, pair, infos[name]) for name, pair in pairs.items()}
        try:
            tool = pose_vector(self.tool_pose(moment)) if self._config.frames.tool else np.full(7, np.nan)
        except NoTransform as error:
            raise SensorFault(f"frames: {error}") from None
        share = self.opening(gripper)
        observation = Observation(
            cameras=views,
            joint_positions=joints.positions,
            joint_velocities=joints.velocities,
            gripper_pose=tool,
            gripper_open=float(share > _OPEN_SHARE),
            gripper_joint_positions=np.full(2, share * _FINGER),
            joint_forces=joints.efforts,
            ignore_collisions=False,
        )
        oldest = min([pair.stamp for pair in pairs.values()] or [joints.stamp])
        return Seen(observation, moment, session, (self._wall() - oldest) / 1e9)

    def opening(self, sample: JointSample | None) -> float:
        """How far the gripper is open, 0 to 1."""
        gripper = self._config.gripper
        if sample is None:
            return 1.0
        share = (float(sample.positions.mean()) - gripper.closed) / (gripper.opened - gripper.closed)
        return float(np.clip(share, 0.0, 1.0))

    def _view(self, name: str, pair: Pair, info: CameraInfo | None) -> CameraView:
        """The picture that the policy gets.

        Raises:
            SensorFault: it cannot be decoded, has no calibration, or hardly any depth.
        """
        if info is None:
            raise SensorFault(f"{name}: no camera_info yet")
        try:
            color, depth = (
                item.decode() if isinstance(item, CompressedImage) else item for item in (pair.color, pair.depth)
            )
        except MalformedMessage as error:
            raise SensorFault(f"{name}: {error}") from None
        if color.encoding != "rgb8" or depth.encoding not in ("16UC1", "32FC1"):
            raise SensorFault(f"{name}: {color.encoding} and {depth.encoding} are no colour and depth")
        shape = (info.height, info.width)
        if color.data.shape[:2] != shape or depth.data.shape != shape:
            raise SensorFault(
                f"{name}: camera_info is for {shape}, colour has {color.data.shape[:2]}, depth {depth.data.shape}"
            )
        metres = depth.data.astype(np.float32)
        if depth.encoding == "16UC1":
            metres *= 0.001
        try:
            rgb, metres = undistorted(color.data, metres, info)
            T_base_camera = self._camera_pose(name, info, pair.stamp)
        except (CannotRectify, NoTransform) as error:
            raise SensorFault(f"{name}: {error}") from None
        size, limits = self._config.image_size, self._limits
        metres = square(metres, size, smooth=False)
        valid = np.isfinite(metres) & (metres >= limits.near) & (metres <= limits.far)
        if valid.mean() < limits.depth_share:
            raise SensorFault(f"{name}: only {valid.mean():.0%} of the pixels have depth")
        return CameraView(
            rgb=square(rgb, size, smooth=True),
            depth=np.where(valid, metres, np.float32(limits.far)),  # far away: outside the volume
            intrinsics=square_intrinsics(info.intrinsics, *shape, size),
            T_world_camera=self._T_world_base @ T_base_camera,
            near=limits.near,
            far=limits.far,
        )

    def _camera_pose(self, name: str, info: CameraInfo, stamp: int) -> np.ndarray:
        """[4, 4] of a camera's optical frame in the robot's base, from the config or from TF."""
        frames = self._config.frames
        given = frames.cameras.get(name)
        if given is None:
            return self.frames.lookup(frames.base, info.frame_id, stamp, _TF_TOLERANCE)
        T_parent_camera = pose_matrix(given["pose"])
        if given["frame"] == frames.base:
            return T_parent_camera
        return self.frames.lookup(frames.base, given["frame"], stamp, _TF_TOLERANCE) @ T_parent_camera

    def _stop_faults(self, now: float) -> list[Fault]:
        if self._config.topics.stop is None:
            return []
        if self._stop is None:
            return [Fault("emergency stop", f"nothing heard on {self._config.topics.stop} yet")]
        heard, pressed = self._stop
        if pressed:
            return [Fault("emergency stop", "pressed")]
        limit = self._limits.stop_heartbeat
        if limit and now - heard > limit:
            return [Fault("emergency stop", f"silent for {now - heard:.2f} s, so it may be pressed")]
        return []

    def _joint_faults(self, newest: JointSample | None, what: str, now: float, wall: int) -> list[Fault]:
        if newest is None:
            return [Fault("stale", f"nothing heard of {what} yet")]
        # Grippers tell their width at their own, slower pace.
        limit = self._limits.joint_age if what.startswith("the arm") else max(self._limits.joint_age, 0.5)
        if now - newest.received > limit:
            return [Fault("stale", f"nothing heard of {what} for {now - newest.received:.3f} s")]
        return self._stamp_faults(newest.stamp, what, wall, limit - self._limits.joint_age)

    def _camera_faults(self, name: str, camera: CameraStream, now: float, wall: int) -> list[Fault]:
        for queue, what in ((camera.color, "colour"), (camera.depth, "depth")):
            if not queue:
                return [Fault("stale", f"{name}: no {what} pictures yet")]
            if now - queue[-1][0] > self._limits.picture_age:
                return [Fault("stale", f"{name}: no {what} picture for {now - queue[-1][0]:.3f} s")]
            found = self._stamp_faults(queue[-1][1].stamp, f"{name}'s {what}", wall)
            if found:
                return found
        pairs = camera.pairs(self._limits.mismatch)
        apart = (camera.color[-1][1].stamp - camera.depth[-1][1].stamp) / 1e9
        behind = (camera.color[-1][1].stamp - pairs[0].stamp) / 1e9 if pairs else np.inf
        if behind > self._limits.spread:
            return [Fault("mismatch", f"{name}: colour and depth are {abs(apart):.3f} s apart")]
        if camera.info is None:
            return [Fault("calibration", f"{name}: no camera_info yet")]
        return []

    def _stamp_faults(self, stamp: int, what: str, wall: int, patience: float = 0.0) -> list[Fault]:
        age = (wall - stamp) / 1e9
        if age > self._limits.stamp_age + patience:
            return [Fault("old", f"{what}: stamped {age:.3f} s ago, though it has just come")]
        if age < -self._limits.skew:
            return [Fault("skew", f"{what}: stamped {-age:.3f} s in the future: set the clocks (chrony, NTP)")]
        return []

    def _appender(self, queue: object) -> Callable[[Message], None]:
        def take(message: Message) -> None:
            with self._lock:
                queue.append((self._clock(), message))  # type: ignore[attr-defined]

        return take

    def _keeper(self, stream: CameraStream) -> Callable[[CameraInfo], None]:
        def take(message: CameraInfo) -> None:
            if np.isfinite(message.intrinsics).all() and message.intrinsics[0, 0] > 0 and message.intrinsics[1, 1] > 0:
                stream.info = message

        return take

    def _take_joints(self, message: JointState) -> None:
        with self._lock:
            now = self._clock()
            for stream in (self.arm, self.gripper):
                if stream.names_in(message):
                    words = stream.add(message, now)
                    if words:
                        self._invalid["joints"] = now, words
            last, before = self.arm.newest, self.arm.before_newest()
            if last is not None and before is not None and last.received == now:
                moved = np.abs(last.positions - before.positions).max()
                if moved > self._limits.jump + _FASTEST_JOINT * max(0.0, (last.stamp - before.stamp) / 1e9):
                    self._jump = Fault("jump", f"a joint jumped by {moved:.2f} rad between two messages")

    def _take_frames(self, message: Transforms, is_static: bool) -> None:
        for transform in message.transforms:
            self.frames.add(transform, is_static)

    def _take_stop(self, message: Bool) -> None:
        with self._lock:
            self._stop = self._clock(), message.value
        for tell in self.on_stop:
            tell(message.value)
