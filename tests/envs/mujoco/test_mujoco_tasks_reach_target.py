"""The example task, and the page that leads through it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from envs.mujoco.scene import TABLE_HEIGHT
from envs.mujoco.tasks.base import facing_down, key_frame

ROOT = Path(__file__).parents[3]


def test_instruction_names_the_color_that_is_meant(make_environment):
    environment = make_environment("reach_target")
    assert environment.reset(0, 4).descriptions[0] == "reach the blue target"
    choices = environment.choices()
    assert choices.right == "blue" and len(choices.candidates) == 3


@pytest.mark.parametrize(("distance", "counts"), [(0.02, True), (0.03, False)])
def test_ball_is_reached_from_inside_only(make_environment, distance, counts):
    environment = make_environment("reach_target")
    environment.reset(1, 0)
    ball = environment.simulation.position("ball0")
    assert environment.step(key_frame(ball + [0, 0, distance], facing_down(), gripper_open=True)).success is counts


def test_other_balls_do_not_count(make_environment):
    environment = make_environment("reach_target")
    environment.reset(1, 0)
    for name in ("ball1", "ball2"):
        ball = environment.simulation.position(name)
        outcome = environment.step(key_frame(ball, facing_down(), gripper_open=True))
        assert outcome.failure is None and not outcome.success


def test_balls_are_apart_and_above_the_table(make_environment):
    environment = make_environment("reach_target")
    for seed in range(5):
        balls = environment.reset(seed, seed).observation.task_low_dim_state.reshape(3, 3)
        assert (balls[:, 2] > TABLE_HEIGHT + 0.1).all()
        gaps = np.linalg.norm(balls[:, None] - balls[None], axis=-1)[~np.eye(3, dtype=bool)]
        assert gaps.min() >= 0.2


def test_the_page_shows_the_file_and_these_tests():
    page = (ROOT / "docs/tasks.md").read_text()
    source = (ROOT / "envs/mujoco/tasks/reach_target.py").read_text()
    tests = Path(__file__).read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    of_file = [block for block in blocks if block in source]
    of_tests = [block for block in blocks if block not in of_file]
    assert of_tests and all(block in tests for block in of_tests)
    lines = [line for block in of_file for line in block.splitlines() if line]
    assert lines == [line for line in source.splitlines() if line]
    assert len(source.splitlines()) < 100
