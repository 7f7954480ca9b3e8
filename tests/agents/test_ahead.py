"""Batches are drawn ahead, in order, and no further than wanted."""

from __future__ import annotations

import threading
from contextlib import closing

import pytest

from agents.ahead import ahead


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_everything_in_order(threads):
    assert list(ahead(lambda n: n * n, range(2, 20), threads)) == [n * n for n in range(2, 20)]


def test_later_steps_are_drawn_meanwhile_but_not_all():
    drawn, third = [], threading.Event()

    def draw(step: int) -> int:
        drawn.append(step)
        if step == 2:
            third.set()
        return step

    with closing(ahead(draw, range(100), 2)) as steps:
        assert next(steps) == 0
        assert third.wait(5)  # without being asked for
    assert len(drawn) <= 4


def test_an_error_comes_at_its_step():
    def draw(step: int) -> int:
        if step == 3:
            raise ValueError("damaged")
        return step

    steps = ahead(draw, range(10), 4)
    assert [next(steps) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="damaged"):
        next(steps)
