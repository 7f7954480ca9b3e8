"""The adapter over the small stand-in for RLBench's Python, in both versions: everywhere, without RLBench."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import fake_rlbench
import numpy as np
import pytest
from fake_rlbench import BLOCK, TABLE, World
from rlbench_worlds import fake_rlbench as standing_in

from envs.interface import Action, NoExpert, Observation, RecordedScene
from envs.rlbench import session
from envs.rlbench.environment import RLBenchEnvironment
from envs.seeds import random_state
from manifield.errors import InputError

DOWN = np.array([0.0, 1.0, 0.0, 0.0])


@pytest.fixture(params=["peract", "current"])
def version(request: pytest.FixtureRequest) -> Iterator[str]:
    with standing_in(request.param == "peract"):
        yield request.param


@pytest.fixture
def world(version: str) -> Iterator[RLBenchEnvironment]:
    with RLBenchEnvironment("touch_block", ("front",), image_size=16) as environment:
        yield environment


def block_action(ignore_collisions: bool, height: float = 0.0) -> Action:
    return Action(World.present.block + [0, 0, height], DOWN, True, ignore_collisions)


def test_success(world: RLBenchEnvironment) -> None:
    world.reset(0, 2)
    assert not world.step(block_action(False, 0.2)).success
    outcome = world.step(block_action(True))
    assert outcome.success and outcome.failure is None


def test_spoiled_when_the_task_is_over_without_success(world: RLBenchEnvironment) -> None:
    world.reset(0, 0)
    outcome = world.step(Action(np.array([0.5, 0.3, TABLE + 0.005]), DOWN, True, True))
    assert outcome.failure == "spoiled" and not outcome.success


def test_failures_in_our_words(world: RLBenchEnvironment, version: str) -> None:
    world.reset(0, 0)
    assert world.step(Action(np.array([0.65, 0.45, 1.5]), DOWN, True, True)).failure == "unreachable"
    assert world.step(Action(np.array([0.65, 0.45, 1.5]), DOWN, True, False)).failure == "unreachable"
    assert world.step(Action(np.array([0.3, 0.0, 0.7]), DOWN, True, True)).failure == "invalid"
    assert world.step(block_action(False)).failure is None, "both versions fall back unless they are told not to"


def test_without_fallback_contact_is_a_failure() -> None:
    with standing_in(peract=False), RLBenchEnvironment("touch_block", (), fallback=False) as world:
        world.reset(0, 0)
        far = Action(np.array([0.65, 0.45, 1.5]), DOWN, True, False)
        assert world.step(far).failure == "unreachable"
        before = world.observe()
        assert world.step(block_action(False)).failure == "in collision"
        across = replace(block_action(False), position=2 * World.present.block - World.present.tip[:3])
        across.position[2] = TABLE + 0.1
        World.present.tip[:3] = World.present.block + [-0.1, 0, 0]
        across = replace(across, position=World.present.block + [0.1, 0, 0])
        assert world.step(across).failure == "no path"
        assert not before.ignore_collisions and not world.observe().ignore_collisions
        assert world.step(block_action(True)).failure is None


def test_peracts_branch_always_falls_back() -> None:
    with standing_in(peract=True), pytest.raises(InputError, match="env.fallback=false: PerAct's branch"):
        RLBenchEnvironment("touch_block", fallback=False)


def test_demonstration_and_its_flags(world: RLBenchEnvironment) -> None:
    world.reset(1, 0)
    frames: list[Observation] = []
    outcome = world.demonstrate(frames.append)
    assert outcome.success
    flags = [frame.ignore_collisions for frame in frames]
    assert flags[0] is False and flags[-1] is True and flags == sorted(flags)  # the second way-point ignores them
    heights = [frame.gripper_pose[2] for frame in frames]
    assert heights == sorted(heights, reverse=True) and len(set(heights)) == len(heights), "every moment once"
    assert world.observe().ignore_collisions is True


def test_no_demonstration_is_no_expert(world: RLBenchEnvironment) -> None:
    world.reset(1, 0)
    World.present.block[2] = TABLE - 1
    with pytest.raises(NoExpert, match="touch_block: .*path for waypoint"):
        world.demonstrate(lambda _: None)
    world.observe()  # as before


def test_a_callback_that_stops_gets_through(world: RLBenchEnvironment) -> None:
    class Stopped(Exception): ...

    def stop(_: Observation) -> None:
        raise Stopped

    world.reset(1, 0)
    with pytest.raises(Stopped):
        world.step(block_action(True), stop)
    with pytest.raises(Stopped):
        world.demonstrate(stop)
    frames: list[Observation] = []
    world.step(block_action(True))
    assert not frames


def test_recorded_scenes_come_back(world: RLBenchEnvironment, version: str) -> None:
    first = world.reset(11, 1)
    world.reset(12, 0)
    again = world.reset_to(RecordedScene(random_state(11), 1))
    assert again.variation == 1 and again.descriptions == first.descriptions
    np.testing.assert_array_equal(again.observation.task_low_dim_state, first.observation.task_low_dim_state)
    # The current RLBench draws as often as it did then; PerAct's branch knows nothing of it.
    thrice = world.reset_to(RecordedScene(random_state(11), 1, attempts=3)).observation.task_low_dim_state
    assert np.array_equal(thrice, first.observation.task_low_dim_state) == (version == "peract")
    with pytest.raises(InputError, match="variation 7: touch_block has 0 to 2"):
        world.reset_to(RecordedScene(random_state(11), 7))


def test_scene_without_a_place_is_drawn_again_then_given_up(world: RLBenchEnvironment, monkeypatch) -> None:
    tries: list[int] = []
    draw = fake_rlbench.CurrentTaskEnvironment._draw

    def unplaced(self, until: int):
        tries.append(1)
        if len(tries) < until:
            raise fake_rlbench.TaskEnvironmentError("Could not place the task touch_block in the scene.")
        return draw(self)

    monkeypatch.setattr(fake_rlbench.CurrentTaskEnvironment, "_draw", lambda self: unplaced(self, 3))
    world.reset(0, 0)
    tries.clear()
    monkeypatch.setattr(fake_rlbench.CurrentTaskEnvironment, "_draw", lambda self: unplaced(self, 9))
    with pytest.raises(InputError, match="touch_block, variation 0: Could not place the task.*give another seed="):
        world.reset(0, 0)


def test_one_simulator_for_all_environments_of_a_process(world: RLBenchEnvironment) -> None:
    world.reset(0, 0)
    simulator = World.present
    with RLBenchEnvironment("touch_block", ("front",), image_size=16) as other:
        other.reset(1, 0)
        assert World.present is simulator, "alike, so nothing is launched again"
        with pytest.raises(RuntimeError, match="one simulator for all"):
            world.observe()
        world.reset(0, 0)
        with pytest.raises(RuntimeError, match="one simulator for all"):
            other.observe()
    world.observe()  # the other one's end is not ours
    with RLBenchEnvironment("touch_block", ("wrist",), image_size=16) as different:
        assert tuple(different.reset(0, 0).observation.cameras) == ("wrist",)
        assert World.present is not simulator
    assert session.Session._present is None


def test_masks_are_handles(version: str) -> None:
    with RLBenchEnvironment("touch_block", ("front", "overhead"), image_size=32, with_masks=True) as world:
        for view in world.reset(0, 0).observation.cameras.values():
            assert view.mask is not None and view.mask.dtype == np.int32
            assert set(np.unique(view.mask)) >= {17, 84}
            assert (view.mask == 84).sum() < BLOCK * 32 * 32 * 4


def test_wrong_values(version: str) -> None:
    with pytest.raises(InputError, match="unknown task of this RLBench 'touch_blok'.*touch_block"):
        RLBenchEnvironment("touch_blok")
    with pytest.raises(InputError, match="unknown renderer 'opengl4'.*opengl3"):
        RLBenchEnvironment("touch_block", renderer="opengl4")
    with pytest.raises(InputError, match="env.cameras names front twice"):
        RLBenchEnvironment("touch_block", ("front", "front"))
