"""Plans: free where they say so, straight where asked for, and honest reasons where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from envs.mujoco import control
from envs.mujoco import planner as planner_module
from envs.mujoco.collision import CollisionChecker
from envs.mujoco.planner import Planner
from envs.mujoco.scene import CONTACT, GRIPPY, TABLE_HEIGHT, box, free_cube
from envs.mujoco.tasks.base import facing_down
from tests.benchmarks.planner_scenes import INFEASIBLE, TouchLog, feasible_problems, place

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


@pytest.mark.parametrize("name", INFEASIBLE)
def test_true_reasons_within_bounded_work(name, monkeypatch):
    monkeypatch.setattr(planner_module, "MAX_CHECKS", 500)
    make, reason = INFEASIBLE[name]
    simulation, problem = make(np.random.default_rng(0))
    place(simulation, problem.start)
    checked = []
    is_free = CollisionChecker.is_free
    monkeypatch.setattr(CollisionChecker, "is_free", lambda self, joints: checked.append(0) or is_free(self, joints))
    assert Planner(simulation).plan_free(problem.position, problem.rotation).failure == reason
    # For each margin: the search, the line that it was at when its checks were used up, and a line to every goal.
    assert len(checked) < len(planner_module.MARGINS) * (500 + 1500)


def test_known_ways_are_found_and_touch_nothing():
    simulation, problems = feasible_problems("wall", np.random.default_rng(0), 4)
    planner = Planner(simulation)
    for problem in problems:
        place(simulation, problem.start)
        plan = planner.plan_free(problem.position, problem.rotation)
        assert plan.failure is None
        log = TouchLog(simulation)
        control.follow(simulation, plan.path)
        simulation.watchers.clear()
        assert not log.touched
        np.testing.assert_allclose(simulation.tool_pose()[0], problem.position, atol=3e-3)


def test_thin_things_are_not_passed_through_between_checks(simulate):
    """A rod 4 mm thick: configurations on either side of it are free, the line between them is not."""

    def rod(spec):
        box(spec.worldbody, [0.002, 0.002, 0.4], [0.35, 0.0, TABLE_HEIGHT + 0.4], (0.5, 0.5, 0.5), name="rod")

    simulation = simulate(rod)
    planner = Planner(simulation)
    sides = [planner.kinematics.solve(np.array([0.35, y, 0.95]), DOWN, simulation.joints) for y in (0.25, -0.25)]
    checker = CollisionChecker(simulation)
    place(simulation, sides[0])
    for margin in planner_module.MARGINS:
        checker.prepare(margin)
        assert checker.is_free(sides[0]) and checker.is_free(sides[1])
        assert not checker.is_line_free(*sides)


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


def test_last_resort_of_a_contact_is_slow(simulate):
    """Neither a straight line of the tool nor a free way: a straight line of the joints, marked to be taken slowly."""
    simulation = simulate(wall)
    planner = Planner(simulation)
    inside = np.array([0.2, 0.0, TABLE_HEIGHT + 0.1])
    assert planner.plan_free(inside, DOWN).failure == "in collision"
    planner.plan_line = lambda *goal: planner_module.Plan(None, "unreachable")
    plan = planner.plan_contact(inside, DOWN)
    assert plan.is_straight and len(plan.path) == 2


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


def test_held_bar_is_not_dragged_through_a_wall(simulate):
    """The hand fits through a gap; a bar held across it does not, and is lifted over the wall."""

    def gap(spec):
        for name, y in (("left", 0.34), ("right", -0.34)):
            box(spec.worldbody, [0.01, 0.2, 0.12], [0.3, y, TABLE_HEIGHT + 0.12], (0.5, 0.5, 0.5), name=name)

    def add(spec):
        gap(spec)
        bar = spec.worldbody.add_body(name="bar", pos=[0.15, 0, TABLE_HEIGHT + 0.0101])
        bar.add_freejoint(name="bar")
        box(bar, [0.01, 0.01, 0.01], [0, 0, 0], (1, 0, 0), mass=0.02, friction=GRIPPY, **CONTACT)
        # The ends are a body of their own: all that hangs on the held one must move along.
        ends = bar.add_body(name="ends")
        box(ends, [0.01, 0.2, 0.008], [0, 0, 0], (1, 0, 0), name="ends", mass=0.02, friction=GRIPPY, **CONTACT)

    simulation = simulate(add)
    planner = Planner(simulation)
    across = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])  # fingers close along x
    grasp = np.array([0.15, 0.0, TABLE_HEIGHT + 0.012])
    behind = np.array([0.45, 0.0, TABLE_HEIGHT + 0.08])
    control.follow(simulation, planner.plan_contact(grasp, across).path)
    control.set_gripper(simulation, False)
    assert simulation.held_body() == simulation.model.body("bar").id
    control.follow(simulation, planner.plan_contact(grasp + [0, 0, 0.07], across).path)
    plan = planner.plan_free(behind, across)
    assert plan.failure is None
    empty = simulate(gap)
    place(empty, simulation.joints)
    assert len(Planner(empty).plan_free(behind, across).path) == 2  # without the bar: straight through
    assert len(plan.path) > 2
    log = TouchLog(simulation, held="bar")
    control.follow(simulation, plan.path)
    assert not log.touched
    assert simulation.position("bar")[0] == pytest.approx(0.45, abs=0.01)


def test_checker_leaves_the_simulation_alone(simulate):
    simulation = simulate()
    before = simulation.data.qpos.copy()
    margins = simulation.model.geom_margin.copy()
    checker = CollisionChecker(simulation)
    checker.prepare(0.01)
    checker.is_free(np.zeros(7))
    np.testing.assert_array_equal(simulation.data.qpos, before)
    np.testing.assert_array_equal(simulation.model.geom_margin, margins)
