"""Other colours come with other words, and where words are missing everything stays as it is."""

from dataclasses import replace

import numpy as np
import pytest

from demos.recolour import ORDERS, recolour, renamed
from envs.colors import COLORS
from tests.demos.test_augment import DOWN, sample


def coloured(*texts: str):
    rgb = (np.array([COLORS["maroon"], COLORS["teal"], COLORS["gray"]]) * 255).astype(np.uint8)
    return replace(sample(DOWN, 3), colours=rgb, descriptions=list(texts))


def test_points_and_words_change_alike():
    before, pairs = coloured("push the maroon button, then push the teal button", "press the maroon button"), set()
    for seed in range(20):
        after = recolour(before, np.random.default_rng(seed))
        words = after.descriptions[0].split()
        first, second = words[2], words[7]
        pairs.add((first, second))
        assert after.descriptions[1] == f"press the {first} button"
        rgb = (np.array([COLORS[first], COLORS[second], COLORS["gray"]]) * 255).astype(np.uint8)
        assert (after.colours == rgb).all()
        assert (after.points == before.points).all() and (after.position == before.position).all()
    assert pairs == {("maroon", "teal"), ("green", "purple"), ("navy", "olive")}


@pytest.mark.parametrize("text", ["open the top drawer", "slide the block to pink target", "reboard the redder one"])
def test_no_colour_or_an_unknown_one_changes_nothing(text):
    before = coloured(text)
    assert all(recolour(before, np.random.default_rng(seed)) is before for seed in range(5))


def test_a_colour_without_a_name_is_never_made():
    """Orange with its channels turned would be a spring green, which has no name."""
    found = {recolour(coloured("orange"), np.random.default_rng(k)).descriptions[0] for k in range(40)}
    assert found == {"rose", "azure", "violet"}
    for order in ORDERS:
        for old, new in renamed(order).items():
            assert COLORS[new] == tuple(COLORS[old][k] for k in order)
