"""What crosses the bus, as plain dataclasses of numpy arrays, whatever transport carries it.

Every class names its ROS type and turns into and out of a "wire" dict: the JSON-like form that rosbridge speaks, with
ROS 2's field names. Byte arrays are `bytes` in the dicts made here; base64 text (rosbridge) and lists of numbers are
read too. Not-a-number arrives over rosbridge as null and becomes NaN again, for whoever checks values to find.

Stamps are whole nanoseconds since the epoch, quaternions xyzw, lengths metres, angles radians, poses [4, 4].
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np

from envs.ros import pictures
from envs.ros.geometry import pose_matrix, pose_vector

Wire = dict[str, Any]


class MalformedMessage(ValueError):
    """A message that does not mean anything: a field is absent, of the wrong type or of the wrong size."""


@dataclass(frozen=True)
class Message:
    """Base of all messages."""

    ROS_TYPE: ClassVar[str]

    def to_wire(self) -> Wire:
        """The dict that a transport sends."""
        raise NotImplementedError

    @classmethod
    def parse(cls, wire: Mapping[str, Any]) -> Self:
        """As `from_wire`, but whatever is wrong with the dict is a `MalformedMessage` that names the type."""
        try:
            return cls.from_wire(wire)
        except MalformedMessage as error:
            raise MalformedMessage(f"{cls.ROS_TYPE}: {error}") from None
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, OSError) as error:
            raise MalformedMessage(f"{cls.ROS_TYPE}: {type(error).__name__}: {error}") from None

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Self:
        raise NotImplementedError


@dataclass(frozen=True)
class Image(Message):
    """A raw picture. data: rgb8 [H, W, 3] uint8 (bgr8, rgba8 and bgra8 are turned into it), mono8 [H, W] uint8, 16UC1
    [H, W] uint16 (depth in millimetres), 32FC1 [H, W] float32 (depth in metres). encoding: that of `data`."""

    ROS_TYPE: ClassVar[str] = "sensor_msgs/msg/Image"
    stamp: int
    frame_id: str
    encoding: str
    data: np.ndarray

    def to_wire(self) -> Wire:
        array = np.ascontiguousarray(self.data)
        height, width = array.shape[:2]
        return {
            "header": header(self.stamp, self.frame_id),
            "height": height,
            "width": width,
            "encoding": self.encoding,
            "is_bigendian": 0,
            "step": array.strides[0],
            "data": array.tobytes(),
        }

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Self:
        encoding, array = pictures.decode_raw(
            str(wire["encoding"]),
            int(wire["height"]),
            int(wire["width"]),
            int(wire["step"]),
            bool(wire.get("is_bigendian", 0)),
            raw_bytes(wire["data"]),
        )
        return cls(*stamp_and_frame(wire), encoding, array)


@dataclass(frozen=True)
class CompressedImage(Message):
    """A compressed picture as it came; it is decoded when somebody looks at it, because most are never looked at.

    format: image_transport's text, such as "rgb8; jpeg compressed bgr8", "16UC1; png" or "16UC1; compressedDepth png".
    """

    ROS_TYPE: ClassVar[str] = "sensor_msgs/msg/CompressedImage"
    stamp: int
    frame_id: str
    format: str
    content: bytes

    @classmethod
    def of(cls, image: Image, form: str = "") -> Self:
        """Compress: colour as JPEG (PNG if `form` says so), 16UC1 as PNG ("compressedDepth": with a header)."""
        return cls(image.stamp, image.frame_id, *pictures.compress(image.encoding, image.data, form))

    def decode(self) -> Image:
        """The picture.

        Raises:
            MalformedMessage: it cannot be decoded.
        """
        try:
            encoding, array = pictures.decompress(self.format, self.content)
        except ValueError as error:
            raise MalformedMessage(str(error)) from None
        return Image(self.stamp, self.frame_id, encoding, array)

    def to_wire(self) -> Wire:
        return {"header": header(self.stamp, self.frame_id), "format": self.format, "data": self.content}

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Self:
        return cls(*stamp_and_frame(wire), str(wire["format"]), raw_bytes(wire["data"]))


@dataclass(frozen=True)
class CameraInfo(Message):
    """Calibration of a camera. intrinsics: [3, 3] pixels. distortion: [N] of `distortion_model`. frame_id: the optical
    frame's (x right, y down, z forward)."""

    ROS_TYPE: ClassVar[str] = "sensor_msgs/msg/CameraInfo"
    stamp: int
    frame_id: str
    height: int
    width: int
    intrinsics: np.ndarray
    distortion: np.ndarray = field(default_factory=lambda: np.zeros(5))
    distortion_model: str = "plumb_bob"

    def to_wire(self) -> Wire:
        projection = np.zeros((3, 4))
        projection[:, :3] = self.intrinsics
        return {
            "header": header(self.stamp, self.frame_id),
            "height": self.height,
            "width": self.width,
            "distortion_model": self.distortion_model,
            "d": _list(self.distortion),
            "k": _list(self.intrinsics),
            "r": _list(np.eye(3)),
            "p": _list(projection),
        }

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Self:
        ros1 = "K" in wire
        return cls(
            *stamp_and_frame(wire),
            int(wire["height"]),
            int(wire["width"]),
            floats(wire["K" if ros1 else "k"], 9).reshape(3, 3),
            floats(wire["D" if ros1 else "d"]),
            str(wire["distortion_model"]),
        )


@dataclass(frozen=True)
class JointState(Message):
    """Joints by name. positions: [J] radians (metres for sliding joints). velocities, efforts: [J], or empty if the
    driver does not tell."""

    ROS_TYPE: ClassVar[str] = "sensor_msgs/msg/JointState"
    stamp: int
    names: tuple[str, ...]
    positions: np.ndarray
    velocities: np.ndarray = field(default_factory=lambda: np.zeros(0))
    efforts: np.ndarray = field(default_factory=lambda: np.zeros(0))
    frame_id: str = ""

    def to_wire(self) -> Wire:
        return {
            "header": header(self.stamp, self.frame_id),
            "name": list(self.names),
            "position": _list(self.positions),
            "velocity": _list(self.velocities),
            "effort": _list(self.efforts),
        }

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Self:
        names = tuple(str(name) for name in wire["name"])
        stamp, frame = stamp_and_frame(wire)
        values = [floats(wire[key]) for key in ("position", "velocity", "effort")]
        for key, value in zip(("position", "velocity", "effort"), values, strict=True):
            if len(value) not in ((len(names),) if key == "position" else (0, len(names))):
                raise MalformedMessage(f"{len(value)} values of {key} for {len(names)} joints")
        return cls(stamp, names, values[0], values[1], values[2], frame)


@dataclass(frozen=True)
class Transform(Message):
    """A frame in its parent's: `matrix` [4, 4] takes points from `child_frame_id` to `frame_id`."""

    ROS_TYPE: ClassVar[str] = "geometry_msgs/msg/TransformStamped"
    stamp: int
    frame_id: str
    child_frame_id: str
    matrix: np.ndarray

    def to_wire(self) -> Wire:
        x, y, z, *quaternion = pose_vector(self.matrix).tolist()
        return {
            "header": header(self.stamp, self.frame_id),
            "child_frame_id": self.child_frame_id,
            "transform": {"translation": {"x": x, "y": y, "z": z}, "rotation": named(quaternion)},
        }

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Self:
        inner = wire["transform"]
        position, quaternion = unnamed(inner["translation"], "xyz"), unnamed(inner["rotation"], "xyzw")
        if not 0.99 < np.linalg.norm(quaternion) < 1.01:  # NaN included
            raise MalformedMessage(f"the rotation of {wire['child_frame_id']} is no unit quaternion: {quaternion}")
        return cls(*stamp_and_frame(wire), _frame(wire["child_frame_id"]), pose_matrix([*position, *quaternion]))


@dataclass(frozen=True)
class Transforms(Message):
    """What /tf and /tf_static carry."""

    ROS_TYPE: ClassVar[str] = "tf2_msgs/msg/TFMessage"
    transforms: tuple[Transform, ...]

    def to_wire(self) -> Wire:
        return {"transforms": [transform.to_wire() for transform in self.transforms]}

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Self:
        return cls(tuple(Transform.from_wire(item) for item in wire["transforms"]))


@dataclass(frozen=True)
class Bool(Message):
    """True or false, such as the emergency stop's (true: stop)."""

    ROS_TYPE: ClassVar[str] = "std_msgs/msg/Bool"
    value: bool

    def to_wire(self) -> Wire:
        return {"data": self.value}

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Self:
        if not isinstance(wire["data"], bool):
            raise MalformedMessage(f"{wire['data']!r} is neither true nor false")
        return cls(wire["data"])


@dataclass(frozen=True)
class Text(Message):
    """Words, such as the reason of a refusal."""

    ROS_TYPE: ClassVar[str] = "std_msgs/msg/String"
    text: str

    def to_wire(self) -> Wire:
        return {"data": self.text}

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Self:
        return cls(str(wire["data"]))


@dataclass(frozen=True)
class PoseStamped(Message):
    """A pose in a frame. position: [3]. quaternion: [4] xyzw."""

    ROS_TYPE: ClassVar[str] = "geometry_msgs/msg/PoseStamped"
    stamp: int
    frame_id: str
    position: np.ndarray
    quaternion: np.ndarray

    def to_wire(self) -> Wire:
        return {"header": header(self.stamp, self.frame_id), "pose": pose_wire(self.position, self.quaternion)}

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Self:
        pose = wire["pose"]
        position, quaternion = unnamed(pose["position"], "xyz"), unnamed(pose["orientation"], "xyzw")
        return cls(*stamp_and_frame(wire), position, quaternion)


@dataclass(frozen=True)
class JointTrajectory(Message):
    """When to be where. names: J joints. times: [N] seconds from the start. positions, velocities: [N, J] (velocities
    may be [0, J]: the controller finds them)."""

    ROS_TYPE: ClassVar[str] = "trajectory_msgs/msg/JointTrajectory"
    names: tuple[str, ...]
    times: np.ndarray
    positions: np.ndarray
    velocities: np.ndarray
    stamp: int = 0  # 0: begin at once
    frame_id: str = ""

    def to_wire(self) -> Wire:
        points = []
        for k in range(len(self.times)):
            velocities = _list(self.velocities[k]) if len(self.velocities) else []
            points.append(
                {
                    "positions": _list(self.positions[k]),
                    "velocities": velocities,
                    "accelerations": [],
                    "effort": [],
                    "time_from_start": duration(float(self.times[k])),
                }
            )
        return {"header": header(self.stamp, self.frame_id), "joint_names": list(self.names), "points": points}

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Self:
        names = tuple(str(name) for name in wire["joint_names"])
        stamp, frame = stamp_and_frame(wire)
        points = wire["points"]
        positions = [floats(point["positions"], len(names)) for point in points]
        velocities = [floats(point["velocities"], len(names)) for point in points if len(point["velocities"])]
        if velocities and len(velocities) != len(points):
            raise MalformedMessage("some points have velocities, others have none")
        times = np.array([seconds(point["time_from_start"]) for point in points])
        shape = (-1, len(names)) if names else (0, 0)
        return cls(names, times, np.reshape(positions, shape), np.reshape(velocities, shape), stamp, frame)


def header(stamp: int, frame_id: str) -> Wire:
    """std_msgs/Header."""
    return {"stamp": {"sec": stamp // 10**9, "nanosec": stamp % 10**9}, "frame_id": frame_id}


def stamp_and_frame(wire: Mapping[str, Any]) -> tuple[int, str]:
    """Nanoseconds and frame of a message's header (of ROS 2 or ROS 1)."""
    stamp = wire["header"]["stamp"]
    whole, rest = (stamp["sec"], stamp["nanosec"]) if "sec" in stamp else (stamp["secs"], stamp["nsecs"])
    return int(whole) * 10**9 + int(rest), _frame(wire["header"]["frame_id"])


def duration(time: float) -> Wire:
    """builtin_interfaces/Duration of seconds."""
    nanoseconds = round(time * 1e9)
    return {"sec": nanoseconds // 10**9, "nanosec": nanoseconds % 10**9}


def seconds(wire: Mapping[str, Any]) -> float:
    """Seconds of a builtin_interfaces/Duration."""
    return int(wire["sec"]) + int(wire["nanosec"]) * 1e-9


def pose_wire(position: np.ndarray, quaternion: np.ndarray) -> Wire:
    """geometry_msgs/Pose."""
    return {"position": named(_list(position)), "orientation": named(_list(quaternion))}


def named(values: Sequence[float]) -> Wire:
    """Numbers by x, y, z and, if there are four, w."""
    return dict(zip("xyzw", values, strict=False))


def unnamed(wire: Mapping[str, Any], names: str) -> np.ndarray:
    """[len(names)] numbers that stand under those letters."""
    return floats([wire[name] for name in names])


def floats(values: Any, count: int | None = None) -> np.ndarray:
    """[N] float64; null, which is what JSON has for not-a-number and infinities, becomes NaN."""
    array = np.array([np.nan if value is None else value for value in values], np.float64)
    if array.ndim != 1 or (count is not None and len(array) != count):
        raise MalformedMessage(f"expected {'a list' if count is None else count} numbers, found {array.shape}")
    return array


def raw_bytes(data: Any) -> bytes:
    """A byte array in any of its forms: bytes, base64 text, numbers."""
    if isinstance(data, str):
        try:
            return base64.b64decode(data, validate=True)
        except binascii.Error as error:
            raise MalformedMessage(f"the data are no base64: {error}") from None
    return bytes(data)


def _list(values: np.ndarray) -> list[float]:
    return np.asarray(values, float).ravel().tolist()


def _frame(name: Any) -> str:
    """A frame's name without ROS 1's leading slash."""
    return str(name).removeprefix("/")
