"""ROS messages from and to dicts of plain values, for any type, by the fields that it declares."""

from __future__ import annotations

import array
from importlib import import_module
from typing import Any

import numpy as np


def interface(name: str) -> Any:
    """The class of "package/msg/Name" or "package/action/Name"."""
    package, kind, short = name.split("/")
    return getattr(import_module(f"{package}.{kind}"), short)


def to_dict(message: Any) -> dict[str, Any]:
    """A ROS message as a dict; byte arrays as bytes."""
    return {name: _plain(getattr(message, name)) for name in message.get_fields_and_field_types()}


def _plain(value: Any) -> Any:
    if hasattr(value, "get_fields_and_field_types"):
        return to_dict(value)
    if isinstance(value, array.array):
        return value.tobytes() if value.typecode == "B" else value.tolist()
    if isinstance(value, np.ndarray):
        return value.tobytes() if value.dtype == np.uint8 else value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value


def fill(message: Any, values: dict[str, Any]) -> Any:
    """Set the fields of a ROS message that `values` names; the others keep their defaults. Returns the message.

    Raises ValueError for a field that the message does not have, or a value that does not fit.
    """
    types = message.get_fields_and_field_types()
    for name, value in values.items():
        if name not in types:
            raise ValueError(f"{type(message).__name__} has no field {name}")
        present = getattr(message, name)
        if hasattr(present, "get_fields_and_field_types"):
            fill(present, value)
            continue
        try:
            setattr(message, name, _fitting(present, value, types[name]))
        except (AssertionError, TypeError, OverflowError) as error:
            raise ValueError(f"{type(message).__name__}.{name}: {error}") from None
    return message


def _fitting(present: Any, value: Any, kind: str) -> Any:
    """`value` as the field that holds `present` wants it; kind: the field's declared type."""
    if isinstance(present, array.array):
        return array.array(present.typecode, value)
    if isinstance(present, np.ndarray):
        return np.frombuffer(value, np.uint8) if isinstance(value, bytes) else np.asarray(value, present.dtype)
    if isinstance(present, list) and value and isinstance(value[0], dict):
        package, short = kind.removeprefix("sequence<").split(">")[0].split("[")[0].split(",")[0].split("/")
        element = interface(f"{package}/msg/{short}")
        return [fill(element(), item) for item in value]
    return float(value) if isinstance(present, float) else value
