"""Work for later steps that goes on while the present one is done."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def ahead(draw: Callable[[int], T], steps: range, threads: int) -> Generator[T, None, None]:
    """draw(step) for each step in order; so many threads are at work on the next ones meanwhile (0: none, each is drawn
    when it is asked for). They share what `draw` reads and keeps, nothing is copied.

    What `draw` raises is raised when its step's turn comes.
    """
    if threads == 0:
        yield from map(draw, steps)
        return
    pool, coming = ThreadPoolExecutor(threads, "loader"), iter(steps)
    waiting: deque[Future[T]] = deque(pool.submit(draw, step) for step in islice(coming, threads))
    try:
        while waiting:
            drawn = waiting.popleft().result()
            waiting.extend(pool.submit(draw, step) for step in islice(coming, 1))
            yield drawn
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
