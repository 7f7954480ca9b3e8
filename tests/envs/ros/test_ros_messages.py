"""Messages survive their wire form, in each of the forms that transports use; what means nothing is refused by name."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.ros import goals, messages
from envs.ros.geometry import pose_matrix

RNG = np.random.default_rng(0)
POSE = pose_matrix([0.1, -0.2, 0.3, 0.5, 0.5, -0.5, 0.5])
TRAJECTORY = messages.JointTrajectory(
    ("a", "b"), np.array([0.5, 1.25]), RNG.normal(size=(2, 2)), RNG.normal(size=(2, 2))
)
EXAMPLES: list[messages.Message] = [
    messages.Image(1_700_000_000_123_456_789, "cam", "rgb8", RNG.integers(0, 255, (4, 6, 3)).astype(np.uint8)),
    messages.Image(5, "cam", "16UC1", RNG.integers(0, 65535, (4, 6)).astype(np.uint16)),
    messages.Image(5, "cam", "32FC1", RNG.normal(size=(4, 6)).astype(np.float32)),
    messages.CameraInfo(5, "cam", 4, 6, np.array([[9.0, 0, 2.5], [0, 9.0, 1.5], [0, 0, 1]])),
    messages.JointState(7, ("a", "b"), np.array([0.1, np.nan]), np.array([1.0, 2.0])),
    messages.Transforms((messages.Transform(3, "base", "cam", POSE),)),
    messages.Bool(True),
    messages.Text("why not"),
    messages.PoseStamped(9, "world", np.array([1.0, 2.0, 3.0]), np.array([0.0, 0.0, 0.0, 1.0])),
    TRAJECTORY,
    goals.FollowJointTrajectory(TRAJECTORY),
    goals.GripperCommand(0.04, 20.0),
    goals.FrankaMove(0.08, 0.1),
    goals.FrankaGrasp(0.02, 0.1, 30.0, 0.005, 0.01),
]


def over_json(value: Any) -> Any:
    """What a rosbridge server makes of a wire dict: base64, and null for what JSON has no number for."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {key: over_json(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [over_json(inner) for inner in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def same(first: Any, second: Any) -> bool:
    if isinstance(first, np.ndarray):
        return first.shape == second.shape and bool(np.allclose(first, second, atol=1e-9, equal_nan=True))
    if isinstance(first, tuple) and first and not isinstance(first[0], str):
        return all(same(a, b) for a, b in zip(first, second, strict=True))
    if hasattr(first, "__dataclass_fields__"):
        return all(same(getattr(first, name), getattr(second, name)) for name in first.__dataclass_fields__)
    return bool(first == second)


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda m: type(m).__name__)
def test_round_trip_in_both_wire_forms(message: messages.Message) -> None:
    wire = message.to_wire()
    assert same(message, type(message).parse(wire))
    assert same(message, type(message).parse(json.loads(json.dumps(over_json(wire)))))


def test_colours_come_as_rgb_whatever_their_order() -> None:
    wire = messages.Image(0, "", "rgb8", np.full((2, 2, 3), [1, 2, 3], np.uint8)).to_wire()
    assert messages.Image.parse(wire | {"encoding": "bgr8"}).data[0, 0].tolist() == [3, 2, 1]
    padded = wire | {"step": 8, "data": b"\x01\x02\x03\x01\x02\x03\xff\xff" * 2}
    assert messages.Image.parse(padded).data.tolist() == np.full((2, 2, 3), [1, 2, 3]).tolist()


def test_big_endian_depth() -> None:
    depth = np.array([[1, 256], [512, 3]], np.uint16)
    wire = messages.Image(0, "", "16UC1", depth).to_wire()
    swapped = wire | {"is_bigendian": 1, "data": depth.astype(">u2").tobytes()}
    assert (messages.Image.parse(swapped).data == depth).all()


def test_compressed_pictures() -> None:
    depth = messages.Image(3, "cam", "16UC1", RNG.integers(0, 65535, (8, 8)).astype(np.uint16))
    for form in ("png", "compressedDepth"):
        packed = messages.CompressedImage.of(depth, form)
        unpacked = messages.CompressedImage.parse(over_json(packed.to_wire())).decode()
        assert unpacked.encoding == "16UC1" and (unpacked.data == depth.data).all() and unpacked.stamp == 3
    smooth = np.linspace(0, 255, 64 * 64 * 3).reshape(64, 64, 3).astype(np.uint8)
    color = messages.CompressedImage.of(messages.Image(0, "", "rgb8", smooth)).decode()
    assert color.encoding == "rgb8" and np.abs(color.data.astype(int) - smooth).max() < 12
    with pytest.raises(messages.MalformedMessage, match="not a readable JPEG or PNG"):
        messages.CompressedImage(0, "", "jpeg", b"nonsense").decode()


@pytest.mark.parametrize(
    ("kind", "change", "words"),
    [
        (messages.Image, {"encoding": "yuv422"}, "yuv422"),
        (messages.Image, {"data": b"\x00"}, "1 bytes"),
        (messages.Image, {"data": "&&&"}, "no base64"),
        (messages.Image, {"height": -1}, "do not hold"),
        (messages.Image, {"header": {}}, "stamp"),
        (messages.JointState, {"position": [1.0]}, "1 values of position for 2 joints"),
        (messages.JointState, {"name": None}, "TypeError"),
        (messages.Bool, {"data": "yes"}, "neither true nor false"),
    ],
)
def test_what_means_nothing_is_named(kind: type[messages.Message], change: dict[str, Any], words: str) -> None:
    wire = next(m for m in EXAMPLES if isinstance(m, kind)).to_wire() | change
    with pytest.raises(messages.MalformedMessage, match=words) as caught:
        kind.parse(wire)
    assert kind.ROS_TYPE in str(caught.value)


def test_a_rotation_that_is_none_is_refused() -> None:
    wire = EXAMPLES[5].to_wire()
    wire["transforms"][0]["transform"]["rotation"] = {"x": 0.0, "y": 0.0, "z": 0.0, "w": None}
    with pytest.raises(messages.MalformedMessage, match="no unit quaternion"):
        messages.Transforms.parse(wire)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.data())
def test_no_frame_breaks_the_reader(data: st.DataObject) -> None:
    """Whatever stands in any one field: the message is read, or refused as malformed."""
    example = data.draw(st.sampled_from(EXAMPLES))
    wire = example.to_wire()
    key = data.draw(st.sampled_from(sorted(wire)))
    wire[key] = data.draw(json_values)
    try:
        type(example).parse(wire)
    except messages.MalformedMessage:
        pass


def test_moveits_goal_is_a_subset_of_its_interface() -> None:
    """Names as in moveit_msgs (Jazzy): a wrong one would be refused by every server."""
    goal = goals.MoveGroup(
        "panda_arm", "panda_hand_tcp", "panda_link0", np.array([0.4, 0, 0.5]), np.array([1.0, 0, 0, 0])
    )
    wire = goal.to_wire()
    request = wire["request"]
    assert set(wire) <= {"request", "planning_options"}
    assert set(request) <= {
        "workspace_parameters", "start_state", "goal_constraints", "path_constraints", "trajectory_constraints",
        "reference_trajectories", "pipeline_id", "planner_id", "group_name", "num_planning_attempts",
        "allowed_planning_time", "max_velocity_scaling_factor", "max_acceleration_scaling_factor",
    }  # fmt: skip
    constraint = request["goal_constraints"][0]
    assert set(constraint["position_constraints"][0]) <= {
        "header", "link_name", "target_point_offset", "constraint_region", "weight",
    }  # fmt: skip
    assert set(constraint["orientation_constraints"][0]) <= {
        "header", "orientation", "link_name", "absolute_x_axis_tolerance", "absolute_y_axis_tolerance",
        "absolute_z_axis_tolerance", "parameterization", "weight",
    }  # fmt: skip
    again = goals.MoveGroup.parse(wire)
    assert (again.group, again.link, again.frame_id) == ("panda_arm", "panda_hand_tcp", "panda_link0")
    assert (again.position == goal.position).all() and (again.quaternion == goal.quaternion).all()
