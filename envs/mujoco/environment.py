"""The embedded simulator as an `Environment`: one task, key-frame actions, recorded demonstrations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from scipy.spatial.transform import Rotation

from envs.interface import Action, CameraView, Choices, Environment, Observation, Outcome, Recorder, Start, Viewpoint
from envs.mujoco import control
from envs.mujoco.cameras import RLBENCH_CAMERAS, CameraMount
from envs.mujoco.planner import Plan, Planner
from envs.mujoco.rendering import Renderer
from envs.mujoco.scene import WORKSPACE, base_scene
from envs.mujoco.simulation import Simulation
from envs.mujoco.tasks import make_task
from envs.mujoco.unseen import Unseen
from manifield.errors import InputError, choose
from perception.cameras import intrinsics_from_fov

DEFAULT_CAMERAS = ("front", "left_shoulder", "right_shoulder", "wrist")
_CONTACT_SPEED = 0.5  # fraction of the full speed on straight lines that may touch things
_SETTLE_SECONDS = 0.3  # for things to come to rest after they were put down by `build`
_HALF_TURN = np.diag([-1.0, -1.0, 1.0])
_ANYWHERE = "anywhere"  # the camera that `draw` carries from viewpoint to viewpoint


class MujocoEnvironment(Environment):
    """A task of `envs.mujoco.tasks` in MuJoCo. Equal seeds and actions give bit-identical observations."""

    def __init__(
        self,
        task: str,
        cameras: Sequence[str] = DEFAULT_CAMERAS,
        image_size: int = 128,
        extra_cameras: Mapping[str, CameraMount] | None = None,
        with_masks: bool = False,
        unseen: Sequence[str] = (),
    ) -> None:
        """
        Args:
            task: file name in `envs/mujoco/tasks`.
            cameras: names that `observe` draws, of RLBench's five and of the extra ones.
            image_size: height and width of pictures, pixels.
            extra_cameras: more cameras by name; those not in `cameras` are drawn by `views` only.
            with_masks: also draw what every pixel shows (doubles the time of drawing).
            unseen: switches of `envs.mujoco.unseen.SETTINGS` that make every scene differ from the usual ones.
        """
        make_task(task)
        self.task = task
        self._unseen = Unseen(unseen, task)
        self.cameras = tuple(cameras)
        self._mounts = {**RLBENCH_CAMERAS, **(extra_cameras or {})}
        for name in self.cameras:
            choose(name, self._mounts, "camera")
        self._renderer = Renderer(image_size, with_masks)
        # By size of their pictures, for `draw`, which has no use for masks.
        self._drawers: dict[int, Renderer] = {} if with_masks else {image_size: self._renderer}
        self._simulation: Simulation | None = None

    def variation_count(self) -> int:
        return make_task(self.task).variation_count

    def reset(self, seed: int, variation: int) -> Start:
        self._task = make_task(self.task)
        if not 0 <= variation < self._task.variation_count:
            raise InputError(f"variation {variation}: {self.task} has 0 to {self._task.variation_count - 1}")
        self._scene_mounts = {
            **self._unseen.mounts(self._mounts, seed),
            _ANYWHERE: CameraMount(np.eye(4), 45.0, far=np.inf),
        }
        spec = base_scene(self._scene_mounts)
        self._unseen.set_up(self._task)
        self._task.build(np.random.default_rng(seed), variation, spec)
        self._unseen.change(spec, self._task, seed)
        self._simulation = Simulation(spec)
        self._simulation.step(_SETTLE_SECONDS)
        if self._task.watches:
            self._simulation.watchers.append(self._task.watch)
        self._planner = Planner(self._simulation)
        for renderer in dict.fromkeys([self._renderer, *self._drawers.values()]):
            renderer.load(self._simulation, self._scene_mounts)
        self._ignore_collisions = False
        return Start(self.observe(), list(self._task.descriptions), variation)

    def step(self, action: Action, record: Recorder | None = None) -> Outcome:
        simulation = self._running()
        if not _is_valid(action):
            return Outcome(self.observe(), self._task.success(simulation), "invalid")
        plan = self._plan(action)
        if plan.path is None:
            return Outcome(self.observe(), self._task.success(simulation), plan.failure)
        self._ignore_collisions = bool(action.ignore_collisions)
        frames: list[Observation] = []

        def take_frame() -> None:
            frames[:] = [self.observe()]
            record(frames[0])  # type: ignore[misc]  # only called when there is one

        hook = take_frame if record else None
        control.follow(simulation, plan.path, _CONTACT_SPEED if plan.is_straight else 1.0, hook)
        if bool(action.gripper_open) != simulation.gripper_open:
            control.set_gripper(simulation, bool(action.gripper_open), hook)
        # The last recorded frame shows the present state: drawing it again would be a waste.
        observation = frames[0] if frames else self.observe()
        return Outcome(observation, self._task.success(simulation))

    def observe(self) -> Observation:
        simulation = self._running()
        data = simulation.data
        position, rotation = simulation.tool_pose()
        return Observation(
            cameras=self.views(self.cameras),
            joint_positions=simulation.joints.copy(),
            joint_velocities=simulation.joint_speeds.copy(),
            gripper_pose=np.concatenate([position, Rotation.from_matrix(rotation).as_quat()]),
            gripper_open=float(simulation.gripper_open),
            gripper_joint_positions=data.qpos[simulation.finger_positions].clip(0.0, None),
            joint_forces=data.qfrc_actuator[simulation.arm_velocities].copy(),
            task_low_dim_state=self._task.low_dim_state(simulation),
            ignore_collisions=self._ignore_collisions,
        )

    def views(self, names: Sequence[str]) -> dict[str, CameraView]:
        """Pictures by the named cameras, of all that are in the scene, as it is now."""
        self._running()
        return {choose(name, self._mounts, "camera"): self._renderer.view(name) for name in names}

    def draw(self, viewpoints: Sequence[Viewpoint]) -> list[CameraView]:
        simulation = self._running()
        camera = simulation.model.camera(_ANYWHERE).id
        drawn = []
        for viewpoint in viewpoints:
            if viewpoint.size not in self._drawers:
                self._drawers[viewpoint.size] = Renderer(viewpoint.size)
                self._drawers[viewpoint.size].load(simulation, self._scene_mounts)
            simulation.model.cam_fovy[camera] = np.degrees(viewpoint.fov)
            # Its place is overwritten by the next simulation step, and nothing else depends on it.
            simulation.data.cam_xpos[camera] = viewpoint.T_world_camera[:3, 3]
            simulation.data.cam_xmat[camera] = (viewpoint.T_world_camera[:3, :3] * [1.0, -1.0, -1.0]).ravel()
            view = self._drawers[viewpoint.size].view(_ANYWHERE)
            drawn.append(
                replace(
                    view,
                    depth=np.minimum(view.depth, np.float32(viewpoint.far)),
                    intrinsics=intrinsics_from_fov(viewpoint.fov, viewpoint.size, viewpoint.size),
                    near=viewpoint.near,
                    far=viewpoint.far,
                )
            )
        return drawn

    def expert(self) -> Iterator[Action]:
        yield from self._task.expert(self._running())

    def choices(self) -> Choices:
        """What the instruction chooses among; ask right after `reset`."""
        return self._task.choices(self._running())

    def solved(self) -> bool:
        """Whether the task is solved now."""
        return self._task.success(self._running())

    @property
    def simulation(self) -> Simulation:
        """The scene of the present episode, with its privileged state."""
        return self._running()

    def close(self) -> None:
        for renderer in (self._renderer, *self._drawers.values()):
            renderer.close()
        self._simulation = None

    def _running(self) -> Simulation:
        if self._simulation is None:
            raise RuntimeError("reset the environment before using it")
        return self._simulation

    def _plan(self, action: Action) -> Plan:
        """A plan to the goal or to its half turn about the tool's z (the same grasp), the nearer one first.

        If neither works, the failure of the one that came further is told.
        """
        goal = Rotation.from_quat(action.quaternion).as_matrix()
        present = self._running().tool_pose()[1]
        turned = goal @ _HALF_TURN
        rotations = (goal, turned) if np.trace(present.T @ goal) >= np.trace(present.T @ turned) else (turned, goal)
        position = np.asarray(action.position, float)
        plans = []
        for rotation in rotations:
            find = self._planner.plan_contact if action.ignore_collisions else self._planner.plan_free
            plan = find(position, rotation)
            if plan.failure is None:
                return plan
            plans.append(plan)
        order = ("no path", "in collision", "unreachable")
        return min(plans, key=lambda plan: order.index(plan.failure))


def _is_valid(action: Action) -> bool:
    """Finite, inside the workspace, and with an orientation that means something."""
    position, quaternion = np.asarray(action.position, float), np.asarray(action.quaternion, float)
    if position.shape != (3,) or quaternion.shape != (4,):
        return False
    if not (np.isfinite(position).all() and np.isfinite(quaternion).all()):
        return False
    inside = ((position >= WORKSPACE[0]) & (position <= WORKSPACE[1])).all()
    return bool(inside and np.linalg.norm(quaternion) > 1e-6)
