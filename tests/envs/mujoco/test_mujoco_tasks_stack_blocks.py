"""stack_blocks: numbering, colours, and what does and does not count as a tower."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import mujoco
import numpy as np
import pytest

from envs.colors import COLORS
from envs.mujoco.environment import MujocoEnvironment
from envs.mujoco.scene import TABLE_HEIGHT

HALF = 0.022


@pytest.fixture
def three(make_environment) -> MujocoEnvironment:
    """Three red blocks are to be stacked."""
    environment = make_environment("stack_blocks")
    environment.reset(4, 1)
    return environment


def _counts(environment: MujocoEnvironment, places: Mapping[str, tuple[float, float, float]]) -> bool:
    """Whether the task is solved with blocks at places: offset in x and y from the zone's centre (metres) and level."""
    simulation, zone = environment.simulation, environment._task.zone
    for block, (x, y, level) in places.items():
        height = TABLE_HEIGHT + (2 * level + 1) * HALF
        simulation.data.joint(block).qpos[:] = [zone[0] + x, zone[1] + y, height, 1, 0, 0, 0]
        simulation.data.joint(block).qvel[:] = 0
    mujoco.mj_forward(simulation.model, simulation.data)
    return environment._task.success(simulation)


def _tower(*blocks: str, x: float = 0.0, y: float = 0.0) -> dict[str, tuple[float, float, float]]:
    return {block: (x, y, level) for level, block in enumerate(blocks)}


@pytest.mark.parametrize(
    ("variation", "count", "color"), [(0, 2, "red"), (1, 3, "red"), (5, 4, "maroon"), (30, 2, "gray"), (59, 4, "white")]
)
def test_numbering_is_rlbenchs(make_environment, variation, count, color):
    start = make_environment("stack_blocks").reset(0, variation)
    assert start.descriptions == [
        f"stack {count} {color} blocks",
        f"place {count} of the {color} cubes on top of each other",
        f"pick up and set down {count} {color} blocks on top of each other",
        f"build a tall tower out of {count} {color} cubes",
        f"arrange {count} {color} blocks in a vertical stack on the table top",
        f"set {count} {color} cubes on top of each other",
    ]


def test_four_blocks_have_the_named_color_and_four_another(make_environment):
    environment = make_environment("stack_blocks")
    for variation in range(0, 60, 7):
        environment.reset(variation, variation)
        model = environment.simulation.model
        colors = np.array([[model.geom(f"block{color}{k}").rgba[:3] for k in range(4)] for color in range(2)])
        named = list(COLORS.values())[variation // 3]
        np.testing.assert_allclose(colors[0], [named] * 4, atol=1e-6)
        assert np.abs(colors[1] - colors[1, 0]).max() == 0 and np.abs(colors[1, 0] - named).max() > 0.2


def test_things_stand_apart_and_within_reach(make_environment):
    environment = make_environment("stack_blocks")
    for seed in range(10):
        environment.reset(seed, 0)
        simulation = environment.simulation
        blocks = np.array([simulation.position(f"block{c}{k}") for c in range(2) for k in range(4)])
        gaps = np.linalg.norm(blocks[:, None] - blocks[None], axis=-1) + np.eye(8)
        assert gaps.min() > 0.098
        assert np.linalg.norm(blocks[:, :2] - environment._task.zone, axis=1).min() > 0.14
        np.testing.assert_allclose(blocks[:, 2], TABLE_HEIGHT + HALF, atol=1e-3)


def test_any_three_of_the_right_color_count(three):
    assert not three._task.success(three.simulation)
    assert _counts(three, _tower("block03", "block01", "block02"))


def test_a_slightly_crooked_tower_counts(three):
    assert _counts(three, {"block00": (0.02, 0.0, 0), "block01": (0.03, 0.01, 1), "block02": (0.02, -0.005, 2)})


@pytest.mark.parametrize(
    "places",
    [
        _tower("block00", "block01"),
        _tower("block00", "block01", "block02", "block03"),
        _tower("block00", "block01", "block02", x=0.06),
        _tower("block10", "block11", "block12"),
        _tower("block00", "block01", "block12"),
        _tower("block10", "block00", "block01", "block02"),
        _tower("block00", "block01", "block02") | {"block10": (0.048, 0.0, 0)},
        {"block00": (-0.023, 0.0, 0), "block01": (0.023, 0.0, 0), "block02": (0.0, 0.0, 1)},
        {"block00": (0.0, 0.0, 0), "block01": (0.0, 0.0, 1), "block02": (0.0, 0.0, 2.3)},
        {"block00": (-0.015, 0.0, 0), "block01": (0.0, 0.0, 1), "block02": (0.024, 0.0, 2)},
    ],
    ids=[
        "one too few",
        "one too many",
        "beside the zone",
        "other color",
        "one of the other color",
        "on one of the other color",
        "one of the other color beside it",
        "side by side",
        "in the air",
        "hanging over",
    ],
)
def test_what_does_not_count(three, places):
    assert not _counts(three, places)


def test_a_falling_or_tilted_block_does_not_count(three):
    assert _counts(three, _tower("block00", "block01", "block02"))
    three.simulation.data.joint("block02").qvel[0] = 0.3
    assert not three._task.success(three.simulation)
    assert _counts(three, _tower("block00", "block01", "block02"))
    three.simulation.data.joint("block02").qpos[3:] = [np.cos(0.15), np.sin(0.15), 0, 0]
    mujoco.mj_forward(three.simulation.model, three.simulation.data)
    assert not three._task.success(three.simulation)


def test_a_held_block_does_not_count(make_environment):
    environment = make_environment("stack_blocks")
    environment.reset(9, 0)
    actions = []
    for action in environment.expert():
        actions.append(action)
        if len(actions) < 11:
            assert not environment.step(action).success
    last = actions[-1]
    assert not environment.step(replace(last, gripper_open=False)).success
    assert environment.simulation.held_body() is not None
    assert environment.step(last).success


@pytest.mark.parametrize("size", ["smaller", "larger"])
def test_other_sizes_and_new_positions_can_be_solved(make_environment, size):
    environment = make_environment("stack_blocks", unseen=(size, "new_position"))
    environment.reset(7, 5)
    assert abs(environment._task.zone[1]) > 0.18
    assert [environment.step(action).success for action in environment.expert()][-1]
