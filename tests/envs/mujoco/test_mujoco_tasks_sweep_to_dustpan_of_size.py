"""Sweeping: two pans that change sides, and crumbs that are in the right one, all of them."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from envs.mujoco.tasks.sweep_to_dustpan_of_size import CRUMBS, SIZES


def put_crumbs(simulation, pan: str, places) -> None:
    """Put crumbs at positions in the frame of a pan (metres)."""
    for i, place in enumerate(places):
        joint = simulation.data.joint(f"crumb{i}")
        joint.qpos[:3] = simulation.position(pan) + simulation.rotation(pan) @ np.asarray(place, float)
        joint.qvel[:] = 0.0
    mujoco.mj_forward(simulation.model, simulation.data)


ROW = [[0.02 * i - 0.04, 0.0, 0.007] for i in range(CRUMBS)]


@pytest.mark.parametrize("variation", [0, 1])
def test_instructions(make_environment, variation):
    start = make_environment("sweep_to_dustpan_of_size").reset(0, variation)
    name, other = SIZES[variation], SIZES[1 - variation]
    assert start.descriptions[0] == f"sweep dirt to the {name} dustpan"
    assert all(name in text and other not in text for text in start.descriptions)


def test_tall_is_taller_and_nothing_else_differs(make_environment):
    environment = make_environment("sweep_to_dustpan_of_size")
    environment.reset(0, 0)
    model = environment.simulation.model
    tall, short = (model.geom_size[model.geom_bodyid == model.body(f"{size}_pan").id] for size in SIZES)
    assert tall[:, 2].max() > 2.5 * short[:, 2].max()
    np.testing.assert_array_equal(tall[:, :2], short[:, :2])


def test_pans_change_sides(make_environment):
    environment = make_environment("sweep_to_dustpan_of_size")
    sides = set()
    for seed in range(10):
        environment.reset(seed, 0)
        sides.add(environment.simulation.position("tall_pan")[1] > environment.simulation.position("short_pan")[1])
    assert sides == {True, False}


@pytest.mark.parametrize("variation", [0, 1])
def test_all_crumbs_in_the_right_pan_count(make_environment, variation):
    environment = make_environment("sweep_to_dustpan_of_size")
    environment.reset(1, variation)
    simulation, task = environment.simulation, environment._task
    assert not task.success(simulation)
    put_crumbs(simulation, f"{SIZES[1 - variation]}_pan", ROW)
    assert not task.success(simulation)
    put_crumbs(simulation, f"{SIZES[variation]}_pan", ROW)
    assert task.success(simulation)


@pytest.mark.parametrize(
    "astray", [[0.0, -0.065, 0.007], [0.0, 0.075, 0.007], [0.1, 0.0, 0.007], [-0.1, 0.0, 0.007], [0.0, 0.0, 0.095]]
)
def test_one_crumb_before_beside_behind_or_above_is_too_few(make_environment, astray):
    environment = make_environment("sweep_to_dustpan_of_size")
    environment.reset(1, 0)
    put_crumbs(environment.simulation, "tall_pan", [*ROW[:-1], astray])
    assert not environment._task.success(environment.simulation)
    assert sum(environment._task.swept(environment.simulation, i) for i in range(CRUMBS)) == CRUMBS - 1


def test_broom_stands_until_it_is_taken(make_environment):
    environment = make_environment("sweep_to_dustpan_of_size")
    for seed in range(5):
        environment.reset(seed, 0)
        before = environment.simulation.position("broom")
        environment.simulation.step(1.0)
        np.testing.assert_allclose(environment.simulation.position("broom"), before, atol=1e-3)
        assert environment.simulation.rotation("broom")[2, 2] > 0.999


def test_expert_sweeps_with_the_broom_in_hand(make_environment):
    environment = make_environment("sweep_to_dustpan_of_size")
    environment.reset(2, 1)
    outcomes = [environment.step(action) for action in environment.expert()]
    assert [outcome.success for outcome in outcomes] == [False] * 5 + [True]
    assert environment.simulation.model.body(environment.simulation.held_body()).name == "broom"
