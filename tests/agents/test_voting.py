"""Looks at a moved scene that vote: moves and their way back, who is elected, and what one vote leaves as it is."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from agents.actions import HALF_TURN, rotation_error
from agents.agent import Agent
from agents.checkpoint import load_policy
from agents.voting import FAR, SHIFT, YAW, elect, moved_back, moves
from demos.augment import transform
from demos.dataset import KeyframeDataset
from demos.transitions import Conventions
from envs.interface import Action

CENTRE = np.array([0.2, 0.0, 1.0])
DOWN = Rotation.from_euler("xyz", [180, 0, 20], degrees=True)


def action(x: float, turn: float = 0.0, is_open: bool = True) -> Action:
    quaternion = (DOWN * Rotation.from_euler("z", turn)).as_quat()
    return Action(np.array([x, 0.1, 0.9]), quaternion, is_open, False)


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_moves_are_rigid_different_and_small(count):
    found = moves(count, CENTRE)
    assert len(found) == count and np.array_equal(found[0], np.eye(4))
    turns = [Rotation.from_matrix(T[:3, :3]).as_rotvec()[2] for T in found]
    assert len(set(np.round(turns, 6))) == count and np.abs(turns).max() <= YAW + 1e-9
    for T in found:
        assert np.linalg.det(T[:3, :3]) == pytest.approx(1.0)
        assert (np.abs(T[:3, :3] @ CENTRE + T[:3, 3] - CENTRE) <= SHIFT + 1e-9).all()
    assert all(np.array_equal(a, b) for a, b in zip(found, moves(count, CENTRE), strict=True))


def test_the_way_back_undoes_the_move():
    goal = action(0.3, 0.4)
    for T in moves(6, CENTRE):
        turn = Rotation.from_matrix(T[:3, :3])
        there = Action(
            T[:3, :3] @ goal.position + T[:3, 3], (turn * Rotation.from_quat(goal.quaternion)).as_quat(), 1, 0
        )
        back = moved_back(there, T)
        assert back.position == pytest.approx(goal.position)
        assert rotation_error(back.quaternion, goal.quaternion, symmetric=False) < 1e-6
        assert back.quaternion[3] >= 0


def test_the_many_that_agree_outvote_the_few_that_are_far_off():
    votes = [action(0.9), action(0.300), action(0.304, 0.05), action(0.308, is_open=False), action(-0.2)]
    elected = elect(votes, symmetric=True)
    assert elected.position[0] == pytest.approx(0.304) and elected.gripper_open
    # However far off, a vote weighs no more than any other that is not near.
    assert elect([action(0.0), action(FAR), action(100.0), action(100.001)], True).position[0] == pytest.approx(
        100.0005
    )


def test_half_a_turn_is_the_same_gripper():
    turned = Action(action(0.3).position, (DOWN * HALF_TURN).as_quat(), True, False)
    votes = [turned, action(0.31), action(0.305)]
    assert elect(votes, symmetric=True).position[0] == pytest.approx(0.305)
    assert elect(votes, symmetric=False).position[0] == pytest.approx(0.3075)
    assert elect([turned], symmetric=True) is turned


def test_an_agent_votes_on_scenes_moved_as_in_training(tiny_run, tiny_data):
    """What is elected is made of the votes; the network's answer that is kept is the one to the unmoved scene."""
    one = Agent.load(tiny_run)
    policy, language, meta = load_policy(next((tiny_run / "checkpoints").iterdir()))
    policy.config.votes = 5
    many = Agent(policy, language, meta)
    data = KeyframeDataset.open(tiny_data, one.sight, Conventions(every=None))
    samples, texts = [data[0], data[3]], ["open it", "push it"]
    actions, prediction = many.predict(samples, texts)
    _, alone = one.predict(samples, texts)
    for number, sample in enumerate(samples):
        np.testing.assert_allclose(prediction.position[number], alone.position[number], atol=1e-4)
        assert [len(q) for q in prediction.q] == [2, 2]
        centre = (np.array(policy.config.low) + np.array(policy.config.high)) / 2
        ways = moves(5, centre)
        votes = [moved_back(one.predict([transform(sample, T)], [texts[number]])[0][0], T) for T in ways]
        expected = elect(votes, policy.config.symmetric_gripper)
        np.testing.assert_allclose(actions[number].position, expected.position, atol=2e-3)
