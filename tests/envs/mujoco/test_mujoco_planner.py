"""Plans: free where they say so, straight where asked for, and honest reasons where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from envs.mujoco import control
from envs.mujoco import planner as planner_module
from envs.mujoco.collision import CollisionChecker
from envs.mujoco.planner import Planner
from envs.mujoco.scene import TABLE_HEIGHT, box, free_cube
from envs.mujoco.tasks.base import facing_down

DOWN = facing_down()
LEFT, RIGHT = np.array([0.25, 0.3, 0.9]), np.array([0.25, -0.3, 0.9])


def wall(spec):
    box(spec.worldbody, [0.25, 0.01, 0.2], [0.3, 0.0, TABLE_HEIGHT + 0.2], (0.5, 0.5, 0.5), name="wall")


def test_path_ends_at_the_pose(simulate):
    simulation = simulate()
    planner = Planner(simulation)
    plan = planner.plan_free(LEFT, DOWN)
    assert plan.failure is None
    np.testing.assert_array_equal(plan.path[0], simulation.joints)
    position, rotation = planner.kinematics.forward(plan.path[-1])
    np.testing.assert_allclose(position, LEFT, atol=5e-4)
    np.testing.assert_allclose(rotation, DOWN, atol=5e-3)


def test_goes_round_a_wall_without_touching(simulate):
    simulation = simulate(wall)
    planner = Planner(simulation)
    control.follow(simulation, planner.plan_free(LEFT, DOWN).path)
    touched = []
    wall_id = simulation.model.geom("wall").id
    simulation.watchers.append(lambda s: touched.append((s.data.contact.geom[: s.data.ncon] == wall_id).any()))
    plan = planner.plan_free(RIGHT, DOWN)
    assert plan.failure is None and len(plan.path) > 2
    control.follow(simulation, plan.path)
    np.testing.assert_allclose(simulation.tool_pose()[0], RIGHT, atol=2e-3)
    assert not any(touched)


def test_same_scene_same_path(simulate):
    paths = []
    for _ in range(2):
        simulation = simulate(wall)
        planner = Planner(simulation)
        control.follow(simulation, planner.plan_free(LEFT, DOWN).path)
        paths.append(planner.plan_free(RIGHT, DOWN).path)
    np.testing.assert_array_equal(*paths)


@pytest.mark.parametrize(
    ("position", "reason"),
    [([1.2, 0.0, 1.0], "unreachable"), ([0.25, 0.0, TABLE_HEIGHT - 0.05], "in collision")],
)
def test_reasons(simulate, position, reason):
    assert Planner(simulate()).plan_free(np.array(position), DOWN).failure == reason


def test_no_path_is_told_when_the_search_is_used_up(simulate, monkeypatch):
    monkeypatch.setattr(planner_module, "MAX_CHECKS", 0)
    simulation = simulate(wall)
    planner = Planner(simulation)
    control.follow(simulation, planner.plan_free(LEFT, DOWN).path)
    assert planner.plan_free(RIGHT, DOWN).failure == "no path"


def test_line_is_straight_and_keeps_its_turn_even(simulate):
    simulation = simulate()
    planner = Planner(simulation)
    start, _ = simulation.tool_pose()
    goal = start + [0.05, 0.1, -0.25]
    plan = planner.plan_line(goal, DOWN)
    assert plan.is_straight
    direction = (goal - start) / np.linalg.norm(goal - start)
    for joints in plan.path:
        offset = planner.kinematics.forward(joints)[0] - start
        assert np.linalg.norm(offset - (offset @ direction) * direction) < 1e-3


def test_contact_goes_where_a_free_plan_may_not(simulate):
    simulation = simulate(lambda spec: free_cube(spec, "cube", [0.3, 0, TABLE_HEIGHT + 0.03], 0.03, (1, 0, 0)))
    planner = Planner(simulation)
    inside = np.array([0.3, 0.0, TABLE_HEIGHT + 0.04])
    control.set_gripper(simulation, False)
    assert planner.plan_free(inside, DOWN).failure == "in collision"
    assert planner.plan_contact(inside, DOWN).failure is None


def test_an_arm_in_contact_may_leave_but_not_press_deeper(simulate):
    simulation = simulate()
    planner = Planner(simulation)
    touching = np.array([0.3, 0.0, TABLE_HEIGHT + 0.0075])  # the finger tips reach 8.5 mm past the tool's centre
    control.follow(simulation, planner.plan_contact(touching, DOWN).path)
    assert planner.plan_free(touching + [0, 0, 0.15], DOWN).failure is None
    assert planner.plan_free(touching - [0, 0, 0.03], DOWN).failure == "in collision"


def test_held_thing_counts_as_part_of_the_hand(simulate):
    """A cube is picked up; held, it may not pass where the empty hand would."""

    def add(spec):
        free_cube(spec, "cube", [0.3, 0, TABLE_HEIGHT + 0.0251], 0.025, (1, 0, 0))

    simulation = simulate(add)
    planner = Planner(simulation)
    grasp = np.array([0.3, 0.0, TABLE_HEIGHT + 0.03])
    control.follow(simulation, planner.plan_contact(grasp, DOWN).path)
    control.set_gripper(simulation, False)
    assert simulation.held_body() == simulation.model.body("cube").id
    control.follow(simulation, planner.plan_contact(grasp + [0, 0, 0.2], DOWN).path)
    assert simulation.position("cube")[2] == pytest.approx(TABLE_HEIGHT + 0.225, abs=5e-3)
    low = np.array([0.2, 0.2, TABLE_HEIGHT + 0.02])  # the cube would be 1 cm deep in the table
    assert planner.plan_free(low, DOWN).failure == "in collision"
    control.set_gripper(simulation, True)
    assert simulation.held_body() is None
    assert planner.plan_free(low, DOWN).failure is None


def test_checker_leaves_the_simulation_alone(simulate):
    simulation = simulate()
    before = simulation.data.qpos.copy()
    margins = simulation.model.geom_margin.copy()
    checker = CollisionChecker(simulation)
    checker.prepare(0.01)
    checker.is_free(np.zeros(7))
    np.testing.assert_array_equal(simulation.data.qpos, before)
    np.testing.assert_array_equal(simulation.model.geom_margin, margins)
