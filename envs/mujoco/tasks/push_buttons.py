"""Push one, two or three of three buttons in the order in which the instruction names their colours."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations

import mujoco
import numpy as np

from envs.interface import Action
from envs.mujoco.scene import TABLE_HEIGHT, box, cylinder, place_apart
from envs.mujoco.simulation import Simulation
from envs.mujoco.tasks.base import Choices, Task, facing_down, key_frame

COLORS = (
    ("maroon", (0.5, 0.0, 0.0)),
    ("green", (0.0, 0.5, 0.0)),
    ("blue", (0.0, 0.0, 1.0)),
    ("navy", (0.0, 0.0, 0.5)),
    ("yellow", (1.0, 1.0, 0.0)),
    ("cyan", (0.0, 1.0, 1.0)),
    ("magenta", (1.0, 0.0, 1.0)),
    ("silver", (0.75, 0.75, 0.75)),
    ("gray", (0.5, 0.5, 0.5)),
    ("orange", (1.0, 0.5, 0.0)),
    ("olive", (0.5, 0.5, 0.0)),
    ("purple", (0.5, 0.0, 0.5)),
    ("teal", (0.0, 0.5, 0.5)),
    ("azure", (0.0, 0.5, 1.0)),
    ("violet", (0.5, 0.0, 1.0)),
    ("rose", (1.0, 0.0, 0.5)),
    ("black", (0.0, 0.0, 0.0)),
    ("white", (1.0, 1.0, 1.0)),
)
_BUTTONS = 3
_RED, _GREEN = (0.8, 0.05, 0.05), (0.1, 0.8, 0.1)

# Metres, above the table: a coloured block, and on it a plate that can be pushed down against a spring.
_BLOCK_HALF = (0.04, 0.04, 0.015)
_PLATE_RADIUS, _PLATE_HALF, _PLATE_CENTRE, _TRAVEL = 0.024, 0.010, 0.034, 0.012
_PLATE_TOP = _PLATE_CENTRE + _PLATE_HALF
_PRESSED, _RELEASED = -0.005, -0.002  # metres of travel: apart, so that a trembling plate is not pressed twice
_ABOVE, _INTO = 0.083, -0.009  # of the tool against the resting plate's top: RLBench's height, and a full press


class PushButtons(Task):
    """RLBench's task. Its rule accepts any further press; here a press out of order fails the episode, so that an agent
    cannot succeed by pressing everything. Pressing the same button twice in a row counts once."""

    variation_count = 50
    watches = True

    def build(self, rng: np.random.Generator, variation: int, spec: mujoco.MjSpec) -> None:
        named = list(next(p for i, p in enumerate(permutations(COLORS, _BUTTONS)) if i == variation // 3))
        self.wanted = 1 + variation % 3
        positions = place_apart(rng, _BUTTONS, (0.08, -0.3), (0.4, 0.3), 0.13)
        spare = [color for color in COLORS if color not in named]
        for i, k in enumerate(rng.permutation(len(spare))[: _BUTTONS - self.wanted]):
            named[self.wanted + i] = spare[k]
        self.names = [name for name, _ in named]
        for i, (_, color) in enumerate(named):
            self._add_button(spec, i, positions[i], color)
        self.descriptions = _descriptions(self.names[: self.wanted])
        self.presses: list[int] = []
        self._down = [False] * _BUTTONS

    def watch(self, simulation: Simulation) -> None:
        if not self.presses and not self._down_addresses:
            pass
