"""Push a block onto the coloured square that the instruction names."""

from __future__ import annotations

from collections.abc import Iterator

import mujoco
import numpy as np

from envs.interface import Action, Choices
from envs.mujoco.scene import NO_CONTACT, SLIPPERY, TABLE_HEIGHT, box, free_cube, yaw_matrix, yaw_quaternion
from envs.mujoco.simulation import Simulation
from envs.mujoco.tasks.base import Task, facing_down, half_turn_yaw, key_frame

# In this order counter-clockwise round the block, as in RLBench, where the colours keep their sides.
TARGETS = (
    ("green", (0.0, 0.6, 0.0)),
    ("blue", (0.0, 0.0, 1.0)),
    ("pink", (1.0, 0.2, 0.75)),
    ("yellow", (1.0, 1.0, 0.0)),
)
ON_TARGET = 0.03  # metres between the centres of block and square, seen from above

# Metres.
_BLOCK_HALF, _SQUARE_HALF, _DISTANCE = 0.025, 0.04, 0.16
_FINGER_HALF = 0.0095  # of the closed fingers along the push
_GAP = 0.04  # between block and fingers before the push
_ABOVE, _HEIGHT = 0.10, 0.022  # of the tool: over its lower position, and over the table


class SlideBlockToColorTarget(Task):
    """RLBench counts a block of which any part lies in the target; here its centre must lie within 3 cm of the
    square's, which a push that is a centimetre off still reaches and a block merely nudged there does not."""

    variation_count = len(TARGETS)
    scales = (0.8, 1.25)
    recolorable = ("block",)

    def build(self, rng: np.random.Generator, variation: int, spec: mujoco.MjSpec) -> None:
        self._half = _BLOCK_HALF * self.scale
        centre = rng.uniform([0.12, -0.1], [0.24, 0.1])
        yaw = rng.uniform(-np.pi, np.pi)
        self.directions = [yaw_matrix(yaw + k * np.pi / 2)[:, 0] for k in range(len(TARGETS))]
        block = np.array([*centre, TABLE_HEIGHT + self._half])
        self.squares = [block + _DISTANCE * direction for direction in self.directions]
        for (_, color), square in zip(TARGETS, self.squares, strict=True):
            position = [*square[:2], TABLE_HEIGHT + 0.0005]
            box(
                spec.worldbody,
                [_SQUARE_HALF, _SQUARE_HALF, 0.0005],
                position,
                color,
                quat=yaw_quaternion(yaw),
                **NO_CONTACT,
            )
        free_cube(spec, "block", list(block), self._half, (0.85, 0.1, 0.1), yaw, mass=0.2, friction=SLIPPERY)
        self.target = variation
        name = TARGETS[variation][0]
        self.descriptions = [
            f"slide the block to {name} target",
            f"slide the block onto the {name} square",
            f"push the block until it is sitting on top of the {name} target",
            f"slide the block towards the {name} plane",
            f"cover the {name} target with the block by pushing the block in its direction",
        ]

    def success(self, simulation: Simulation) -> bool:
        offset = simulation.position("block") - self.squares[self.target]
        return bool(np.linalg.norm(offset[:2]) < ON_TARGET)

    def expert(self, simulation: Simulation) -> Iterator[Action]:
        direction = self.directions[self.target]
        rotation = facing_down(half_turn_yaw(float(np.arctan2(direction[1], direction[0]))))
        behind = self._behind(simulation, self.target)
        touching = self.squares[self.target] - (self._half + _FINGER_HALF) * direction
        yield key_frame(behind + [0, 0, _ABOVE], rotation, gripper_open=False)
        yield key_frame(behind, rotation, gripper_open=False, ignore_collisions=True)
        yield key_frame([*touching[:2], behind[2]], rotation, gripper_open=False, ignore_collisions=True)

    def choices(self, simulation: Simulation) -> Choices:
        """The positions above the block's four sides from which a push begins."""
        above = {TARGETS[k][0]: self._behind(simulation, k) + [0, 0, _ABOVE] for k in range(len(TARGETS))}
        return Choices(above, TARGETS[self.target][0])

    def low_dim_state(self, simulation: Simulation) -> np.ndarray:
        """[15] positions of the block and of the four squares."""
        return np.concatenate([simulation.position("block"), *self.squares]).astype(np.float32)

    def _behind(self, simulation: Simulation, target: int) -> np.ndarray:
        """[3] where the tool begins to push towards a target."""
        block = simulation.position("block")
        back = (self._half + _GAP + _FINGER_HALF) * self.directions[target]
        return np.array([*(block - back)[:2], TABLE_HEIGHT + _HEIGHT])
