"""Stopping a long job between two steps rather than in the middle of one."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_politely(what: str) -> Iterator[Callable[[], bool]]:
    """While inside, Ctrl-C and SIGTERM only make the yielded function true; a second one stops at once.

    Whoever asks that function ends its work in order and raises `KeyboardInterrupt`.

    Args:
        what: is being finished, for the message, e.g. "this step".
    """
    asked = False

    def ask(signum: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        print(f"\nstopping after {what}; once more to stop at once", file=sys.stderr, flush=True)

    if threading.current_thread() is not threading.main_thread():  # signals reach the main thread only
        yield lambda: False
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
