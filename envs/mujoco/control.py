"""Carrying motions out: servos follow a timed path, the gripper opens or squeezes, frames are recorded on the way.

Frames are recorded so that PerAct's key-frame rule finds the end of each action and nothing else: on the way only
while the arm is visibly moving, once after it has come to rest, and twice while the gripper moves.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from envs.mujoco import panda
from envs.mujoco.scene import TIME_STEP
from envs.mujoco.simulation import Simulation
from envs.mujoco.timing import time_path

RECORDING_RATE = 20.0  # frames per second of motion
GRIPPER_SECONDS = 0.4
# PerAct's rule takes an arm for stopped when every joint is slower than 0.1 rad/s.
_MOVING = 0.12
_SETTLE_SECONDS = 0.4
_AT_REST = 0.01  # rad/s
_FRAME_STEPS = round(1.0 / (RECORDING_RATE * TIME_STEP))

Hook = Callable[[], None]


def follow(simulation: Simulation, path: np.ndarray, speed: float = 1.0, record: Hook | None = None) -> None:
    """Move the arm along joint positions [N, 7] (radians) that begin where it stands, and let it come to rest."""
    targets = time_path(path, TIME_STEP, speed)
    if len(targets):
        # Velocity feed-forward cancels the lag of the damped position servos.
        velocities = np.gradient(np.concatenate([path[:1], targets]), TIME_STEP, axis=0)[1:]
        commands = targets + panda.SERVO_LAG * velocities
        commands[-1] = targets[-1]
        remaining = len(targets)
        for command in commands:
            simulation.data.ctrl[simulation.arm_servos] = command
            simulation.step()
            remaining -= 1
            # Frames are counted back from the end, so that the last but one is a whole frame before it and still fast.
            if record and remaining and remaining % _FRAME_STEPS == 0 and _fastest(simulation) > _MOVING:
                record()
    _settle(simulation)
    if record:
        record()


def set_gripper(simulation: Simulation, is_open: bool, record: Hook | None = None) -> None:
    """Open the gripper, or close it on whatever is between the fingers."""
    simulation.gripper_open = is_open
    simulation.data.ctrl[simulation.finger_servo] = panda.FINGER_OPEN if is_open else panda.FINGER_SQUEEZE
    for _ in range(2):
        simulation.step(GRIPPER_SECONDS / 2)
        if record:
            record()


def _settle(simulation: Simulation) -> None:
    for _ in range(round(_SETTLE_SECONDS / (10 * TIME_STEP))):
        simulation.step(10 * TIME_STEP)
        if _fastest(simulation) < _AT_REST:
            return


def _fastest(simulation: Simulation) -> float:
    return float(np.abs(simulation.joint_speeds).max())
