"""Key-frames that are missed are drawn more often, the same by whoever asks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import agents.focus
from agents import training
from agents.focus import FAR, TRUST, WINDOW, Focus
from manifield.errors import InputError
from tests.agents.test_training import column, losses, weights

GROUPS = [("jar", 0), ("jar", 0), ("jar", 1), ("tap", 0)]
BASE = np.array([0.2, 0.2, 0.2, 0.4])


def alone(counts: np.ndarray) -> np.ndarray:
    return counts.copy()


def seen(focus: Focus) -> Focus:
    """Of a window in which only the jar's second key-frame was missed, each time of six."""
    for _ in range(6):
        focus.observe([0, 2, 3], np.array([0.9 * FAR, 1.1 * FAR, 0.0]))
    return focus


def test_nothing_is_known_in_the_beginning():
    focus = Focus(0.7, BASE, GROUPS)
    for step in (0, WINDOW - 1, WINDOW, 2 * WINDOW - 1):
        np.testing.assert_allclose(focus.probabilities(step), BASE)


def test_what_is_missed_is_drawn_more_often_one_window_later():
    focus = seen(Focus(0.7, BASE, GROUPS))
    for done in range(1, WINDOW + 1):
        focus.turn(done, alone)
    np.testing.assert_allclose(focus.probabilities(WINDOW), BASE)  # what may be drawn already does not change
    hit = TRUST / (TRUST + 6)
    by_misses = BASE * [hit, hit, 1.0, hit]
    expected = 0.3 * BASE + 0.7 * by_misses / by_misses.sum()
    np.testing.assert_allclose(focus.probabilities(2 * WINDOW), expected)
    assert focus.probabilities(2 * WINDOW).sum() == pytest.approx(1)
    assert not focus.counts.any()


def test_a_state_goes_on_where_it_was_whoever_counted():
    first, second = Focus(0.5, BASE, GROUPS), Focus(0.5, BASE, GROUPS)
    whole = seen(seen(Focus(0.5, BASE, GROUPS)))
    parts = np.stack([seen(first).counts, seen(second).counts])
    state = first.state(lambda counts: parts.sum(axis=0), True)
    second.state(lambda counts: parts.sum(axis=0), False)
    assert (first.counts == whole.counts).all() and not second.counts.any()
    later = Focus(0.5, BASE, GROUPS)
    later.load(state, WINDOW - 3, True)
    for focus in (later, whole):
        focus.turn(WINDOW, alone)
        focus.turn(2 * WINDOW, alone)
    np.testing.assert_array_equal(later.probabilities(3 * WINDOW), whole.probabilities(3 * WINDOW))


def test_what_is_never_missed_comes_all_the_same():
    focus = Focus(1.0, BASE, GROUPS)
    for window in range(1, 200):
        focus.observe([0, 3] * 20, np.zeros(40))
        focus.turn(window * WINDOW, alone)
    assert (focus.probabilities(200 * WINDOW) > 0).all()


@pytest.mark.parametrize("stop", [4, 5])
def test_a_stopped_run_draws_what_it_would_have_drawn(train_config, tmp_path, stop_and_go_on, monkeypatch, stop):
    monkeypatch.setattr(agents.focus, "WINDOW", 2)
    settings = ("steps=10", "focus=0.9", "log_every=1")
    training.run(train_config(*settings, f"run={tmp_path / 'whole'}"))
    stop_and_go_on(train_config(*settings, f"run={tmp_path / 'stopped'}", "checkpoint_every=1"), stop)
    assert losses(tmp_path / "stopped") == losses(tmp_path / "whole")
    a, b = weights(tmp_path / "stopped"), weights(tmp_path / "whole")
    assert all(torch.equal(a[k], b[k]) for k in a)
    training.run(train_config("steps=10", "log_every=1", f"run={tmp_path / 'without'}"))
    assert column(tmp_path / "without", "loss")[:4] == column(tmp_path / "whole", "loss")[:4]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("focus=1.5",), "focus=1.5: give a share of samples, from 0 to 1"),
        (("focus=0.5", "sampling=epochs"), "focus=0.5 draws some transitions more often"),
        (("focus=0.5", "loaders=51"), "loaders=51 draw further ahead than focus=0.5 knows: at most 50"),
    ],
)
def test_what_does_not_go_together_is_refused(train_config, words, said):
    with pytest.raises(InputError, match=said):
        training.run(train_config("steps=1", *words))
