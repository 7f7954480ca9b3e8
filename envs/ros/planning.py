"""The planner's picture of a real scene: a model of the arm, the boxes that the config names, and what the cameras see.

Plans and checks with the simulator's planner (`envs.mujoco.planner`). The scene is rebuilt for every call, so that it
cannot be older than the observation that it comes from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from envs.interface import Observation
from envs.mujoco.collision import CollisionChecker
from envs.mujoco.panda import ROBOT_BODIES, panda_spec
from envs.mujoco.planner import Plan, Planner
from envs.mujoco.simulation import Simulation
from envs.ros.geometry import pose_matrix
from perception.cameras import back_project

VOXEL = 0.02  # metres: what the cameras see becomes cubes of this edge
_MOST_VOXELS = 1500  # more would make a plan take seconds; the nearest to the arm's way are what matters
_ROBOT_MARGIN = 0.035  # metres from the arm within which points are the arm itself
_HELD_REACH = 0.08  # metres around the tool within which, the gripper closed, points are what it holds
_LOWEST_POINT = 0.012  # metres above a box within which points are that box's surface
_HALF_TURN = np.diag([-1.0, -1.0, 1.0])


class PlanningScene:
    """The Panda and its surroundings. World poses are the policy's.

    Args:
        base_in_world: [7] pose of the robot's base. boxes: `centre` and `size` of each (metres, world), always there.
        contact_depth: metres by which a motion that may touch things may press into those boxes.
    """

    def __init__(
        self, base_in_world: Sequence[float], boxes: Sequence[Mapping[str, Any]], contact_depth: float = 0.0
    ) -> None:
        # The model's base looks along x wherever it is put: plan in the frame of the base.
        self._T_base_world = np.linalg.inv(pose_matrix(base_in_world))
        self._boxes = [(np.asarray(box["centre"], float), np.asarray(box["size"], float) / 2) for box in boxes]
        self._contact_depth = contact_depth
        self._empty = self._simulation(np.zeros((0, 3)), 0.0)

    def tool_pose(self, joints: np.ndarray) -> np.ndarray:
        """[4, 4] world pose of the tool at joint positions [7], by the model."""
        self._set(self._empty, joints)
        position, rotation = self._empty.tool_pose()
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = rotation, position
        return np.linalg.inv(self._T_base_world) @ pose

    def cloud(self, observation: Observation) -> np.ndarray:
        """[N, 3] world centres of the cubes that the cameras see: no robot, nothing held, no surface of a known box."""
        points = [
            back_project(view.depth, view.intrinsics, view.T_world_camera)[view.depth < view.far - 1e-3]
            for view in observation.cameras.values()
        ]
        cloud = np.concatenate(points).astype(float) if points else np.zeros((0, 3))
        cloud = cloud[np.isfinite(cloud).all(axis=1)]
        local = cloud @ self._T_base_world[:3, :3].T + self._T_base_world[:3, 3]
        reachable = np.linalg.norm(local - [0.0, 0.0, 0.333], axis=1) < 1.2
        cloud = cloud[reachable]
        for centre, half in self._boxes:
            cloud = cloud[(np.abs(cloud - centre) > half + _LOWEST_POINT).any(axis=1)]
        cells, counts = np.unique(np.floor(cloud / VOXEL).astype(int), axis=0, return_counts=True)
        centres = (cells[counts >= 2] + 0.5) * VOXEL  # one point alone is a flying pixel at an edge
        self._set(self._empty, observation.joint_positions)
        local = centres @ self._T_base_world[:3, :3].T + self._T_base_world[:3, 3]
        keep = _distance_to_robot(self._empty, local) > _ROBOT_MARGIN
        tool = self._empty.tool_pose()[0]
        if observation.gripper_open < 0.5:
            keep &= np.linalg.norm(local - tool, axis=1) > _HELD_REACH
        centres, local = centres[keep], local[keep]
        if len(centres) > _MOST_VOXELS:
            nearest = np.argsort(np.linalg.norm(local - tool, axis=1))[:_MOST_VOXELS]
            centres = centres[nearest]
        return centres

    def plan(
        self, joints: np.ndarray, position: np.ndarray, quaternion: np.ndarray, may_touch: bool, cloud: np.ndarray
    ) -> Plan:
        """A joint path to a world pose or to its half turn about the tool's z (the same grasp), the nearer first."""
        simulation = self._simulation(
            np.zeros((0, 3)) if may_touch else cloud, self._contact_depth if may_touch else 0.0
        )
        self._set(simulation, joints)
        planner = Planner(simulation)
        base_position = self._T_base_world[:3, :3] @ position + self._T_base_world[:3, 3]
        goal = self._T_base_world[:3, :3] @ Rotation.from_quat(quaternion).as_matrix()
        present = simulation.tool_pose()[1]
        turned = goal @ _HALF_TURN
        rotations = (goal, turned) if np.trace(present.T @ goal) >= np.trace(present.T @ turned) else (turned, goal)
        plans = []
        for rotation in rotations:
            plan = (planner.plan_contact if may_touch else planner.plan_free)(base_position, rotation)
            if plan.failure is None:
                return plan
            plans.append(plan)
        order = ("no path", "in collision", "unreachable")
        return min(plans, key=lambda plan: order.index(plan.failure or ""))

    def collision(self, path: np.ndarray, may_touch: bool, cloud: np.ndarray) -> str | None:
        """Words about a collision of the arm with itself or the scene on a joint path [N, 7]; None if there is none."""
        simulation = self._simulation(
            np.zeros((0, 3)) if may_touch else cloud, self._contact_depth if may_touch else 0.0
        )
        self._set(simulation, path[0])
        checker = CollisionChecker(simulation)
        checker.prepare(0.0)
        for k in range(1, len(path)):
            if not checker.is_line_free(path[k - 1], path[k]):
                with_what = "itself or the boxes" if may_touch else "itself, the boxes or what the cameras see"
                return f"the arm would touch {with_what} at {k} of {len(path) - 1} stretches of its path"
        return None

    def _simulation(self, cloud: np.ndarray, sunk: float) -> Simulation:
        """The scene with cubes at `cloud` (world) and its boxes `sunk` metres deeper."""
        spec = panda_spec((0.0, 0.0, 0.0))
        rotation = Rotation.from_matrix(self._T_base_world[:3, :3])
        x, y, z, w = rotation.as_quat()
        turn = [w, x, y, z]
        solid = mujoco.mjtGeom.mjGEOM_BOX
        for centre, half in self._boxes:
            place = self._T_base_world[:3, :3] @ (centre - [0.0, 0.0, sunk]) + self._T_base_world[:3, 3]
            spec.worldbody.add_geom(type=solid, size=half, pos=place, quat=turn)
        for centre in cloud:
            place = self._T_base_world[:3, :3] @ centre + self._T_base_world[:3, 3]
            spec.worldbody.add_geom(type=solid, size=[VOXEL / 2] * 3, pos=place, quat=turn)
        return Simulation(spec)

    @staticmethod
    def _set(simulation: Simulation, joints: np.ndarray) -> None:
        simulation.data.qpos[simulation.arm_positions] = joints
        mujoco.mj_forward(simulation.model, simulation.data)


def _distance_to_robot(simulation: Simulation, points: np.ndarray) -> np.ndarray:
    """[N] metres from points to the nearest surface of the robot's shapes; inside is negative or zero."""
    model, data = simulation.model, simulation.data
    bodies = {model.body(name).id for name in ROBOT_BODIES}
    nearest = np.full(len(points), np.inf)
    kinds = mujoco.mjtGeom
    for geom in range(model.ngeom):
        if int(model.geom_bodyid[geom]) not in bodies:
            continue
        local = (points - data.geom_xpos[geom]) @ data.geom_xmat[geom].reshape(3, 3)
        size, kind = model.geom_size[geom], int(model.geom_type[geom])
        if kind == int(kinds.mjGEOM_SPHERE):
            distance = np.linalg.norm(local, axis=1) - size[0]
        elif kind == int(kinds.mjGEOM_CAPSULE):
            local[:, 2] -= np.clip(local[:, 2], -size[1], size[1])
            distance = np.linalg.norm(local, axis=1) - size[0]
        else:  # a box, or the box around a cylinder
            half = size if kind == int(kinds.mjGEOM_BOX) else np.array([size[0], size[0], size[1]])
            beyond = np.abs(local) - half
            distance = np.linalg.norm(beyond.clip(0.0), axis=1) + beyond.max(axis=1).clip(max=0.0)
        nearest = np.minimum(nearest, distance)
    return nearest
