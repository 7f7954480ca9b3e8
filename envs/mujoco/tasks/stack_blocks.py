"""Stack two, three or four blocks of the named colour on the green zone."""

from __future__ import annotations

from collections.abc import Iterator

import mujoco
import numpy as np

from envs.colors import COLORS
from envs.interface import Action, Choices
from envs.mujoco.scene import NO_CONTACT, ROBOT_BASE, TABLE_HEIGHT, box, free_cube
from envs.mujoco.simulation import Simulation
from envs.mujoco.tasks.base import Task, facing_down, key_frame

_OF_A_COLOR = 4
_GREEN = (0.25, 0.85, 0.3)

# Metres.
_HALF, _ZONE_HALF = 0.022, 0.05  # of a block's and the zone's edge
_APART, _FROM_ZONE = 0.1, 0.145  # between centres: open fingers fit between blocks, the hand beside a tower
_NEAREST, _REACH = 0.34, 0.68  # of a block from the robot's base
_ABOVE = 0.1  # of the tool over where it grasps and lets go
_DROP = 0.001  # above where the block comes to rest

# A block stands on another one if its centre is over it, and it is this near to its height, upright (cosine) and at
# rest (m/s, rad/s).
_LEVEL, _UPRIGHT, _SLOW = 0.006, np.cos(np.radians(8.0)), 0.05


class StackBlocks(Task):
    """RLBench's task. Its rule asks that at least as many blocks as named are somewhere over the zone. Here what is
    over the zone must be exactly the tower: as many blocks as named, all of the named colour, each standing on the one
    below and the lowest on the table, at rest and not held."""

    variation_count = 3 * len(COLORS)
    scales = (0.8, 1.2)
    has_new_position = True
    recolorable = ("zone",)

    def build(self, rng: np.random.Generator, variation: int, spec: mujoco.MjSpec) -> None:
        names = list(COLORS)
        i, self.count = variation // 3, 2 + variation % 3
        name = names[i]
        self.names = [name, names[(i + rng.integers(1, len(names))) % len(names)]]
        self.target = 0  # of the two colours
        self.zone, places = _draw_places(rng, self.scale, self.new_position)
        zone = spec.worldbody.add_body(name="zone", pos=[*self.zone, TABLE_HEIGHT + 0.0005])
        box(zone, [_ZONE_HALF, _ZONE_HALF, 0.0005], [0, 0, 0], _GREEN, **NO_CONTACT)
        self.half = half = _HALF * self.scale
        for k, place in enumerate(places):
            color, number = divmod(k, _OF_A_COLOR)
            position, yaw = [*place, TABLE_HEIGHT + half], rng.uniform(-np.pi / 4, np.pi / 4)
            free_cube(spec, f"block{color}{number}", position, half, COLORS[self.names[color]], yaw, mass=0.06)
        count = self.count
        self.descriptions = [
            f"stack {count} {name} blocks",
            f"place {count} of the {name} cubes on top of each other",
            f"pick up and set down {count} {name} blocks on top of each other",
            f"build a tall tower out of {count} {name} cubes",
            f"arrange {count} {name} blocks in a vertical stack on the table top",
            f"set {count} {name} cubes on top of each other",
        ]

    def success(self, simulation: Simulation) -> bool:
        tower = self._over_zone(simulation)
        if len(tower) != self.count or any(color != self.target for _, color in tower):
            return False
        below = np.array([*simulation.position(tower[0][0])[:2], TABLE_HEIGHT - self.half])
        for block, _ in tower:
            position = simulation.position(block)
            offset = position - below - [0, 0, 2 * self.half]
            is_upright = np.abs(simulation.rotation(block)[2]).max() > _UPRIGHT  # on whichever face
            is_slow = np.abs(simulation.data.joint(block).qvel).max() < _SLOW
            if not (is_upright and is_slow and abs(offset[2]) < _LEVEL and np.hypot(*offset[:2]) < self.half):
                return False
            below = position
        return simulation.held_body() is None

    def expert(self, simulation: Simulation) -> Iterator[Action]:
        above = np.array([0, 0, _ABOVE])
        straight = facing_down()
        for level in range(self.count):
            block = self._next_block(simulation, self.target)
            position = simulation.position(block)
            rotation = facing_down(_block_yaw(simulation, block))
            place = np.array([*self.zone, TABLE_HEIGHT + (2 * level + 1) * self.half + _DROP])
            yield key_frame(position + above, rotation, gripper_open=True)
            yield key_frame(position, rotation, gripper_open=False, ignore_collisions=True)
            yield key_frame(position + above, rotation, gripper_open=False, ignore_collisions=True)
            yield key_frame(place + above, straight, gripper_open=False)
            yield key_frame(place, straight, gripper_open=True, ignore_collisions=True)
            if level < self.count - 1:
                yield key_frame(place + above, straight, gripper_open=True, ignore_collisions=True)

    def choices(self, simulation: Simulation) -> Choices:
        """Of each colour the block that an expert would take first."""
        first = {
            self.names[color]: simulation.position(self._next_block(simulation, color)) + [0, 0, _ABOVE]
            for color in range(2)
        }
        return Choices(first, self.names[self.target])

    def low_dim_state(self, simulation: Simulation) -> np.ndarray:
        """[26] positions of the four blocks of the named colour, of the four others, and x and y of the zone."""
        positions = [simulation.position(f"block{k // _OF_A_COLOR}{k % _OF_A_COLOR}") for k in range(2 * _OF_A_COLOR)]
        return np.concatenate([*positions, self.zone]).astype(np.float32)

    def _next_block(self, simulation: Simulation, color: int) -> str:
        """The block of a colour that is nearest to the zone but not over it."""
        tower = [block for block, _ in self._over_zone(simulation)]
        rest = [block for block in (f"block{color}{k}" for k in range(_OF_A_COLOR)) if block not in tower]
        return min(rest, key=lambda block: float(np.linalg.norm(simulation.position(block)[:2] - self.zone)))

    def _over_zone(self, simulation: Simulation) -> list[tuple[str, int]]:
        """Name and colour of each block whose centre is over the zone, from the lowest to the highest."""
        blocks = [(f"block{color}{k}", color) for color in range(2) for k in range(_OF_A_COLOR)]
        is_over = [np.abs(simulation.position(block)[:2] - self.zone).max() < _ZONE_HALF for block, _ in blocks]
        found = [block for block, over in zip(blocks, is_over, strict=True) if over]
        return sorted(found, key=lambda block: float(simulation.position(block[0])[2]))


def _block_yaw(simulation: Simulation, block: str) -> float:
    """Yaw of a block in (-pi/4, pi/4]: its quarter turns look alike."""
    x, y = simulation.data.body(block).xmat[[0, 3]]
    return float(np.pi / 4 - (np.pi / 4 - np.arctan2(y, x)) % (np.pi / 2))


def _draw_places(rng: np.random.Generator, scale: float, is_new: bool) -> tuple[np.ndarray, np.ndarray]:
    """Position [2] (metres) of the zone and [8, 2] of the blocks, all in reach, in a part of the table that leaves room
    for other things. In new places the zone is further to the side than otherwise."""
    while True:  # start over rather than look for the last gap in a full arrangement
        middle = rng.uniform(0.19, 0.23) * rng.choice([-1.0, 1.0]) if is_new else rng.uniform(-0.13, 0.13)
        zone = np.array([rng.uniform(0.12, 0.26), middle + rng.uniform(-0.04, 0.04) * (not is_new)])
        places: list[np.ndarray] = []
        for place in rng.uniform([0.0, middle - 0.23], [0.4, middle + 0.23], size=(200, 2)):
            is_apart = all(np.linalg.norm(place - other) >= _APART * max(1.0, scale) for other in places)
            is_reachable = _NEAREST < np.linalg.norm(place - ROBOT_BASE[:2]) < _REACH and abs(place[1]) < 0.38
            if is_apart and is_reachable and np.linalg.norm(place - zone) >= _FROM_ZONE:
                places.append(place)
                if len(places) == 2 * _OF_A_COLOR:
                    return zone, np.stack(places)
