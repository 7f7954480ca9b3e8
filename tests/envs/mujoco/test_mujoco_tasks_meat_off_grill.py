"""Meat off the grill: the right piece, on the shelf, let go, and only that piece."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from envs.mujoco.environment import MujocoEnvironment
from envs.mujoco.simulation import Simulation

# Places in the grill's frame, metres above the table.
ON_SHELF, ON_TABLE, ON_OTHER_TABLE_SIDE = (0.0, -0.225, 0.195), (0.0, -0.4, 0.03), (0.0, 0.2, 0.03)


def put(simulation: Simulation, name: str, place: tuple[float, float, float]) -> None:
    """Let a piece of meat come to rest where it is put in the grill's frame."""
    joint = simulation.data.joint(name)
    joint.qpos[:3] = simulation.position("grill") + simulation.rotation("grill") @ place
    joint.qvel[:] = 0.0
    mujoco.mj_forward(simulation.model, simulation.data)
    simulation.step(0.5)


@pytest.fixture
def environment(make_environment) -> MujocoEnvironment:
    environment = make_environment("meat_off_grill")
    environment.reset(3, 0)
    return environment


def test_instructions(make_environment):
    environment = make_environment("meat_off_grill")
    assert environment.reset(0, 0).descriptions[0] == "take the chicken off the grill"
    descriptions = environment.reset(0, 1).descriptions
    assert descriptions[1] == "pick up the steak and place it next to the grill"
    assert all("steak" in text and "chicken" not in text for text in descriptions)
    assert environment.choices().right == "steak"


def test_what_counts(environment):
    simulation, success = environment.simulation, environment._task.success
    assert not success(simulation)
    for place in (ON_TABLE, ON_OTHER_TABLE_SIDE):
        put(simulation, "chicken", place)
        assert not success(simulation)
    put(simulation, "chicken", ON_SHELF)
    assert success(simulation)


def test_taking_the_other_piece_or_both_does_not_count(environment):
    simulation, success = environment.simulation, environment._task.success
    put(simulation, "steak", ON_SHELF)
    assert not success(simulation)
    put(simulation, "steak", ON_TABLE)
    put(simulation, "chicken", ON_SHELF)
    assert not success(simulation)


def test_meat_that_is_still_held_does_not_count(environment):
    *before, _ = environment.expert()
    for action in before:
        assert not environment.step(action).success
    put(environment.simulation, "chicken", ON_SHELF)
    assert not environment._task.success(environment.simulation)


@pytest.mark.parametrize(("unseen", "scale"), [("smaller", 0.8), ("larger", 1.2)])
def test_meat_of_another_size_is_taken_off_too(make_environment, environment, unseen, scale):
    other = make_environment("meat_off_grill", unseen=unseen)
    for variation in range(2):
        other.reset(11, variation)
        assert radius(other.simulation, "chicken") == pytest.approx(scale * radius(environment.simulation, "chicken"))
        for action in other.expert():
            outcome = other.step(action)
        assert outcome.success


def radius(simulation: Simulation, name: str) -> float:
    """Metres: of the sphere round the largest part of a body."""
    body = simulation.model.body(name)
    first = int(body.geomadr[0])
    return float(simulation.model.geom_rbound[first : first + int(body.geomnum[0])].max())


def test_either_piece_lies_on_either_side(make_environment):
    environment = make_environment("meat_off_grill")
    sides = set()
    for seed in range(8):
        environment.reset(seed, 0)
        simulation = environment.simulation
        offset = simulation.rotation("grill").T @ (simulation.position("chicken") - simulation.position("steak"))
        sides.add(np.sign(offset[1]))
    assert sides == {-1.0, 1.0}
