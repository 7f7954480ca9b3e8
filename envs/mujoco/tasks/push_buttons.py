"""Push one, two or three of three buttons in the order in which the instruction names their colours."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, permutations

import mujoco
import numpy as np

from envs.colors import COLORS
from envs.interface import Action, Choices
from envs.mujoco.scene import TABLE_HEIGHT, box, cylinder, place_apart
from envs.mujoco.simulation import Simulation
from envs.mujoco.tasks.base import Task, facing_down, key_frame

# As in RLBench, without red and lime, which a plate has at rest and when it is pressed.
CHOICES = tuple((name, color) for name, color in COLORS.items() if name not in ("red", "lime"))
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
        named = list(next(islice(permutations(CHOICES, _BUTTONS), variation // 3, None)))
        wanted = 1 + variation % 3
        positions = place_apart(rng, _BUTTONS, (0.08, -0.3), (0.4, 0.3), 0.13)
        spare = [color for color in CHOICES if color not in named]
        # Buttons that are not named get other colours, or they would always be the next ones of the list.
        for i, k in zip(range(wanted, _BUTTONS), rng.permutation(len(spare)), strict=False):
            named[i] = spare[k]
        for i, (_, color) in enumerate(named):
            _add_button(spec, i, positions[i], color)
        self.wanted = list(range(wanted))
        self.names = [name for name, _ in named]
        self.descriptions = _descriptions(self.names[:wanted])
        self.presses: list[int] = []
        self._is_down = [False] * _BUTTONS

    def watch(self, simulation: Simulation) -> None:
        """Log presses in the order in which they happen; a pressed button's plate turns green and stays so."""
        for i in range(_BUTTONS):
            travel = simulation.joint(f"plate{i}")
            if travel > _RELEASED:
                self._is_down[i] = False
            elif travel < _PRESSED and not self._is_down[i]:
                self._is_down[i] = True
                if not self.presses or self.presses[-1] != i:
                    self.presses.append(i)
                simulation.model.geom(f"plate{i}").rgba[:3] = _GREEN

    def success(self, simulation: Simulation) -> bool:
        return self.presses == self.wanted

    def expert(self, simulation: Simulation) -> Iterator[Action]:
        down = facing_down()
        for i in self.wanted:
            top = _resting_top(simulation, i)
            yield key_frame(top + [0, 0, _ABOVE], down, gripper_open=False)
            yield key_frame(top + [0, 0, _INTO], down, gripper_open=False, ignore_collisions=True)

    def choices(self, simulation: Simulation) -> Choices:
        """The three buttons; right is the first one named."""
        above = {self.names[i]: _resting_top(simulation, i) + [0, 0, _ABOVE] for i in range(_BUTTONS)}
        return Choices(above, self.names[0])

    def low_dim_state(self, simulation: Simulation) -> np.ndarray:
        """[12] position and travel of each button."""
        parts = [[*_resting_top(simulation, i), simulation.joint(f"plate{i}")] for i in range(_BUTTONS)]
        return np.concatenate(parts).astype(np.float32)


def _add_button(spec: mujoco.MjSpec, i: int, position: np.ndarray, color: tuple[float, float, float]) -> None:
    base = spec.worldbody.add_body(name=f"button{i}", pos=[*position, TABLE_HEIGHT])
    box(base, _BLOCK_HALF, [0, 0, _BLOCK_HALF[2]], color)
    plate = base.add_body(name=f"plate{i}", pos=[0, 0, _PLATE_CENTRE])
    cylinder(plate, _PLATE_RADIUS, _PLATE_HALF, [0, 0, 0], _RED, name=f"plate{i}", mass=0.02)
    plate.add_joint(
        name=f"plate{i}",
        type=mujoco.mjtJoint.mjJNT_SLIDE,
        axis=[0, 0, 1],
        range=[-_TRAVEL, 0.0],
        limited=True,
        stiffness=150.0,
        damping=2.0,
    )
    spec.add_exclude(bodyname1=f"button{i}", bodyname2=f"plate{i}")


def _resting_top(simulation: Simulation, i: int) -> np.ndarray:
    """[3] centre of the top of button `i` when nothing presses it."""
    return simulation.position(f"button{i}") + [0, 0, _PLATE_TOP]


def _descriptions(names: list[str]) -> list[str]:
    first, rest = names[0], names[1:]
    return [
        f"push the {first} button" + "".join(f", then push the {name} button" for name in rest),
        f"press the {first} button" + "".join(f", then press the {name} button" for name in rest),
        f"push down the button with the {first} base" + "".join(f", then the {name} one" for name in rest),
    ]
