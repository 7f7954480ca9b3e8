"""One suite for every world: what `envs.interface` promises, on each backend that is installed.

`pytest -rs tests/envs/test_conformance.py` says which backends were not there, and why.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf
from rlbench_worlds import fake_rlbench, recorded_rlbench
from scipy.spatial.transform import Rotation

from envs.interface import Action, Environment, NoExpert, Observation, Start, Viewpoint
from manifield.configuration import compose
from manifield.errors import InputError
from perception.cameras import back_project, look_at, project

DOWN = np.array([0.0, 1.0, 0.0, 0.0])  # gripper down
SIZE = 64


@dataclass
class Backend:
    """A world and what the suite must know of it.

    make: an environment of `task` with these cameras. goal: a reachable key-frame in the present scene. nowhere: one
    that cannot be reached, though inside the workspace (None: there is none). exact: metres and radians by which a goal
    may be missed. variation: one with scenes that differ by seed. size: of the pictures. simulated: scenes are
    functions of the seed, in RLBench's frame.
    """

    make: Callable[..., Environment]
    task: str
    cameras: tuple[str, ...]
    goal: Callable[[], Action]
    nowhere: Action | None
    exact: tuple[float, float] = (2e-3, 1e-2)
    variation: int = 1
    size: int = SIZE
    simulated: bool = True

    def says(self, failure: str | None, *words: str) -> bool:
        """Whether it is one of `Outcome`'s words; a real arm's safety layer gives its reason instead."""
        return failure in words if self.simulated else str(failure).startswith("refused: ")


def mujoco_backend(_: ExitStack, __: pytest.FixtureRequest) -> Backend:
    from envs.mujoco.environment import MujocoEnvironment

    def make(cameras: tuple[str, ...], task: str = "push_buttons") -> Environment:
        return MujocoEnvironment(task, cameras, image_size=SIZE)

    goal = Action(np.array([0.3, 0.1, 1.0]), DOWN, True, False)
    nowhere = replace(goal, position=np.array([0.6, 0.45, 1.59]))
    return Backend(make, "push_buttons", ("front", "left_shoulder", "overhead", "wrist"), lambda: goal, nowhere)


def rlbench_stand_in(peract: bool) -> Callable[[ExitStack, pytest.FixtureRequest], Backend]:
    def build(stack: ExitStack, _: pytest.FixtureRequest) -> Backend:
        from envs.rlbench.environment import RLBenchEnvironment

        stack.enter_context(fake_rlbench(peract))

        def make(cameras: tuple[str, ...], task: str = "touch_block") -> Environment:
            return RLBenchEnvironment(task, cameras, image_size=SIZE)

        goal = Action(np.array([0.3, 0.1, 1.0]), DOWN, True, False)
        nowhere = replace(goal, position=np.array([0.65, 0.45, 1.5]))
        return Backend(make, "touch_block", ("front", "left_shoulder", "overhead"), lambda: goal, nowhere)

    return build


def rlbench_recorded(version: str) -> Callable[[ExitStack, pytest.FixtureRequest], Backend]:
    def build(stack: ExitStack, request: pytest.FixtureRequest) -> Backend:
        from envs.rlbench.environment import RLBenchEnvironment

        data, folder = request.getfixturevalue("real_data"), request.getfixturevalue("tmp_path_factory")
        world = stack.enter_context(recorded_rlbench(version, data, folder.mktemp("coppeliasim")))

        def make(cameras: tuple[str, ...], task: str = "open_drawer") -> Environment:
            return RLBenchEnvironment(task, cameras)

        def goal() -> Action:
            pose = world.recording.tip[40]  # on the way to the drawer: the double knows no other places
            return Action(pose[:3], pose[3:], True, False)

        nowhere = Action(np.array([0.65, 0.45, 1.5]), DOWN, True, False)
        cameras = ("front", "left_shoulder", "overhead", "wrist")
        variation = max(world.recordings, key=lambda number: len(world.recordings[number]))
        return Backend(make, "open_drawer", cameras, goal, nowhere, variation=variation, size=128)

    return build


def rlbench_installed(_: ExitStack, __: pytest.FixtureRequest) -> Backend:
    from envs.rlbench.environment import RLBenchEnvironment
    from envs.rlbench.installation import checks

    wrong = [check for check in checks() if not check.ok]
    if wrong:
        pytest.skip(f"RLBench in CoppeliaSim is not installed: {wrong[0].name}: {wrong[0].remedy}")

    def make(cameras: tuple[str, ...], task: str = "open_drawer") -> Environment:
        return RLBenchEnvironment(task, cameras, image_size=SIZE)

    goal = Action(np.array([0.25, 0.0, 1.3]), DOWN, True, True)
    nowhere = replace(goal, position=np.array([0.65, 0.45, 1.5]))
    cameras = ("front", "left_shoulder", "overhead", "wrist")
    return Backend(make, "open_drawer", cameras, lambda: goal, nowhere, exact=(5e-3, 2e-2))


def ros_rehearsal(stack: ExitStack, _: pytest.FixtureRequest) -> Backend:
    """The rehearsal arm on a bus inside this process; over a real bus it is tested by `make ros-test`."""
    from envs.ros.arm import RosEnvironment
    from envs.ros.config import RosConfig
    from envs.ros.sim_arm import SimArm
    from tests.envs.ros.memory_bus import Bus, MemoryTransport

    cameras = ("front", "wrist")
    config: dict[str, Any] = OmegaConf.to_container(compose("sim-arm").env)  # type: ignore[assignment]
    config = {key: value for key, value in config.items() if key not in ("_target_", "cameras", "image_size")}
    config["rehearsal"] = True
    config["limits"]["confirm"] = False
    config["arm"]["speed"] = 1.0
    # How fresh is fresh is tested elsewhere; here a busy machine shall not stop the arm.
    config["sensing"] |= {"picture_age": 5.0, "joint_age": 5.0, "stamp_age": 5.0, "patience": 30.0}
    bus = Bus()
    robot = MemoryTransport(bus)
    robot.start()
    described = RosConfig.of({"cameras": list(cameras), "image_size": SIZE, **config})
    arm = SimArm(robot, described, "push_buttons", camera_rate=15.0)
    arm.start()
    life = threading.Thread(target=arm.spin, daemon=True)
    life.start()
    stack.callback(life.join, 10.0)
    stack.callback(arm.end)

    def make(cameras: tuple[str, ...], task: str = "push_buttons") -> Environment:
        return RosEnvironment(task, cameras, SIZE, transport_override=MemoryTransport(bus), **config)

    goal = Action(np.array([0.3, 0.1, 1.15]), DOWN, True, False)
    nowhere = replace(goal, position=np.array([0.6, 0.45, 1.55]))
    return Backend(make, "push_buttons", cameras, lambda: goal, nowhere, exact=(6e-3, 5e-2), simulated=False)


BACKENDS = {
    "mujoco": mujoco_backend,
    "rlbench-stand-in-peract": rlbench_stand_in(peract=True),
    "rlbench-stand-in-current": rlbench_stand_in(peract=False),
    "rlbench-recorded-peract": rlbench_recorded("peract"),
    "rlbench-recorded-current": rlbench_recorded("current"),
    "rlbench-coppeliasim": rlbench_installed,
    "ros-rehearsal": ros_rehearsal,
}
# In real time, so that a busy machine makes it slow and may make it fail: `make ros-test` runs it.
PARAMS = [pytest.param(name, marks=[pytest.mark.ros] if name.startswith("ros") else []) for name in BACKENDS]


@pytest.fixture(scope="module", params=PARAMS)
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    with ExitStack() as stack:
        yield BACKENDS[request.param](stack, request)


@pytest.fixture(scope="module")
def world(backend: Backend) -> Iterator[Environment]:
    with backend.make(backend.cameras) as environment:
        yield environment


def fresh(world: Environment, seed: int = 0, variation: int = 0) -> Start:
    return world.reset(seed, variation)


def same(one: Observation, two: Observation, exactly: bool = True) -> bool:
    if not exactly:  # a real arm trembles, and no two pictures of it are alike
        return bool(np.allclose(one.joint_positions, two.joint_positions, atol=5e-3))
    numbers = ("joint_positions", "gripper_pose", "gripper_joint_positions", "task_low_dim_state")
    return all(np.array_equal(getattr(one, name), getattr(two, name)) for name in numbers) and all(
        np.array_equal(one.cameras[name].rgb, two.cameras[name].rgb)
        and np.array_equal(one.cameras[name].depth, two.cameras[name].depth)
        for name in one.cameras
    )


# What is seen


def test_start(world: Environment, backend: Backend) -> None:
    start = fresh(world)
    assert world.task == backend.task and start.variation == 0
    assert start.descriptions and all(
        isinstance(text, str) and text.strip() == text != "" for text in start.descriptions
    )
    assert isinstance(world.variation_count(), int) and world.variation_count() > 0


def test_proprioception(world: Environment, backend: Backend) -> None:
    seen = fresh(world).observation
    for name in ("joint_positions", "joint_velocities", "joint_forces"):
        value = getattr(seen, name)
        assert value.shape == (7,) and value.dtype == np.float64 and np.isfinite(value).all(), name
    assert seen.gripper_pose.shape == (7,) and seen.gripper_touch_forces.shape == (6,)
    assert np.linalg.norm(seen.gripper_pose[3:]) == pytest.approx(1.0, abs=1e-5)
    assert seen.gripper_open in (0.0, 1.0) and isinstance(seen.gripper_open, float)
    assert seen.gripper_joint_positions.shape == (2,)
    assert (seen.gripper_joint_positions > -1e-3).all() and (seen.gripper_joint_positions < 0.041).all()  # metres
    assert seen.task_low_dim_state.ndim == 1
    assert seen.ignore_collisions in ((True, False) if backend.simulated else (True, False, None))


def test_pictures(world: Environment, backend: Backend) -> None:
    seen = fresh(world).observation
    assert tuple(seen.cameras) == world.cameras == backend.cameras
    for name, view in seen.cameras.items():
        assert view.rgb.shape == (backend.size, backend.size, 3) and view.rgb.dtype == np.uint8, name
        assert view.rgb.std() > 1, f"{name} is blank"
        assert view.depth.shape == view.rgb.shape[:2] and view.depth.dtype in (np.float32, np.float64), name
        assert np.isfinite(view.depth).all() and 0 < view.near < view.far
        assert view.depth.min() >= view.near - 1e-4 and view.depth.max() <= view.far + 1e-3  # metres
        assert view.mask is None


def test_calibration(world: Environment, backend: Backend) -> None:
    for name, view in fresh(world).observation.cameras.items():
        (fx, skew, cx), (zero, fy, cy), last = view.intrinsics
        assert fx > 0 and fy > 0 and skew == zero == 0 and last.tolist() == [0, 0, 1], name
        assert abs(cx - backend.size / 2) <= 0.51 and abs(cy - backend.size / 2) <= 0.51, name
        rotation = view.T_world_camera[:3, :3]
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-4)
        assert np.linalg.det(rotation) > 0 and view.T_world_camera[3].tolist() == [0, 0, 0, 1]


def test_camera_axes(world: Environment, backend: Backend) -> None:
    """x right, y down, z forward: fixed cameras look at the workspace and stand upright."""
    for name, view in fresh(world).observation.cameras.items():
        if name == "wrist":
            continue
        T = view.T_world_camera
        assert T[:3, 2] @ (np.array([0.2, 0.0, 0.9]) - T[:3, 3]) > 0, f"{name} looks away"
        assert T[2, 1] < 0, f"{name} is upside down"


def seen_through(source, target, margin: float) -> float:
    """The share of source's points that lie in front of what target sees there, which no two true pictures show."""
    points = back_project(source.depth, source.intrinsics, source.T_world_camera)[source.depth < 0.98 * source.far]
    pixels, depth = project(points, target.intrinsics, target.T_world_camera)
    height, width = target.depth.shape
    column, row = np.rint(pixels[:, 0]).astype(int), np.rint(pixels[:, 1]).astype(int)
    inside = (depth > target.near) & (column >= 1) & (row >= 1) & (column < width - 1) & (row < height - 1)
    assert inside.sum() > 50, "the cameras see nothing in common"
    column, row, depth = column[inside], row[inside], depth[inside]
    around = [target.depth[row + dy, column + dx] for dy in (-1, 0, 1) for dx in (-1, 0, 1)]  # edges are a pixel wide
    return float((depth < np.min(around, axis=0) - margin).mean())


def test_points_agree_between_cameras(world: Environment) -> None:
    views = fresh(world).observation.cameras
    for one, two in permutations(views, 2):
        assert seen_through(views[one], views[two], 0.03) < 0.03, f"{one} sees what {two} looks through"


def test_table_of_the_workspace(world: Environment, backend: Backend) -> None:
    """RLBench's frame in every simulator: the table's top at z = 0.752 m."""
    if not backend.simulated:
        pytest.skip("a real workspace has its own table")
    view = fresh(world).observation.cameras["front"]
    height = back_project(view.depth, view.intrinsics, view.T_world_camera)[..., 2]
    assert (np.abs(height - 0.752) < 0.01).mean() > 0.1


# Scenes


def test_scenes_are_functions_of_the_seed(world: Environment, backend: Backend) -> None:
    if not backend.simulated:
        pytest.skip("nobody can put real things back to the millimetre")
    first = fresh(world, 3, backend.variation)
    world.step(backend.goal())
    again = fresh(world, 3, backend.variation)
    assert same(first.observation, again.observation) and first.descriptions == again.descriptions
    others = (fresh(world, seed, backend.variation).observation for seed in range(4, 12))
    assert not all(same(first.observation, other) for other in others)


def test_global_random_state_is_untouched(world: Environment, backend: Backend) -> None:
    before = np.random.get_state()[1].copy()
    fresh(world, 1)
    world.step(backend.goal())
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_unknown_names(backend: Backend) -> None:
    if not backend.simulated:
        pytest.skip("a real robot's cameras and tasks have whatever names they have")
    with pytest.raises(InputError, match="front"):
        backend.make(("fornt",))
    with pytest.raises(InputError, match=backend.task):
        backend.make((), task=backend.task + "s")


def test_unknown_variation(world: Environment, backend: Backend) -> None:
    with pytest.raises(InputError, match=f"variation {world.variation_count()}"):
        world.reset(0, world.variation_count())


# Actions


def test_goes_to_a_pose(world: Environment, backend: Backend) -> None:
    fresh(world)
    goal = backend.goal()
    outcome = world.step(goal)
    assert outcome.failure is None and outcome.success in (True, False)
    pose = outcome.observation.gripper_pose
    assert np.linalg.norm(pose[:3] - goal.position) < backend.exact[0]
    turns = [goal.quaternion] if backend.simulated else [goal.quaternion, _half_turn(goal.quaternion)]
    off = [(Rotation.from_quat(pose[3:]) * Rotation.from_quat(turn).inv()).magnitude() for turn in turns]
    assert min(off) < backend.exact[1]
    assert same(outcome.observation, world.observe(), backend.simulated)


def _half_turn(quaternion: np.ndarray) -> np.ndarray:
    """The same grasp: the gripper turned by half a turn about its own z."""
    return (Rotation.from_quat(quaternion) * Rotation.from_rotvec([0.0, 0.0, np.pi])).as_quat()


def test_sign_of_a_quaternion_means_nothing(world: Environment, backend: Backend) -> None:
    fresh(world)
    one = world.step(backend.goal()).observation.gripper_pose
    fresh(world)
    two = world.step(replace(backend.goal(), quaternion=-backend.goal().quaternion)).observation.gripper_pose
    np.testing.assert_allclose(one[:3], two[:3], atol=1e-3 if backend.simulated else 2 * backend.exact[0])


def test_gripper_is_set_after_the_motion(world: Environment, backend: Backend) -> None:
    fresh(world)
    frames: list[Observation] = []
    outcome = world.step(replace(backend.goal(), gripper_open=False, ignore_collisions=True), frames.append)
    assert outcome.failure is None and outcome.observation.gripper_open == 0.0
    assert len(frames) > 2 and same(frames[-1], outcome.observation, backend.simulated)
    closed = [frame.gripper_open for frame in frames].index(0.0)
    start, end = frames[0].gripper_pose[:3], frames[-1].gripper_pose[:3]
    moved = np.linalg.norm(frames[closed].gripper_pose[:3] - start) / np.linalg.norm(end - start)
    assert moved > 0.9, "the gripper closed on the way"
    assert all(frame.ignore_collisions for frame in frames) or not backend.simulated
    assert all(frame.gripper_open == 1.0 for frame in frames[:closed])
    assert tuple(frames[0].cameras) == backend.cameras
    assert world.step(replace(backend.goal(), ignore_collisions=True)).observation.gripper_open == 1.0


def test_invalid_actions_move_nothing(world: Environment, backend: Backend) -> None:
    before = fresh(world).observation
    for wrong in (
        {"position": np.array([np.nan, 0.0, 1.0])},
        {"position": np.array([0.3, 0.0, 9.0])},
        {"position": np.array([0.3, 0.0])},
        {"quaternion": np.array([0.0, np.inf, 0.0, 0.0])},
        {"quaternion": np.zeros(4)},
    ):
        frames: list[Observation] = []
        outcome = world.step(replace(backend.goal(), **wrong), frames.append)
        assert backend.says(outcome.failure, "invalid") and not outcome.success and not frames, wrong
        assert same(outcome.observation, before, backend.simulated)


def test_what_cannot_be_reached_moves_nothing(world: Environment, backend: Backend) -> None:
    if backend.nowhere is None:
        pytest.skip("every goal in this workspace can be reached")
    before = fresh(world).observation
    outcome = world.step(backend.nowhere)
    assert backend.says(outcome.failure, "unreachable", "in collision", "no path")
    assert same(outcome.observation, before, backend.simulated)


# Pictures from elsewhere


def test_draws_from_anywhere_without_disturbing(world: Environment, backend: Backend) -> None:
    before = fresh(world).observation
    if type(world).draw is Environment.draw:
        with pytest.raises(NotImplementedError, match="no pictures but its cameras'"):
            world.draw([])
        return
    places = [np.array([1.2, 0.5, 1.6]), np.array([1.0, -0.6, 1.7])]
    viewpoints = [
        Viewpoint(look_at(place, np.array([0.2, 0.0, 1.0])), np.radians(fov), size)
        for place, fov, size in zip(places, (50, 60), (96, 64), strict=True)
    ]
    views = world.draw(viewpoints)
    assert same(before, world.observe())
    for viewpoint, view in zip(viewpoints, views, strict=True):
        assert view.rgb.shape == (viewpoint.size, viewpoint.size, 3) and view.rgb.dtype == np.uint8
        np.testing.assert_allclose(view.T_world_camera, viewpoint.T_world_camera, atol=1e-5)
        focal = viewpoint.size / 2 / np.tan(viewpoint.fov / 2)
        np.testing.assert_allclose(np.diag(view.intrinsics), [focal, focal, 1], rtol=1e-5)
        assert (view.near, view.far) == (viewpoint.near, viewpoint.far) and view.depth.max() <= view.far + 1e-3
        assert seen_through(view, before.cameras["front"], 0.04) < 0.05


# Experts and ends


def test_expert(world: Environment) -> None:
    fresh(world, 2)
    frames: list[Observation] = []
    outcome = world.demonstrate(frames.append)
    if outcome is not None:
        assert outcome.success and outcome.failure is None and len(frames) > 2 and same(frames[-1], outcome.observation)
        return
    assert not frames
    try:
        action = next(world.expert())
    except NoExpert:
        return
    assert action.position.shape == (3,) and np.linalg.norm(action.quaternion) == pytest.approx(1.0)


def test_nothing_before_a_reset_and_close_is_harmless_twice(backend: Backend) -> None:
    environment = backend.make(backend.cameras)
    if backend.simulated:  # real things are there before anybody asks
        with pytest.raises(RuntimeError, match="reset"):
            environment.observe()
        with pytest.raises(RuntimeError, match="reset"):
            environment.step(Action(np.array([0.3, 0.0, 1.0]), DOWN, True, False))
    environment.close()
    environment.close()


def test_real_arms_cannot_go_back(world: Environment, tmp_path: Path) -> None:
    """Only worlds that say so go back to recorded scenes."""
    if type(world).reset_to is Environment.reset_to:
        with pytest.raises(NotImplementedError, match="recorded scenes"):
            world.reset_to(None)  # type: ignore[arg-type]
