"""What may not be sent to a robot, and why. Pure functions: no bus, no clock, no state; each raises `Refusal`.

`envs.ros.safety` calls them with what it knows of the present; they are apart so that they can be tested by the ten
thousand.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from envs.ros.config import GripperConfig, LimitsConfig
from envs.ros.geometry import pose_distance, pose_matrix
from envs.ros.goals import FrankaGrasp, FrankaMove, Goal, GripperCommand
from envs.ros.messages import JointTrajectory
from envs.ros.planning import PlanningScene

WORLD = "world"  # the frame of a policy's goals
FUTURE = 0.05  # seconds by which a goal's stamp may be ahead of the clock
HAND_RADIUS = 0.02  # metres around the tool that must stay out of boxes where there is no model of the arm
PATH_SLACK = 0.15  # metres by which the tool may leave the workspace on its way
LONGEST = 60.0  # seconds that a motion may take
MOST_POINTS = 10_000
_UNIT = 1e-3  # how far a quaternion's length may be from 1
_ROUNDING = 1.02  # speeds by finite differences are a little off


class Refusal(Exception):
    """Something is not sent. kind: a word; the message is the whole reason."""

    def __init__(self, kind: str, words: str) -> None:
        super().__init__(f"{kind}: {words}")
        self.kind = kind


@dataclass(frozen=True)
class MotionGoal:
    """A key-frame as it comes to the safety layer: where the tool shall go, and what that was decided upon.

    stamp: of the observation (ns). session: of the transport when it was made. frame_id: of position [3] and quaternion
    [4] xyzw. may_touch: contact on the way is allowed.
    """

    stamp: int
    session: int
    frame_id: str
    position: np.ndarray
    quaternion: np.ndarray
    may_touch: bool = False

    def matrix(self) -> np.ndarray:
        """[4, 4] the goal's pose."""
        return pose_matrix(np.concatenate([self.position, self.quaternion]))


def check_goal(goal: MotionGoal, tool: np.ndarray, now: int, session: int, limits: LimitsConfig) -> None:
    """Check what a goal says by itself. tool: [4, 4] where the tool is. now: ns. session: the present one."""
    position, quaternion = (np.asarray(value) for value in (goal.position, goal.quaternion))
    if (
        position.shape != (3,)
        or quaternion.shape != (4,)
        or position.dtype.kind not in "fiu"
        or quaternion.dtype.kind not in "fiu"
    ):
        raise Refusal("malformed", "a goal is three numbers of position and four of orientation")
    if not (np.isfinite(position).all() and np.isfinite(quaternion).all()):
        raise Refusal("not finite", f"position {_show(position)}, quaternion {_show(quaternion)}")
    length = float(np.linalg.norm(quaternion.astype(float)))
    if abs(length - 1.0) > _UNIT:
        raise Refusal("quaternion", f"its length is {length:.4g}, not 1")
    if goal.frame_id != WORLD:
        raise Refusal("frame", f"goals are given in '{WORLD}', not in '{goal.frame_id}'")
    if goal.session != session:
        raise Refusal("session", "the connection was renewed since the observation: observe anew")
    age = (now - goal.stamp) / 1e9
    if age > limits.goal_age:
        raise Refusal(
            "old", f"decided upon an observation {age:.1f} s ago (at most {limits.goal_age:g} s): observe anew"
        )
    if age < -FUTURE:
        raise Refusal("future", f"stamped {-age:.3f} s ahead of the clock")
    low, high = np.asarray(limits.low), np.asarray(limits.high)
    if not ((position >= low) & (position <= high)).all():
        raise Refusal("workspace", f"position {_show(position)} is outside {_show(low)} to {_show(high)}")
    distance, turn = pose_distance(tool, goal.matrix())
    if distance > limits.step:
        raise Refusal("step", f"{distance:.3f} m from where the tool is (at most {limits.step:g} m at once)")
    if turn > limits.turn:
        raise Refusal("step", f"{turn:.2f} rad from how the tool is turned (at most {limits.turn:g} at once)")
    for box in limits.boxes:
        half = np.asarray(box["size"], float) / 2 + (0.0 if goal.may_touch else HAND_RADIUS * 0.5)
        inside = np.abs(position - np.asarray(box["centre"], float)) < half
        if inside.all():
            raise Refusal("collision", f"position {_show(position)} is inside the box at {_show(box['centre'])}")


def check_trajectory(trajectory: JointTrajectory, joints: np.ndarray, names: list[str], limits: LimitsConfig) -> None:
    """Check a trajectory against the arm's limits. joints: [J] where it is. names: the arm's joints."""
    times, positions = trajectory.times, trajectory.positions
    if list(trajectory.names) != names:
        raise Refusal("joints", f"for {', '.join(trajectory.names) or 'nothing'}, not for {', '.join(names)}")
    if times.ndim != 1 or len(times) < 1 or len(times) > MOST_POINTS or positions.shape != (len(times), len(names)):
        raise Refusal("malformed", f"{positions.shape} positions at {times.shape} times for {len(names)} joints")
    velocities = trajectory.velocities
    if velocities.size and velocities.shape != positions.shape:
        raise Refusal("malformed", f"{velocities.shape} velocities for {positions.shape} positions")
    if not (np.isfinite(times).all() and np.isfinite(positions).all() and np.isfinite(velocities).all()):
        raise Refusal("not finite", "a time, position or velocity of the trajectory is no number")
    if trajectory.stamp != 0:
        raise Refusal("stamp", "a trajectory begins at once: one with a time to begin could begin in another situation")
    if times[0] < 0 or (np.diff(times) <= 0).any() or times[-1] > LONGEST or times[-1] <= 0:
        raise Refusal("times", f"they do not rise from 0 to at most {LONGEST:g} s")
    low, high = np.asarray(limits.joint_low), np.asarray(limits.joint_high)
    outside = (positions < low) | (positions > high)
    if outside.any():
        point, joint = np.argwhere(outside)[0]
        raise Refusal(
            "joint limit",
            f"{names[joint]} would go to {positions[point, joint]:.3f} rad, outside {low[joint]:g} to {high[joint]:g}",
        )
    if times[0] == 0.0:
        offset = float(np.abs(positions[0] - joints).max())
        if offset > limits.start_error:
            raise Refusal("start", f"begins {offset:.3f} rad from where the arm is: plan anew")
        path, moments = positions, times
    else:
        path, moments = np.concatenate([joints[None], positions]), np.concatenate([[0.0], times])
    fastest = np.asarray(limits.joint_speed) * _ROUNDING
    speeds = np.abs(np.diff(path, axis=0)) / np.diff(moments)[:, None]
    for values in (speeds, np.abs(velocities)):
        if values.size and (values > fastest).any():
            point, joint = np.argwhere(values > fastest)[0]
            raise Refusal(
                "speed",
                f"{names[joint]} would move at {values[point, joint]:.2f} rad/s, above {limits.joint_speed[joint]:g}",
            )


def check_path(
    trajectory: JointTrajectory,
    joints: np.ndarray,
    goal: MotionGoal,
    scene: PlanningScene,
    cloud: np.ndarray,
    limits: LimitsConfig,
    arrival: list[float],
) -> None:
    """Check where a trajectory leads: to the goal, inside the workspace, without touching what it may not."""
    path = np.concatenate([joints[None], trajectory.positions])
    half_turn = np.diag([-1.0, -1.0, 1.0, 1.0])
    end = scene.tool_pose(path[-1])
    errors = [pose_distance(end, target) for target in (goal.matrix(), goal.matrix() @ half_turn)]
    if not any(distance <= arrival[0] and turn <= arrival[1] for distance, turn in errors):
        raise Refusal("goal", f"the trajectory ends {min(errors)[0]:.3f} m from the goal")
    low, high = np.asarray(limits.low) - PATH_SLACK, np.asarray(limits.high) + PATH_SLACK
    sparse = path[np.unique(np.linspace(0, len(path) - 1, min(len(path), 60)).astype(int))]
    for number, stand in enumerate(sparse):
        position = scene.tool_pose(stand)[:3, 3]
        if number and not ((position >= low) & (position <= high)).all():
            raise Refusal("workspace", f"the tool would pass {_show(position)} on its way")
    words = scene.collision(sparse_path(path), goal.may_touch, cloud)
    if words:
        raise Refusal("collision", words)


def sparse_path(path: np.ndarray) -> np.ndarray:
    """The corners of a joint path [N, 7]: points on a line between their neighbours (to 1 mrad) are left out."""
    keep = [0]
    for k in range(1, len(path) - 1):
        start = path[keep[-1]]
        along = path[k + 1] - start
        length = float(along @ along)
        inner = path[keep[-1] + 1 : k + 1] - start
        if length < 1e-12 or np.abs(inner - np.outer(inner @ along / length, along)).max() > 1e-3:
            keep.append(k)
    return path[[*keep, len(path) - 1]]


def check_gripper(goal: Goal, config: GripperConfig, limits: LimitsConfig) -> None:
    """Check a gripper's command of any of the known kinds."""
    if isinstance(goal, GripperCommand):
        low, high = sorted((config.opened, config.closed))
        _range("gripper position", goal.position, low, high)
        _range("gripper effort", goal.max_effort, 0.0, limits.effort)
    elif isinstance(goal, FrankaMove):
        _range("gripper width", goal.width, 0.0, config.width)
        _range("gripper speed", goal.speed, 1e-4, config.speed)
    elif isinstance(goal, FrankaGrasp):
        _range("gripper width", goal.width, 0.0, config.width)
        _range("gripper speed", goal.speed, 1e-4, config.speed)
        _range("gripper force", goal.force, 0.0, limits.effort)
        _range("gripper tolerance", goal.inner, 0.0, config.width)
        _range("gripper tolerance", goal.outer, 0.0, config.width)
    else:
        raise Refusal("gripper", f"{type(goal).__name__} is no command for a gripper")


def _range(what: str, value: float, low: float, high: float) -> None:
    if not np.isfinite(value):
        raise Refusal("not finite", f"{what} {value}")
    if not low <= value <= high:
        raise Refusal("gripper limit", f"{what} {value:g} is outside {low:g} to {high:g}")


def _show(values: np.ndarray) -> str:
    return "(" + ", ".join(f"{value:.3g}" for value in values) + ")"
