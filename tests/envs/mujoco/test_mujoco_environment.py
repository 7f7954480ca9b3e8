"""The environment keeps the contract of `envs.interface`."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from envs.interface import Action, Observation
from envs.mujoco.cameras import CameraMount
from envs.mujoco.environment import DEFAULT_CAMERAS, MujocoEnvironment
from envs.mujoco.tasks.base import facing_down, key_frame
from manifield.errors import InputError

ABOVE = key_frame(np.array([0.3, 0.1, 1.0]), facing_down(), gripper_open=True)


def digest(observation: Observation) -> str:
    sha = hashlib.sha256()
    for name in sorted(observation.cameras):
        sha.update(observation.cameras[name].rgb.tobytes() + observation.cameras[name].depth.tobytes())
    for value in (observation.joint_positions, observation.joint_velocities, observation.gripper_pose):
        sha.update(value.tobytes())
    sha.update(observation.task_low_dim_state.tobytes())
    return sha.hexdigest()


def episode_digest() -> str:
    """Everything that an expert's episode showed, in one number."""
    environment = MujocoEnvironment("slide_block_to_color_target", ("front", "wrist"), image_size=32)
    frames = [environment.reset(11, 2).observation]
    for action in environment.expert():
        assert environment.step(action, frames.append).failure is None
    environment.close()
    return hashlib.sha256("".join(digest(frame) for frame in frames).encode()).hexdigest()


def test_observation(make_environment):
    environment = make_environment(cameras=DEFAULT_CAMERAS, image_size=48)
    start = environment.reset(0, 0)
    observation = start.observation
    assert tuple(observation.cameras) == environment.cameras == DEFAULT_CAMERAS
    for view in observation.cameras.values():
        assert view.rgb.shape == (48, 48, 3) and view.depth.shape == (48, 48) and view.mask is None
        assert view.depth.dtype == np.float32
    assert observation.joint_positions.shape == observation.joint_velocities.shape == (7,)
    assert observation.joint_forces.shape == (7,) and observation.gripper_touch_forces.shape == (6,)
    assert observation.gripper_open == 1.0 and observation.ignore_collisions is False
    np.testing.assert_allclose(observation.gripper_joint_positions, [0.04, 0.04], atol=1e-4)
    position, rotation = environment.simulation.tool_pose()
    np.testing.assert_allclose(observation.gripper_pose[:3], position)
    np.testing.assert_allclose(Rotation.from_quat(observation.gripper_pose[3:]).as_matrix(), rotation, atol=1e-9)
    assert start.descriptions and start.variation == 0


def test_reaches_the_pose_and_sets_the_gripper(make_environment):
    environment = make_environment()
    environment.reset(0, 0)
    outcome = environment.step(replace(ABOVE, gripper_open=False))
    assert outcome.failure is None and not outcome.success
    np.testing.assert_allclose(outcome.observation.gripper_pose[:3], ABOVE.position, atol=1e-3)
    reached = Rotation.from_quat(outcome.observation.gripper_pose[3:])
    assert (reached * Rotation.from_quat(ABOVE.quaternion).inv()).magnitude() < 5e-3
    assert outcome.observation.gripper_open == 0.0
    assert outcome.observation.gripper_joint_positions.max() < 1e-3
    assert np.abs(outcome.observation.joint_velocities).max() < 0.1
    assert environment.step(ABOVE).observation.gripper_joint_positions.min() > 0.039


def test_takes_the_half_turn_that_is_nearer(make_environment):
    environment = make_environment()
    environment.reset(0, 0)
    turned = key_frame(ABOVE.position, facing_down(np.pi), gripper_open=True)
    outcome = environment.step(turned)
    reached = Rotation.from_quat(outcome.observation.gripper_pose[3:])
    assert outcome.failure is None
    assert (reached * Rotation.from_quat(ABOVE.quaternion).inv()).magnitude() < 5e-3


@pytest.mark.parametrize(
    "action",
    [
        replace(ABOVE, position=np.array([np.nan, 0.0, 1.0])),
        replace(ABOVE, position=np.array([0.3, 0.0, 1.7])),
        replace(ABOVE, position=np.array([0.3, 0.0])),
        replace(ABOVE, quaternion=np.array([0.0, np.inf, 0.0, 0.0])),
        replace(ABOVE, quaternion=np.zeros(4)),
    ],
)
def test_invalid_actions_move_nothing(make_environment, action: Action):
    environment = make_environment()
    before = environment.reset(0, 0).observation
    recorded: list[Observation] = []
    outcome = environment.step(action, recorded.append)
    assert outcome.failure == "invalid" and not outcome.success and not recorded
    np.testing.assert_array_equal(outcome.observation.joint_positions, before.joint_positions)


@pytest.mark.parametrize(
    ("position", "reason"), [((0.3, 0.0, 0.7), "in collision"), ((0.6, 0.45, 1.59), "unreachable")]
)
def test_failed_plans_move_nothing(make_environment, position, reason: str):
    environment = make_environment()
    before = environment.reset(0, 0).observation
    outcome = environment.step(key_frame([*position], facing_down(), gripper_open=True))
    assert outcome.failure == reason
    np.testing.assert_array_equal(outcome.observation.joint_positions, before.joint_positions)


def test_contact_with_the_table_neither_breaks_nor_passes_it(make_environment):
    environment = make_environment("open_drawer")
    environment.reset(0, 0)
    low = key_frame(np.array([0.3, 0.3, 0.70]), facing_down(), gripper_open=True, ignore_collisions=True)
    outcome = environment.step(low)
    assert outcome.failure is None
    assert outcome.observation.gripper_pose[2] > 0.752
    assert environment.step(ABOVE).failure is None


def test_recording(make_environment):
    environment = make_environment()
    environment.reset(0, 0)
    frames: list[Observation] = []
    outcome = environment.step(replace(ABOVE, gripper_open=False), frames.append)
    assert outcome.observation is frames[-1]
    flips = [i for i in range(1, len(frames)) if frames[i].gripper_open != frames[i - 1].gripper_open]
    assert flips == [len(frames) - 2]  # two frames of the gripper's motion, the command known at once
    arrived = frames[flips[0]]
    np.testing.assert_allclose(arrived.gripper_pose[:3], ABOVE.position, atol=2e-3)
    moving = [np.abs(frame.joint_velocities).max() > 0.1 for frame in frames]
    assert all(moving[: flips[0] - 1]) and not any(moving[flips[0] - 1 :])
    frames.clear()
    environment.step(key_frame(ABOVE.position + [0, 0, 0.05], facing_down(), False, True), frames.append)
    assert frames and all(frame.ignore_collisions for frame in frames)


def test_same_seed_same_bits():
    """In this process, and in a fresh one that has drawn other numbers before."""
    here = episode_digest()
    code = (
        "import numpy; numpy.random.seed(5); numpy.random.rand(3);"
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r});"
        "import test_mujoco_environment; print(test_mujoco_environment.episode_digest())"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    there = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert there.stdout.strip() == here, there.stderr


def test_other_seed_other_scene_but_variations_share_it(make_environment):
    environment = make_environment("open_drawer")
    states = [environment.reset(*args).observation.task_low_dim_state for args in ((0, 0), (1, 0), (0, 2))]
    assert (states[0] != states[1]).any()
    np.testing.assert_allclose(states[0], states[2], atol=1e-6)


def test_global_random_state_is_untouched(make_environment):
    before = np.random.get_state()[1].copy()
    environment = make_environment()
    environment.reset(3, 1)
    environment.step(ABOVE)
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_extra_cameras(make_environment):
    extra = {"side": CameraMount.looking_at(np.array([0.2, 1.2, 1.4]), np.array([0.2, 0.0, 0.8]), fov=50)}
    environment = make_environment(cameras=("front",), image_size=32, extra_cameras=extra)
    assert tuple(environment.reset(0, 0).observation.cameras) == ("front",)
    view = environment.views(["side"])["side"]
    np.testing.assert_allclose(view.T_world_camera, extra["side"].T_body_camera, atol=1e-6)


def test_wrong_names(make_environment):
    with pytest.raises(InputError, match="unknown task 'open_draw'.*open_drawer"):
        make_environment("open_draw")
    with pytest.raises(InputError, match="unknown camera 'fornt'.*front"):
        make_environment(cameras=("fornt",))
    with pytest.raises(InputError, match="variation 50"):
        make_environment().reset(0, 50)


def test_close_is_harmless_twice_and_environments_do_not_disturb_each_other(make_environment):
    first = make_environment(cameras=("front",), image_size=32)
    second = make_environment(cameras=("front",), image_size=64)
    seen = first.reset(0, 0).observation
    second.reset(1, 1)
    assert digest(first.observe()) == digest(seen)
    second.close()
    second.close()
    assert digest(first.observe()) == digest(seen)
    with pytest.raises(RuntimeError, match="reset"):
        second.observe()


def test_graphics_library_that_does_not_load_is_an_input_error(tmp_path):
    """MuJoCo loads it while it is imported; the message says what to install."""
    (tmp_path / "OpenGL").mkdir()
    (tmp_path / "OpenGL" / "__init__.py").write_text("raise AttributeError('eglQueryString')")
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{root}", "MUJOCO_GL": "egl"}
    code = "import envs.mujoco.rendering as r; r.Renderer(8)._make_current()"
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert "InputError: no OpenGL" in result.stderr and "libegl1" in result.stderr


def test_graphics_driver_that_refuses_is_an_input_error(make_environment, monkeypatch):
    import mujoco.egl

    def refuse(*_):
        raise RuntimeError("no device")

    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.setattr(mujoco.egl, "GLContext", refuse)
    with pytest.raises(InputError, match="no device.*libegl1"):
        make_environment().reset(0, 0)
