"""The adapter over RLBench's and PyRep's real Python, in both versions; only CoppeliaSim's C library is a double, which
plays the real recorded episodes. See `recorded_coppeliasim` for what it can show."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from rlbench_worlds import recorded_rlbench

from demos.collect import run
from demos.keyframes import find_keyframes
from demos.record import record_episode
from demos.store import episode_directory, open_episode, write_episode
from envs.interface import Action, Observation, RecordedScene, Viewpoint
from envs.rlbench.environment import RLBenchEnvironment
from envs.rlbench.observing import to_observation
from envs.rlbench.session import CAMERAS
from envs.rollout import rollout
from envs.seeds import random_state
from manifield.configuration import compose
from manifield.errors import InputError
from perception.cameras import look_at

NUMBERS = (
    "joint_positions",
    "joint_velocities",
    "joint_forces",
    "gripper_pose",
    "gripper_joint_positions",
    "gripper_touch_forces",
    "task_low_dim_state",
)


@pytest.fixture(scope="module", params=["peract", "current"])
def coppelia(request: pytest.FixtureRequest, real_data: Path, tmp_path_factory) -> Iterator:
    with recorded_rlbench(request.param, real_data, tmp_path_factory.mktemp("coppeliasim")) as world:
        world.version = request.param
        yield world


@pytest.fixture(scope="module")
def environment(coppelia) -> Iterator[RLBenchEnvironment]:
    """With every picture that there is, which takes its time."""
    with RLBenchEnvironment("open_drawer", CAMERAS, with_masks=True) as environment:
        yield environment


@pytest.fixture(scope="module")
def blind(coppelia) -> Iterator[RLBenchEnvironment]:
    with RLBenchEnvironment("open_drawer", ()) as environment:
        yield environment


@pytest.fixture(autouse=True)
def nothing_barred(coppelia) -> None:
    coppelia.blocked = coppelia.pathless = False


def keyframe_actions(episode, flags: np.ndarray) -> list[Action]:
    keyframes = find_keyframes(episode.joint_velocities, episode.gripper_open)
    return [
        Action(
            episode.gripper_pose[frame, :3],
            episode.gripper_pose[frame, 3:],
            bool(episode.gripper_open[frame]),
            bool(flags[frame - 1]),
        )
        for frame in keyframes
    ]


def assert_is_recorded(seen: Observation, recorded: Observation, what: str) -> None:
    """Every number and every pixel of an observation is that of a recorded frame, as our reader reads it."""
    for name in NUMBERS:
        np.testing.assert_allclose(getattr(seen, name), getattr(recorded, name), atol=1e-6, err_msg=f"{what} {name}")
    assert seen.gripper_open == recorded.gripper_open, what
    for camera in CAMERAS:
        ours, theirs = seen.cameras[camera], recorded.cameras[camera]
        np.testing.assert_array_equal(ours.rgb, theirs.rgb, err_msg=f"{what} {camera}")
        np.testing.assert_array_equal(ours.mask, theirs.mask, err_msg=f"{what} {camera}")
        np.testing.assert_allclose(ours.depth, theirs.depth, atol=1e-6, err_msg=f"{what} {camera}")
        np.testing.assert_allclose(ours.intrinsics, theirs.intrinsics, rtol=1e-6)
        np.testing.assert_allclose(ours.T_world_camera, theirs.T_world_camera, atol=1e-6)
        assert (ours.near, ours.far) == pytest.approx((theirs.near, theirs.far))


@pytest.mark.parametrize("variation", [0, 1, 2])
def test_reset_and_observe(environment: RLBenchEnvironment, coppelia, variation: int) -> None:
    assert environment.variation_count() == 3
    start = environment.reset(5, variation)
    episode = coppelia.recording.episode
    assert episode.variation == start.variation == variation
    if coppelia.version == "peract":
        assert start.descriptions == episode.descriptions
    else:  # the current RLBench leaves out an article
        assert [text.replace("open ", "open the ", 1) for text in start.descriptions[:1]] == episode.descriptions[:1]
    assert_is_recorded(start.observation, episode.observation(0), "start")
    assert not environment._success()[0]


@pytest.mark.parametrize("variation", [0, 1, 2])
def test_demonstration_is_the_recorded_episode(blind: RLBenchEnvironment, coppelia, variation: int) -> None:
    blind.reset(5, variation)
    frames: list[Observation] = []
    outcome = blind.demonstrate(frames.append)
    episode = coppelia.recording.episode
    assert outcome.success and outcome.failure is None
    assert len(frames) == len(episode) + 1  # the double's last step moves nothing
    frames.pop()
    for index, frame in enumerate(frames):
        recorded = episode.low_dim(index)
        for name in NUMBERS:
            np.testing.assert_allclose(
                getattr(frame, name), getattr(recorded, name), atol=2e-6, err_msg=f"{index} {name}"
            )
        assert frame.gripper_open == recorded.gripper_open
        # PerAct's branch leaves in the first frame what the demonstration before had at its end.
        assert frame.ignore_collisions == (recorded.ignore_collisions if index else False), index
    keyframes = find_keyframes(
        np.array([frame.joint_velocities for frame in frames]), np.array([frame.gripper_open for frame in frames])
    )
    assert keyframes == find_keyframes(episode.joint_velocities, episode.gripper_open)


@pytest.mark.parametrize("variation", [0, 1, 2])
def test_demonstrated_keyframes_solve_the_task(blind: RLBenchEnvironment, coppelia, variation: int) -> None:
    start = blind.reset(5, variation)
    episode = coppelia.recording.episode
    actions = keyframe_actions(episode, episode.ignore_collisions)
    assert [action.ignore_collisions for action in actions] == [False, False, True]
    frames = [start.observation]
    played = rollout(blind, start, lambda _, number: actions[number], len(actions), frames.append)
    assert played.success and played.failure is None and len(played.actions) == 3
    assert sum(not frame.gripper_open for frame in frames) > 10
    last = blind.observe()
    assert last.gripper_open == 0.0 and last.ignore_collisions
    drawer = {0: 14, 1: 36, 2: 44}[variation]
    assert last.task_low_dim_state[drawer] > 0.15  # metres, RLBench's condition


def test_a_reached_way_point_is_no_success(blind: RLBenchEnvironment, coppelia) -> None:
    start = blind.reset(5, 1)
    episode = coppelia.recording.episode
    actions = keyframe_actions(episode, episode.ignore_collisions)
    played = rollout(blind, start, lambda _, number: actions[number], 1)
    assert not played.success and played.failure is None


def test_actions_that_cannot_be_carried_out(blind: RLBenchEnvironment, coppelia) -> None:
    blind.reset(5, 0)
    episode = coppelia.recording.episode
    free = keyframe_actions(episode, episode.ignore_collisions)[0]
    before = blind.observe()

    def fails(action: Action) -> str | None:
        failure = blind.step(action).failure
        if failure:
            np.testing.assert_array_equal(blind.observe().joint_positions, before.joint_positions)
        return failure

    assert fails(Action(np.array([0.6, -0.4, 1.6]), free.quaternion, True, True)) == "unreachable"
    assert fails(Action(np.array([0.6, -0.4, 1.6]), free.quaternion, True, False)) == "unreachable"
    assert fails(Action(np.array([0.3, 0.0, 0.3]), free.quaternion, True, True)) == "invalid"
    assert fails(Action(np.full(3, np.nan), free.quaternion, True, True)) == "invalid"
    coppelia.pathless = True
    assert fails(free) == "no path"
    coppelia.pathless, coppelia.blocked = False, True
    assert fails(free) is None, "without a free path both versions ignore collisions"


def test_without_fallback(coppelia) -> None:
    if coppelia.version == "peract":
        with pytest.raises(InputError, match="env.fallback=false"):
            RLBenchEnvironment("open_drawer", fallback=False)
        return
    with RLBenchEnvironment("open_drawer", ("front",), fallback=False) as environment:
        environment.reset(5, 0)
        episode = coppelia.recording.episode
        free = keyframe_actions(episode, episode.ignore_collisions)[0]
        coppelia.blocked = True
        assert environment.step(free).failure == "in collision"
        far = Action(np.array([0.6, -0.4, 1.6]), free.quaternion, True, False)
        assert environment.step(far).failure == "unreachable"
        coppelia.blocked, coppelia.pathless = False, True
        assert environment.step(free).failure == "no path"
        coppelia.pathless = False
        assert environment.step(free).failure is None


def test_cameras_that_are_not_asked_for_are_not_drawn(coppelia) -> None:
    with RLBenchEnvironment("open_drawer", ("front",)) as environment:
        environment.reset(0, 0)
        coppelia.drawn = 0
        observation = environment.observe()
        assert tuple(observation.cameras) == ("front",) and coppelia.drawn == 2  # colour and depth
        assert observation.cameras["front"].mask is None


def test_recording_steps_through_the_same_scene_as_reset(blind: RLBenchEnvironment, coppelia) -> None:
    """What `collect` writes, RLBench's own random state restores."""
    recording, rejected = record_episode(blind, seed=0, index=0, attempts=1)
    assert recording is not None and not rejected
    placed = coppelia._placed
    blind.reset(123, 0)
    assert coppelia._placed != placed
    blind.reset_to(RecordedScene(random_state(recording.facts["seed"]), recording.variation))
    assert coppelia._placed == placed


def test_collect_and_go_back(coppelia, tmp_path: Path) -> None:
    """`manifield collect env=rlbench`: RLBench's files and GNFactor's views, and the way back to the scene."""
    words = [
        "env=rlbench",
        "tasks=[open_drawer]",
        "episodes=1",
        "workers=1",
        "depth_bits=24",
        f"data={tmp_path}",
        "field_views.count=2",
        "field_views.image_size=48",
        "env.cameras=[front]",
    ]
    steps = coppelia.steps
    assert run(compose("collect", words)) == 0
    assert coppelia.steps > steps
    written = open_episode(tmp_path / "open_drawer/all_variations/episodes/episode0")
    source = coppelia.recordings[written.variation]
    facts = json.loads((written.path / "manifield.json").read_text())
    poses = [recording.episode.gripper_pose[-1] for recording in source]
    assert any(np.allclose(written.gripper_pose[-1], pose, atol=1e-6) for pose in poses)
    assert facts["keyframes"] == find_keyframes(written.joint_velocities, written.gripper_open)
    assert len(facts["keyframes"]) == 3 and written.field_frames == (0, *facts["keyframes"])
    assert written.ignore_collisions is not None
    for frame in written.field_frames:
        for view in written.field_views(frame):
            assert view.rgb.shape == (48, 48, 3) and view.intrinsics[0, 0] > 0 and view.rgb.std() > 1
    with RLBenchEnvironment("open_drawer", ("front",)) as environment:
        start = environment.reset_to(written.scene)
        np.testing.assert_array_equal(start.observation.task_low_dim_state, written.low_dim(0).task_low_dim_state)


def test_rlbench_reads_what_we_write(
    environment: RLBenchEnvironment, coppelia, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RLBench's own loader of stored demonstrations, on observations of the adapter."""
    from rlbench.utils import get_stored_demos

    start = environment.reset(5, 1)
    actions = keyframe_actions(coppelia.recording.episode, coppelia.recording.episode.ignore_collisions)
    frames = [start.observation, *(environment.step(action).observation for action in actions)]
    written = write_episode(episode_directory(tmp_path, "open_drawer", 0), frames, start.descriptions, 1)
    number = -1
    if coppelia.version == "current":  # which knows no folder for all variations
        number = 1
        (tmp_path / "open_drawer" / "variation1").symlink_to(written.parents[1])
    config = environment._session.scene._obs_config
    for camera in CAMERAS:  # with numpy 2 it cannot load masks: 256 * uint8
        monkeypatch.setattr(getattr(config, f"{camera}_camera"), "mask", False)
    (demo,) = get_stored_demos(1, False, str(tmp_path), number, "open_drawer", config, random_selection=False)
    assert len(demo) == len(frames) == 4
    for stored, ours in zip(demo, frames, strict=True):
        theirs = to_observation(stored, CAMERAS, False)
        for name in NUMBERS:
            np.testing.assert_array_equal(getattr(theirs, name), getattr(ours, name), err_msg=name)
        for camera in CAMERAS:
            np.testing.assert_array_equal(theirs.cameras[camera].rgb, ours.cameras[camera].rgb)
            np.testing.assert_allclose(theirs.cameras[camera].depth, ours.cameras[camera].depth, atol=1e-6)
            np.testing.assert_allclose(theirs.cameras[camera].T_world_camera, ours.cameras[camera].T_world_camera)
    demo.restore_state()  # a state that numpy takes


def test_we_read_what_the_current_rlbench_writes(environment: RLBenchEnvironment, coppelia, tmp_path: Path) -> None:
    """Its pickles name more than PerAct's: the variation, tries to place the task, joint poses and actions."""
    if coppelia.version != "current":
        pytest.skip("the recorded episodes are PerAct's branch's own")
    from rlbench.dataset_generator import save_demo

    environment.reset(5, 2)
    scene = environment._session.scene
    configs = [getattr(scene._obs_config, f"{camera}_camera") for camera in CAMERAS]
    for config in configs:
        config.depth_in_meters = config.masks_as_one_channel = False
    try:
        demo = scene.get_demo()
    finally:
        for config in configs:
            config.depth_in_meters = config.masks_as_one_channel = True
    demo.random_seed = random_state(5)
    folder = tmp_path / "open_drawer" / "variation2" / "episodes" / "episode0"
    save_demo(demo, str(folder))
    read = open_episode(folder)
    assert (read.task, read.variation, len(read)) == ("open_drawer", 2, len(demo))
    assert read.cameras == tuple(sorted(CAMERAS)) and read.ignore_collisions is None
    assert read.scene.attempts == demo.num_reset_attempts == 1
    assert read.scene.random_state[2:] == random_state(5)[2:]
    source = coppelia.recording.episode
    assert_is_recorded(read.observation(0), source.observation(0), "first frame")
    assert (
        find_keyframes(read.joint_velocities, read.gripper_open)[0]
        == find_keyframes(source.joint_velocities, source.gripper_open)[0]
    )


def test_published_episodes_tell_their_scenes(blind: RLBenchEnvironment, real_data: Path) -> None:
    episode = open_episode(real_data / "rlbench/open_drawer/all_variations/episodes/episode1")
    start = blind.reset_to(episode.scene)
    assert start.variation == episode.variation == 1


def test_field_views_are_drawn_without_physics(environment: RLBenchEnvironment, coppelia) -> None:
    environment.reset(5, 0)
    steps = coppelia.steps
    viewpoint = Viewpoint(look_at(np.array([1.2, 0.4, 1.5]), np.array([0.2, 0.0, 1.0])), np.radians(50), 96)
    (view,) = environment.draw([viewpoint])
    assert coppelia.steps == steps
    np.testing.assert_allclose(view.T_world_camera, viewpoint.T_world_camera, atol=1e-6)
    assert view.intrinsics[0, 0] == pytest.approx(48 / np.tan(np.radians(25)), rel=1e-6)
    assert (view.near, view.far) == (0.01, 10.0)


def test_unknown_task(coppelia) -> None:
    with pytest.raises(InputError, match="unknown task of this RLBench 'open_drawers'.*open_drawer"):
        RLBenchEnvironment("open_drawers")


def test_every_task_has_a_class_and_a_number_of_variations(coppelia) -> None:
    import pkgutil

    import rlbench.tasks

    names = [module.name for module in pkgutil.iter_modules(rlbench.tasks.__path__)]
    counts = {name: RLBenchEnvironment(name).variation_count() for name in names}
    assert len(counts) > 100 and min(counts.values()) >= 1
    assert counts["open_drawer"] == 3 and counts["push_buttons"] == 50


def test_settings_of_the_config(coppelia) -> None:
    env = OmegaConf.to_container(compose("collect", ["env=rlbench"]).env)
    assert env["_target_"] == "envs.rlbench.environment.RLBenchEnvironment"
    assert set(env) == {"_target_", "cameras", "image_size", "with_masks", "renderer", "headless", "fallback"}
