"""Wilson's interval against published values and its own promises."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.statistics import wilson_interval


@pytest.mark.parametrize(
    ("successes", "episodes", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)  # Newcombe, Statistics in Medicine 17 (1998), table I, method 3
def test_published_values(successes: int, episodes: int, low: float, high: float) -> None:
    assert wilson_interval(successes, episodes) == pytest.approx((low, high), abs=1e-4)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_it_is_around_the_rate_and_symmetric(case: tuple[int, int]) -> None:
    successes, episodes = case
    low, high = wilson_interval(successes, episodes)
    assert 0 <= low <= successes / episodes <= high <= 1
    mirrored = wilson_interval(episodes - successes, episodes)
    assert mirrored == pytest.approx((1 - high, 1 - low))


def test_no_episodes_and_impossible_counts() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)
    for successes, episodes in ((3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="successes of"):
            wilson_interval(successes, episodes)
