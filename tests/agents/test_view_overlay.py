"""`manifield view run=RUN`: the agent's Q-maps, choice and features as things that the viewer draws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agents.agent import Agent
from agents.view import FEATURES, AgentOverlay
from demos.store import find_episodes
from demos.view.replay import Replay, Sight
from manifield.configuration import compose
from manifield.errors import InputError

SIGHT = Sight((-0.3, -0.5, 0.6), (0.7, 0.5, 1.6), 0.3, 0.004, 100_000, 0.02)


@pytest.fixture
def replay(view_data: Path) -> Replay:
    return Replay(find_episodes(view_data)[0], SIGHT)


def test_the_hottest_cell_is_where_the_agent_would_go(tiny_run, replay):
    overlay = AgentOverlay(tiny_run)
    assert overlay.layers == ("q-map, look 1", "q-map, look 2")
    agent = Agent.load(tiny_run)
    action, prediction = agent.act(replay.episode.observation(0), replay.episode.descriptions[0], 0)
    goal = overlay.goal(replay, 0)
    np.testing.assert_allclose(goal[:7], np.concatenate([action.position, action.quaternion]), atol=1e-6)
    assert goal[7] == float(action.gripper_open)
    for stage, layer in enumerate(overlay.layers):
        centres, colours, size = overlay.voxels(layer, replay, 0)
        low, high = prediction.low[stage][0].numpy(), prediction.high[stage][0].numpy()
        assert colours.shape == (len(centres), 3) and colours.dtype == np.uint8
        assert ((centres > low) & (centres < high)).all()
        q = prediction.q[stage][0]
        np.testing.assert_allclose(size, (high - low) / np.array(q.shape), rtol=1e-5)
        best = np.array(np.unravel_index(int(q.argmax()), q.shape))
        hottest = centres[colours.astype(int).sum(axis=1).argmax()]
        np.testing.assert_allclose(hottest, low + (best + 0.5) * size, atol=1e-5)


def test_features_colour_what_is_seen(tiny_field_run, replay):
    overlay = AgentOverlay(tiny_field_run, "do something")
    assert overlay.layers[-1] == FEATURES
    centres, colours, size = overlay.voxels(FEATURES, replay, 3)
    seen, _, _ = replay.voxels(3, ("front",))
    assert 0 < len(centres) <= len(seen) and colours.shape == (len(centres), 3) and (size < 0.03).all()
    assert {tuple(c) for c in centres} <= {tuple(c) for c in seen} and len(np.unique(colours, axis=0)) > 1


def test_a_run_that_is_none_is_refused_before_the_page_opens(tmp_path, view_data):
    from agents.view import run

    with pytest.raises(InputError, match="no checkpoint in"):
        run(compose("view", [str(view_data), f"run={tmp_path}", "open=false"]))
