"""Progress on a terminal and in a log, with a clock that the test turns."""

from __future__ import annotations

import io

import pytest

from manifield import progress as module
from manifield.progress import Progress, duration


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_a_log_gets_a_line_now_and_then(clock: list[float]) -> None:
    stream = io.StringIO()
    with Progress("train", total=100, unit="steps", every=10, stream=stream) as progress:
        for _ in range(50):
            clock[0] += 1
            progress.advance(2, loss=0.12345, phase="warm")
    lines = stream.getvalue().splitlines()
    assert len(lines) == 6
    assert lines[0] == "train  20/100 steps (20%)  2 steps/s  40 s left  loss 0.123  phase warm"
    assert lines[-1] == "train  100/100 steps (100%)  2 steps/s  took 50 s  loss 0.123  phase warm"
    assert "\r" not in stream.getvalue()


def test_a_terminal_gets_one_line_rewritten(clock: list[float]) -> None:
    stream = Terminal()
    with Progress("collect", total=4, unit="episodes", stream=stream) as progress:
        for index in range(4):
            clock[0] += 5
            progress.advance(episode=index)
            if index == 1:
                progress.note("open_drawer done")
    text = stream.getvalue()
    assert text.count("\n") == 2 and "open_drawer done\n" in text
    assert "[######" in text and "10 s left" in text
    assert text.endswith("collect  4/4 episodes (100%)  5 s each  took 20 s  episode 3\n")


def test_resumed_work_does_not_count_towards_the_rate(clock: list[float]) -> None:
    progress = Progress("train", total=1000, start=900, stream=io.StringIO())
    clock[0] += 10
    progress.advance(10)
    assert progress.rate() == pytest.approx(1.0)
    assert progress.time_left() == pytest.approx(90)


def test_the_rate_follows_a_change_of_speed(clock: list[float]) -> None:
    progress = Progress("train", total=100_000, stream=io.StringIO())
    for speed in (100, 10):
        for _ in range(200):
            clock[0] += 1
            progress.advance(speed)
    assert progress.rate() == pytest.approx(10, rel=0.05)


def test_without_a_total_and_without_progress(clock: list[float]) -> None:
    stream = io.StringIO()
    progress = Progress("watch", unit="frames", stream=stream)
    assert progress.time_left() is None
    progress.close()
    progress.close()
    assert stream.getvalue() == "watch  0 frames  took 0 s\n"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(7.6, "8 s"), (200, "3 min 20 s"), (7500, "2 h 05 min"), (59.7, "1 min 00 s")],
)
def test_duration(seconds: float, words: str) -> None:
    assert duration(seconds) == words
