"""Open the bottom, middle or top drawer of a cabinet and put the block that stands on the cabinet into it."""

from __future__ import annotations

from collections.abc import Iterator

import mujoco
import numpy as np

from envs.interface import Action, Choices
from envs.mujoco.scene import ROBOT_BASE, TABLE_HEIGHT, free_cube, yaw_matrix
from envs.mujoco.simulation import Simulation
from envs.mujoco.tasks.base import Task, facing_down, half_turn_yaw, key_frame
from envs.mujoco.tasks.open_drawer import (
    CABINET_TOP,
    DRAWER_HIGH,
    DRAWER_LOW,
    NAMES,
    add_cabinet,
    before_handles,
    draw_cabinet_pose,
    grasp_rotation,
    pull_open,
)

# Metres.
_BLOCK_HALF = 0.02
_RETREAT = 0.04  # from a handle that was let go
_ABOVE, _LIFT = 0.08, 0.09  # over the block on the cabinet: before the grasp, after it
_REACH = 0.61  # of the tool from the robot's base, seen from above, when it lifts the block
_INTO = (0.0, 0.072)  # where the block is let go in the open drawer: x and y in the drawer's frame
_OVER, _DROP = 0.09, 0.02  # over the drawer's floor: of the block's underside before, and when it is let go
_BLOCK = (0.75, 0.12, 0.10)


class PutItemInDrawer(Task):
    """RLBench counts the block as soon as a sensor in the drawer sees it; here it must be let go as well."""

    variation_count = 3
    scales = (0.8, 1.3)
    recolorable = ("block", "cabinet", "drawer0", "drawer1", "drawer2")

    def build(self, rng: np.random.Generator, variation: int, spec: mujoco.MjSpec) -> None:
        position, yaw, place = _draw_places(rng)
        add_cabinet(spec, position, yaw)
        half = self.scale * _BLOCK_HALF
        stands = [*place, TABLE_HEIGHT + CABINET_TOP + half + 0.001]
        free_cube(spec, "block", stands, half, _BLOCK, yaw + rng.uniform(-np.pi / 6, np.pi / 6))
        self.target = variation
        name = NAMES[variation]
        self.descriptions = [
            f"put item in {name} drawer",
            f"put the block away in the {name} drawer",
            f"open the {name} drawer and place the block inside of it",
            f"leave the block in the {name} drawer",
        ]

    def success(self, simulation: Simulation) -> bool:
        block = _in_drawer(simulation, self.target)
        return bool(((DRAWER_LOW < block) & (block < DRAWER_HIGH)).all() and simulation.gripper_open)

    def expert(self, simulation: Simulation) -> Iterator[Action]:
        yield from pull_open(simulation, self.target, let_go=True)
        position, level = simulation.tool_pose()[0], grasp_rotation(simulation)
        yield key_frame(position - _RETREAT * level[:, 2], level, gripper_open=True, ignore_collisions=True)

        block, rotation = simulation.position("block"), _grasp_rotation(simulation)
        yield key_frame(block + [0, 0, _ABOVE], rotation, gripper_open=True)
        yield key_frame(block, rotation, gripper_open=False, ignore_collisions=True)
        yield key_frame(block + [0, 0, _LIFT], rotation, gripper_open=False, ignore_collisions=True)

        drawer, across = f"drawer{self.target}", facing_down(half_turn_yaw(_yaw(simulation, "cabinet") + np.pi / 2))
        half = self.scale * _BLOCK_HALF
        heights = (DRAWER_LOW[2] + half + _OVER, DRAWER_LOW[2] + half + _DROP)
        over, into = (
            simulation.position(drawer) + simulation.rotation(drawer) @ [*_INTO, height] for height in heights
        )
        yield key_frame(over, across, gripper_open=False)
        yield key_frame(into, across, gripper_open=True, ignore_collisions=True)

    def choices(self, simulation: Simulation) -> Choices:
        """The pre-grasps of the three handles."""
        return Choices(before_handles(simulation), NAMES[self.target])

    def low_dim_state(self, simulation: Simulation) -> np.ndarray:
        """[15] position of the block, and position of each handle and opening of each drawer."""
        parts = [[*simulation.site(f"handle{i}"), simulation.joint(f"drawer{i}")] for i in range(3)]
        return np.concatenate([simulation.position("block"), *parts]).astype(np.float32)


def _draw_places(rng: np.random.Generator) -> tuple[np.ndarray, float, np.ndarray]:
    """Position [2] and yaw of the cabinet and position [2] of the block on it (metres, radians), all in reach."""
    while True:
        position, yaw = draw_cabinet_pose(rng)
        place = position + yaw_matrix(yaw)[:2, :2] @ rng.uniform([-0.07, -0.02], [0.07, 0.05])
        if np.linalg.norm(place - ROBOT_BASE[:2]) < _REACH:
            return position, yaw, place


def _in_drawer(simulation: Simulation, drawer: int) -> np.ndarray:
    """[3] the block's position in a drawer's frame."""
    body = f"drawer{drawer}"
    return simulation.rotation(body).T @ (simulation.position("block") - simulation.position(body))


def _yaw(simulation: Simulation, name: str) -> float:
    x_axis = simulation.rotation(name)[:, 0]
    return float(np.arctan2(x_axis[1], x_axis[0]))


def _grasp_rotation(simulation: Simulation) -> np.ndarray:
    """[3, 3] the tool above the block, its fingers across two sides: those that face the cabinet's sides."""
    return facing_down(half_turn_yaw(_yaw(simulation, "block") + np.pi / 2))
