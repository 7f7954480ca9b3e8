"""Between `rosbags`' message objects and the wire dicts of `envs.ros.messages`.

Only the types below are ever decoded, with the definitions that `rosbags` itself ships: the definitions inside a bag,
which a reader would have to turn into code, are not looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.store import Typestore

from envs.ros.messages import (
    Bool,
    CameraInfo,
    CompressedImage,
    Image,
    JointState,
    Message,
    PoseStamped,
    Text,
    Transforms,
    Wire,
)

KINDS: dict[str, type[Message]] = {
    kind.ROS_TYPE: kind
    for kind in (Bool, CameraInfo, CompressedImage, Image, JointState, PoseStamped, Text, Transforms)
}
SYNONYMS = {"tf/msg/tfMessage": Transforms.ROS_TYPE}  # ROS 1's first name for it, same fields
_NUMBERS = {"byte": np.uint8, "octet": np.uint8, "char": np.uint8, "bool": np.bool_}


@cache
def ros2_types() -> Typestore:
    """Message definitions of ROS 2 Jazzy; those of `KINDS` are the same from Foxy on."""
    return get_typestore(Stores.ROS2_JAZZY)


@cache
def ros1_types() -> Typestore:
    """Message definitions of ROS 1 Noetic."""
    return get_typestore(Stores.ROS1_NOETIC)


def encode(message: Message) -> memoryview:
    """A message in ROS 2's serialisation (CDR)."""
    store = ros2_types()
    return store.serialize_cdr(_from_wire(message.to_wire(), message.ROS_TYPE, store), message.ROS_TYPE)


def decode(content: bytes, name: str, ros1: bool) -> Wire:
    """The wire dict of a serialised message of type `name`, one of `KINDS`.

    Raises:
        rosbags.serde.SerdeError: the bytes are no such message.
    """
    store = ros1_types() if ros1 else ros2_types()
    message = store.deserialize_ros1(content, name) if ros1 else store.deserialize_cdr(content, name)
    return _to_wire(message, name, store)


def _to_wire(message: object, name: str, store: Typestore) -> Wire:
    fields = store.fielddefs[name][1]
    return {field: _plain(getattr(message, field), description, store) for field, description in fields}


def _plain(value: Any, description: Any, store: Typestore) -> Any:
    kind, detail = description
    if kind == Nodetype.NAME:
        return _to_wire(value, detail, store)
    if kind == Nodetype.BASE:
        return value
    inner = detail[0]
    if inner[0] == Nodetype.NAME:
        return [_to_wire(item, inner[1], store) for item in value]
    if isinstance(value, np.ndarray) and value.dtype == np.uint8:
        return value.tobytes()
    return value.tolist() if isinstance(value, np.ndarray) else value


def _from_wire(wire: Mapping[str, Any], name: str, store: Typestore) -> object:
    """A message object; fields that the wire dict lacks are zero."""
    fields = {field: _object(wire.get(field), description, store) for field, description in store.fielddefs[name][1]}
    return store.types[name](**fields)


def _object(value: Any, description: Any, store: Typestore) -> Any:
    kind, detail = description
    if kind == Nodetype.NAME:
        return _from_wire({} if value is None else value, detail, store)
    if kind == Nodetype.BASE:
        return ("" if detail[0] == "string" else 0) if value is None else value
    inner, count = detail
    if inner[0] == Nodetype.NAME:
        return [_from_wire(item, inner[1], store) for item in value or ()]
    if inner[1][0] == "string":
        return list(value or ())
    number = np.dtype(_NUMBERS.get(inner[1][0], inner[1][0]))
    if value is None:
        return np.zeros(count if kind == Nodetype.ARRAY else 0, number)
    return np.frombuffer(value, number) if isinstance(value, bytes) else np.asarray(value, number)
