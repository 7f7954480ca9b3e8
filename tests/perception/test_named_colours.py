"""Colours that an instruction names."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from envs.colors import COLORS
from perception.named_colours import SHADE, likeness, named_colours


def test_colours_come_in_the_order_in_which_they_are_named_and_once():
    found = named_colours("push the maroon button, then the Green one, then the maroon one again", 3)
    assert np.array_equal(found[:2], np.array([COLORS["maroon"], COLORS["green"]], np.float32))
    assert np.isnan(found[2]).all()
    assert np.isnan(named_colours("open the bottom drawer", 2)).all()
    assert np.isnan(named_colours("put on the oranges and the blackboard", 2)).all()  # whole words only
    assert len(named_colours("red green blue", 2)) == 2


@pytest.mark.parametrize("name", COLORS)
def test_a_colour_is_like_itself_in_any_light_and_like_no_other_in_full_light(name):
    named = torch.tensor([[COLORS[name], *COLORS.values()]])
    for light in (*SHADE, 0.9):
        assert likeness(light * torch.tensor([COLORS[name]]), named)[0, 0] == pytest.approx(1.0, abs=1e-5)
    alike = likeness(torch.tensor([COLORS[name]]), named)[0, 1:]
    others = {n for n, a in zip(COLORS, alike, strict=True) if a > 0.5 and n != name}
    assert others <= {"white", "silver"}  # which are silver and gray in the shade


@given(st.lists(st.floats(0, 1), min_size=3, max_size=3), st.sampled_from(sorted(COLORS)))
def test_likeness_lies_between_nothing_and_everything(colour, name):
    named = torch.tensor([[COLORS[name], (torch.nan,) * 3]])
    alike = likeness(torch.tensor([colour]), named)
    assert 0 <= alike[0, 0] <= 1 and alike[0, 1] == 0


def test_points_have_the_likeness_of_their_own_instruction():
    colours = torch.tensor([[1.0, 0, 0], [1.0, 0, 0]])
    named = torch.tensor([[[1.0, 0, 0]], [[0.0, 0, 1]]])
    assert likeness(colours, named)[:, 0].tolist() == [1.0, pytest.approx(0.0, abs=1e-6)]
