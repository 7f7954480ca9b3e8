"""Seeds of the splits never meet, whatever base seed, task or number."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.seeds import SPLITS, episode_seed, episode_variation
from manifield.errors import InputError

base = st.integers(0, 2**31)


@given(base, base, st.text(max_size=20), st.text(max_size=20), st.integers(0, 10**6), st.integers(0, 10**6))
def test_splits_are_disjoint_by_construction(a, b, task, other, i, j):
    seeds = [episode_seed("train", a, task, i), episode_seed("dev", b, other, j), episode_seed("test", b, other, j)]
    assert [seed >> 60 for seed in seeds] == [0, 1, 2]


def test_seeds_repeat_and_differ():
    assert episode_seed("test", 0, "open_drawer", 3) == episode_seed("test", 0, "open_drawer", 3)
    many = {episode_seed(s, b, t, i) for s in SPLITS for b in range(3) for t in ("a", "b") for i in range(100)}
    assert len(many) == 3 * 3 * 2 * 100


def test_variations_are_covered_evenly():
    counts = Counter(episode_variation("dev", 0, "slide_block_to_color_target", i, 4) for i in range(20))
    assert counts == {0: 5, 1: 5, 2: 5, 3: 5}


def test_unknown_split():
    with pytest.raises(InputError, match="did you mean test"):
        episode_seed("tests", 0, "a", 0)
