"""The block in the drawer: the named one, inside, let go."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from envs.mujoco.environment import MujocoEnvironment
from envs.mujoco.simulation import Simulation
from envs.mujoco.tasks.open_drawer import NAMES

# In the frame of an open drawer, metres.
INSIDE, BEFORE_IT, ABOVE_IT = (0.05, 0.06, -0.02), (0.0, 0.19, -0.02), (0.0, 0.06, 0.09)


def put(environment: MujocoEnvironment, drawer: int, place: tuple[float, float, float]) -> bool:
    """Open a drawer and put the block at a place in its frame; returns whether the task is solved then."""
    simulation = environment.simulation
    for i in range(3):
        simulation.data.joint(f"drawer{i}").qpos[:] = 0.19 * (i == drawer)
    mujoco.mj_forward(simulation.model, simulation.data)
    body = f"drawer{drawer}"
    simulation.data.joint("block").qpos[:3] = simulation.position(body) + simulation.rotation(body) @ place
    mujoco.mj_forward(simulation.model, simulation.data)
    return environment._task.success(simulation)


@pytest.fixture
def environment(make_environment) -> MujocoEnvironment:
    environment = make_environment("put_item_in_drawer")
    environment.reset(1, 0)
    return environment


def test_instructions(environment):
    for variation, name in enumerate(("bottom", "middle", "top")):
        start = environment.reset(0, variation)
        assert start.descriptions == [
            f"put item in {name} drawer",
            f"put the block away in the {name} drawer",
            f"open the {name} drawer and place the block inside of it",
            f"leave the block in the {name} drawer",
        ]


def test_candidates_are_the_handles_from_the_bottom(environment):
    candidates = environment.choices().candidates
    assert tuple(candidates) == NAMES
    heights = [position[2] for position in candidates.values()]
    assert heights == sorted(heights) and heights[0] < heights[2] - 0.2


@pytest.mark.parametrize("seed", range(6))
def test_the_block_stands_on_the_cabinet_and_stays_there(environment, seed):
    environment.reset(seed, 0)
    simulation = environment.simulation
    offset = simulation.rotation("cabinet").T @ (simulation.position("block") - simulation.position("cabinet"))
    assert np.abs(offset[:2]).max() < 0.1 and offset[2] == pytest.approx(0.479 + 0.02, abs=1e-3)
    before = simulation.position("block")
    simulation.step(1.0)
    np.testing.assert_allclose(simulation.position("block"), before, atol=1e-4)


def test_what_counts(environment):
    assert put(environment, 0, INSIDE)
    for place in (BEFORE_IT, ABOVE_IT):
        assert not put(environment, 0, place)
    for other in (1, 2):
        assert not put(environment, other, INSIDE)


def test_a_block_that_is_still_held_does_not_count(environment):
    environment.simulation.gripper_open = False
    assert not put(environment, 0, INSIDE)


def test_opening_the_drawer_is_not_enough(environment):
    outcomes = [environment.step(action) for action in environment.expert()]
    assert [outcome.success for outcome in outcomes] == [False] * 8 + [True]
    environment.simulation.step(1.0)
    assert environment._task.success(environment.simulation)
    assert environment.simulation.position("block")[2] == pytest.approx(_floor(environment.simulation) + 0.02, abs=2e-3)


def _floor(simulation: Simulation) -> float:
    """World height of the bottom drawer's floor, metres."""
    return float(simulation.position("drawer0")[2] - 0.047)


@pytest.mark.parametrize("unseen", ["smaller", "larger"])
def test_a_block_of_another_size_is_put_away_too(make_environment, unseen):
    environment = make_environment("put_item_in_drawer", unseen=unseen)
    environment.reset(11, 2)
    half = environment.simulation.model.geom("block").size[0]
    assert half == pytest.approx(0.016 if unseen == "smaller" else 0.026)
    for action in environment.expert():
        outcome = environment.step(action)
    assert outcome.success
