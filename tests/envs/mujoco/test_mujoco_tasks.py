"""Every task: builds, describes, can be solved by its expert, and only by doing what was asked."""

from __future__ import annotations

import numpy as np
import pytest

from demos.keyframes import find_keyframes
from envs.interface import Observation
from envs.mujoco.scene import WORKSPACE
from envs.mujoco.tasks import TASKS, make_task
from envs.mujoco.tasks.base import Task, facing_down, half_turn_yaw, key_frame

VARIATIONS = {"open_drawer": 3, "push_buttons": 50, "slide_block_to_color_target": 4}


def test_known_tasks():
    assert set(VARIATIONS) <= set(TASKS)
    for name, count in VARIATIONS.items():
        assert make_task(name).variation_count == count


@pytest.mark.parametrize("name", TASKS)
def test_every_variation_builds_and_describes(make_environment, name):
    environment = make_environment(name)
    seen = set()
    for variation in range(environment.variation_count()):
        start = environment.reset(variation, variation)
        assert len(start.descriptions) >= 3 and len(set(start.descriptions)) == len(start.descriptions)
        seen.add(tuple(start.descriptions))
        assert np.isfinite(start.observation.task_low_dim_state).all()
        choices = environment.choices()
        assert choices.right in choices.candidates
        for position in choices.candidates.values():
            assert (position > WORKSPACE[0]).all() and (position < WORKSPACE[1]).all()
    assert len(seen) > 1


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("seed", [101, 202])
def test_expert_solves_it_and_its_key_frames_are_found(make_environment, name, seed):
    environment = make_environment(name)
    variation = seed % environment.variation_count()
    start = environment.reset(seed, variation)
    assert not environment.step(key_frame([0.25, 0.0, 1.3], facing_down(), gripper_open=True)).success
    start = environment.reset(seed, variation)
    choices = environment.choices()
    frames: list[Observation] = [start.observation]
    ends, actions = [], []
    for action in environment.expert():
        outcome = environment.step(action, frames.append)
        assert outcome.failure is None
        actions.append(action)
        ends.append(len(frames) - 1)
        assert choices.chosen(actions[0].position) == choices.right
    assert outcome.success
    keyframes = find_keyframes(
        np.stack([frame.joint_velocities for frame in frames]), np.array([frame.gripper_open for frame in frames])
    )
    assert len(keyframes) == len(actions)
    for keyframe, end, action in zip(keyframes, ends, actions, strict=True):
        assert end - 1 <= keyframe <= end  # the flip of the gripper comes one frame before the action's last
        assert frames[keyframe].gripper_open == float(action.gripper_open)
        assert frames[keyframe - 1].ignore_collisions == action.ignore_collisions  # what PerAct reads as the label
        if not action.ignore_collisions:
            np.testing.assert_allclose(frames[keyframe].gripper_pose[:3], action.position, atol=2e-3)


@pytest.mark.parametrize("name", TASKS)
def test_another_variations_expert_does_not_succeed(make_environment, name):
    environment = make_environment(name)
    environment.reset(7, 0)
    other = make_task(name)
    other.__dict__.update(environment._task.__dict__)
    _retarget(name, other)
    for action in other.expert(environment.simulation):
        outcome = environment.step(action)
        assert outcome.failure is None
    assert not outcome.success


def _retarget(name: str, task: Task) -> None:
    """Make the expert of `task` solve something else than what variation 0 asks for."""
    if name == "push_buttons":
        task.wanted = [1]
    else:
        task.target = 1


def test_drawer_instructions(make_environment):
    start = make_environment("open_drawer").reset(0, 1)
    assert start.descriptions == [
        "open the middle drawer",
        "grip the middle handle and pull the middle drawer open",
        "slide the middle drawer open",
    ]


def test_button_instructions_and_colors(make_environment):
    environment = make_environment("push_buttons")
    start = environment.reset(0, 2)
    assert start.descriptions == [
        "push the maroon button, then push the green button, then push the blue button",
        "press the maroon button, then press the green button, then press the blue button",
        "push down the button with the maroon base, then the green one, then the blue one",
    ]
    assert environment.reset(0, 3).descriptions[0] == "push the maroon button"
    names = list(environment.choices().candidates)
    assert names[0] == "maroon" and len(set(names)) == 3


def test_buttons_in_the_wrong_order_fail(make_environment):
    environment = make_environment("push_buttons")
    environment.reset(5, 1)  # two buttons
    task = environment._task
    right = list(task.wanted)
    task.wanted = right[::-1]
    actions = list(task.expert(environment.simulation))
    task.wanted = right
    outcomes = [environment.step(action) for action in actions]
    assert all(outcome.failure is None for outcome in outcomes)
    assert task.presses == [1, 0] and not outcomes[-1].success


def test_pressed_button_turns_green(make_environment):
    environment = make_environment("push_buttons")
    environment.reset(5, 0)
    for action in environment.expert():
        environment.step(action)
    color = environment.simulation.model.geom("plate0").rgba
    assert color[1] > 0.7 > 0.2 > color[0]


@pytest.mark.parametrize("yaw", np.linspace(-7, 7, 29))
def test_half_turn_yaw(yaw):
    folded = half_turn_yaw(yaw)
    assert -np.pi / 2 < folded <= np.pi / 2
    assert np.sin(folded - yaw) == pytest.approx(0.0, abs=1e-9)
