"""Dragging with a stick: squares that do not give the answer away, and what a stick must have done."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from envs.colors import COLORS
from envs.mujoco.scene import TABLE_HEIGHT
from envs.mujoco.tasks.base import facing_down, key_frame
from envs.mujoco.tasks.reach_and_drag import ON_TARGET


def put_cube(simulation, position) -> None:
    """Put the cube somewhere at rest, without anything that pushes it there."""
    simulation.data.joint("cube").qpos[:2] = position[:2]
    simulation.data.joint("cube").qvel[:] = 0.0
    mujoco.mj_forward(simulation.model, simulation.data)


def square_colors(simulation) -> list[tuple[float, ...]]:
    """Colours of the flat boxes that lie on the table."""
    model = simulation.model
    flat = (model.geom_contype == 0) & np.isclose(model.geom_pos[:, 2], TABLE_HEIGHT + 0.0005)
    return [tuple(np.round(color[:3], 3).tolist()) for color in model.geom_rgba[flat]]


def test_instructions(make_environment):
    start = make_environment("reach_and_drag").reset(0, 1)
    assert start.descriptions[0] == "use the stick to drag the cube onto the maroon target"
    assert all("maroon" in text and ("cube" in text or "block" in text) for text in start.descriptions)


def test_four_colors_and_the_named_one_among_them(make_environment):
    environment = make_environment("reach_and_drag")
    others = set()
    for seed in range(4):
        environment.reset(seed, 4)
        colors = square_colors(environment.simulation)
        assert len(colors) == len(set(colors)) == 4
        assert colors[0] == COLORS["blue"]
        others.add(frozenset(colors[1:]))
    assert len(others) == 4  # the others are drawn, or they would tell which one is meant


def test_the_named_square_lies_on_any_side(make_environment):
    environment = make_environment("reach_and_drag")
    sides = set()
    for seed in range(12):
        environment.reset(seed, 0)
        offset = environment._task.squares[0] - environment.simulation.position("cube")
        sides.add(tuple(np.sign(offset[:2]).tolist()))
    assert len(sides) == 4


@pytest.mark.parametrize(("inside", "counts"), [(0.9, True), (1.1, False)])
def test_near_and_not_near_enough(make_environment, inside, counts):
    environment = make_environment("reach_and_drag")
    environment.reset(3, 0)
    simulation, task = environment.simulation, environment._task
    put_cube(simulation, task.squares[0] + [0.0, inside * ON_TARGET, 0.0])
    assert task.success(simulation) is counts


def test_another_square_does_not_count(make_environment):
    environment = make_environment("reach_and_drag")
    environment.reset(3, 0)
    for square in environment._task.squares[1:]:
        put_cube(environment.simulation, square)
        assert not environment._task.success(environment.simulation)


def test_pushing_with_the_hand_does_not_count(make_environment):
    environment = make_environment("reach_and_drag")
    environment.reset(3, 0)
    simulation, task = environment.simulation, environment._task
    cube = simulation.position("cube")
    down = facing_down(np.pi / 4)
    for action in (
        key_frame(cube + [0, 0, 0.15], down, gripper_open=False),
        key_frame(cube + [0, 0, 0.02], down, gripper_open=False, ignore_collisions=True),
    ):
        assert environment.step(action).failure is None
    assert task.was_touched
    put_cube(simulation, task.squares[0])
    assert not task.success(simulation)


def test_expert_touches_the_cube_with_nothing_but_the_stick(make_environment):
    environment = make_environment("reach_and_drag")
    environment.reset(5, 7)
    for action in environment.expert():
        outcome = environment.step(action)
        held = environment.simulation.held_body()
    assert outcome.success and not environment._task.was_touched
    assert environment.simulation.model.body(held).name == "stick"


@pytest.mark.parametrize("scale", [0.8, 1.25])
def test_other_sizes_can_be_dragged(make_environment, monkeypatch, scale):
    environment = make_environment("reach_and_drag")
    monkeypatch.setattr("envs.mujoco.tasks.base.Task.scale", scale)
    environment.reset(11, 0)
    assert environment.simulation.model.geom("cube").size[0] == pytest.approx(0.025 * scale)
    outcomes = [environment.step(action) for action in environment.expert()]
    assert outcomes[-1].success
