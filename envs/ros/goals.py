"""Goals of the actions that move an arm and its gripper, as plain dataclasses; `envs.ros.messages` has the wire form.

Interfaces: control_msgs (ros2_control's controllers), franka_msgs (franka_ros2's gripper), moveit_msgs (MoveIt 2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from envs.ros.messages import JointTrajectory, Message, Wire, duration, floats, pose_wire, unnamed


@dataclass(frozen=True)
class Goal(Message):
    """Base of all goals; `ROS_TYPE` is the action's, to_wire and from_wire are of its Goal part."""


@dataclass(frozen=True)
class FollowJointTrajectory(Goal):
    """ros2_control's joint_trajectory_controller. goal_time: seconds beyond the last point before the controller gives
    up."""

    ROS_TYPE: ClassVar[str] = "control_msgs/action/FollowJointTrajectory"
    trajectory: JointTrajectory
    goal_time: float = 0.3

    def to_wire(self) -> Wire:
        return {"trajectory": self.trajectory.to_wire(), "goal_time_tolerance": duration(self.goal_time)}

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Self:
        return cls(JointTrajectory.from_wire(wire["trajectory"]))


@dataclass(frozen=True)
class GripperCommand(Goal):
    """ros2_control's gripper. position: metres, whose meaning is the driver's (see the config's `gripper`). max_effort:
    newtons, 0 for the driver's own."""

    ROS_TYPE: ClassVar[str] = "control_msgs/action/GripperCommand"
    position: float
    max_effort: float

    def to_wire(self) -> Wire:
        return {"command": {"position": self.position, "max_effort": self.max_effort}}

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Self:
        position, effort = floats([wire["command"][key] for key in ("position", "max_effort")])
        return cls(float(position), float(effort))


@dataclass(frozen=True)
class FrankaMove(Goal):
    """franka_gripper's Move. width: metres between the fingers. speed: metres per second."""

    ROS_TYPE: ClassVar[str] = "franka_msgs/action/Move"
    width: float
    speed: float

    def to_wire(self) -> Wire:
        return {"width": self.width, "speed": self.speed}

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Self:
        return cls(*(float(value) for value in floats([wire["width"], wire["speed"]])))


@dataclass(frozen=True)
class FrankaGrasp(Goal):
    """franka_gripper's Grasp: close until something is between the fingers, then hold with `force` (newtons).

    width: metres at which the thing is expected; inner, outer: how far from it (metres) still counts as grasped.
    """

    ROS_TYPE: ClassVar[str] = "franka_msgs/action/Grasp"
    width: float
    speed: float
    force: float
    inner: float
    outer: float

    def to_wire(self) -> Wire:
        epsilon = {"inner": self.inner, "outer": self.outer}
        return {"width": self.width, "speed": self.speed, "force": self.force, "epsilon": epsilon}

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Self:
        values = [wire[key] for key in ("width", "speed", "force")] + [
            wire["epsilon"][key] for key in ("inner", "outer")
        ]
        return cls(*(float(value) for value in floats(values)))


@dataclass(frozen=True)
class MoveGroup(Goal):
    """MoveIt 2's /move_action: plan to a pose of `link` and go there. Tolerances: metres and radians."""

    ROS_TYPE: ClassVar[str] = "moveit_msgs/action/MoveGroup"
    group: str
    link: str
    frame_id: str
    position: np.ndarray
    quaternion: np.ndarray
    position_tolerance: float = 0.002
    angle_tolerance: float = 0.01
    planning_time: float = 5.0
    speed: float = 0.3
    acceleration: float = 0.3

    def to_wire(self) -> Wire:
        # The frame goes with a zero stamp: "the newest transform", which is what MoveIt plans with anyhow.
        head = {"stamp": {"sec": 0, "nanosec": 0}, "frame_id": self.frame_id}
        upright = np.array([0.0, 0.0, 0.0, 1.0])
        ball = {"type": 2, "dimensions": [self.position_tolerance]}  # shape_msgs/SolidPrimitive.SPHERE
        region = {"primitives": [ball], "primitive_poses": [pose_wire(self.position, upright)]}
        where = {"header": head, "link_name": self.link, "constraint_region": region, "weight": 1.0}
        tolerance = {f"absolute_{axis}_axis_tolerance": self.angle_tolerance for axis in "xyz"}
        turn = pose_wire(self.position, self.quaternion)["orientation"]
        how = {"header": head, "link_name": self.link, "orientation": turn, **tolerance, "weight": 1.0}
        request = {
            "group_name": self.group,
            "num_planning_attempts": 4,
            "allowed_planning_time": self.planning_time,
            "max_velocity_scaling_factor": self.speed,
            "max_acceleration_scaling_factor": self.acceleration,
            "goal_constraints": [{"position_constraints": [where], "orientation_constraints": [how]}],
            "start_state": {"is_diff": True},
        }
        # replan: never by itself; a failure is told to the one who asked.
        return {"request": request, "planning_options": {"plan_only": False, "replan": False}}

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Self:
        request = wire["request"]
        constraints = request["goal_constraints"][0]
        where, how = constraints["position_constraints"][0], constraints["orientation_constraints"][0]
        return cls(
            request["group_name"],
            where["link_name"],
            where["header"]["frame_id"],
            unnamed(where["constraint_region"]["primitive_poses"][0]["position"], "xyz"),
            unnamed(how["orientation"], "xyzw"),
            speed=float(request["max_velocity_scaling_factor"]),
            acceleration=float(request["max_acceleration_scaling_factor"]),
        )
