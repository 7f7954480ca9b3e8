"""A compiled scene and its state: stepping, and reading robot and objects by name."""

from __future__ import annotations

from collections.abc import Callable

import mujoco
import numpy as np

from envs.mujoco import panda
from envs.mujoco.scene import TIME_STEP


class Simulation:
    """One scene in motion.

    Attributes:
        model, data: MuJoCo's own.
        watchers: called with the simulation after every step (2 ms), e.g. to log presses of buttons.
        gripper_open: the state last commanded.
    """

    def __init__(self, spec: mujoco.MjSpec) -> None:
        self.model = spec.compile()
        self.data = mujoco.MjData(self.model)
        self.watchers: list[Callable[[Simulation], None]] = []
        self.gripper_open = True
        model = self.model
        self.arm_positions = np.array([model.joint(name).qposadr[0] for name in panda.ARM_JOINTS])
        self.arm_velocities = np.array([model.joint(name).dofadr[0] for name in panda.ARM_JOINTS])
        self.arm_servos = np.array([model.actuator(name).id for name in panda.ARM_JOINTS])
        self.finger_positions = np.array([model.joint(name).qposadr[0] for name in panda.FINGER_JOINTS])
        self.finger_servo = model.actuator("fingers").id
        self.tool = model.site("tool").id
        self.joint_low, self.joint_high = model.jnt_range[[model.joint(name).id for name in panda.ARM_JOINTS]].T
        self.data.qpos[self.arm_positions] = panda.START
        self.data.ctrl[self.arm_servos] = panda.START
        self.data.qpos[self.finger_positions] = panda.FINGER_OPEN
        self.data.ctrl[self.finger_servo] = panda.FINGER_OPEN
        mujoco.mj_forward(model, self.data)

    def step(self, seconds: float = TIME_STEP) -> None:
        """Let time pass, at least one step."""
        for _ in range(max(1, round(seconds / TIME_STEP))):
            mujoco.mj_step(self.model, self.data)
            for watch in self.watchers:
                watch(self)

    @property
    def joints(self) -> np.ndarray:
        """[7] the arm's joint positions, radians."""
        return self.data.qpos[self.arm_positions]

    @property
    def joint_speeds(self) -> np.ndarray:
        """[7] the arm's joint velocities, radians per second."""
        return self.data.qvel[self.arm_velocities]

    def tool_pose(self) -> tuple[np.ndarray, np.ndarray]:
        """World position [3] and rotation [3, 3] of the tool centre point."""
        return self.data.site_xpos[self.tool].copy(), self.data.site_xmat[self.tool].reshape(3, 3).copy()

    def position(self, body: str) -> np.ndarray:
        """[3] world position of a body's frame."""
        return self.data.body(body).xpos.copy()

    def rotation(self, body: str) -> np.ndarray:
        """[3, 3] world rotation of a body."""
        return self.data.body(body).xmat.reshape(3, 3).copy()

    def site(self, name: str) -> np.ndarray:
        """[3] world position of a site."""
        return self.data.site(name).xpos.copy()

    def joint(self, name: str) -> float:
        """Position of a hinge (radians) or slide (metres)."""
        return float(self.data.joint(name).qpos[0])

    def held_body(self) -> int | None:
        """Id of the free body between the fingers: touched by both pads while the gripper is closed."""
        if self.gripper_open:
            return None
        # What is touched may be a part: what is held is the thing that it belongs to.
        left, right = ({int(self.model.body_rootid[body]) for body in bodies} for bodies in self.touched_by_pads())
        for body in sorted(left & right):
            joint = self.model.body_jntadr[body]
            if joint >= 0 and self.model.jnt_type[joint] == int(mujoco.mjtJoint.mjJNT_FREE):
                return body
        return None

    def touched_by_pads(self) -> tuple[set[int], set[int]]:
        """Ids of the bodies that the left and the right finger's pad touch."""
        model, data = self.model, self.data
        pairs = data.contact.geom[: data.ncon]
        touched = []
        for pad in panda.PADS:
            pad_id = model.geom(pad).id
            others = np.where(pairs[:, 0] == pad_id, pairs[:, 1], pairs[:, 0])[(pairs == pad_id).any(axis=1)]
            touched.append({int(model.geom_bodyid[other]) for other in others})
        return touched[0], touched[1]
