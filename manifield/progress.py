"""How far a long job is: a line that rewrites itself on a terminal, a line now and then in a log file.

Progress goes to stderr, results to stdout, so that `manifield evaluate > table.txt` keeps both useful.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections import deque
from typing import TextIO

BAR = 24  # characters
TERMINAL_INTERVAL = 0.2  # seconds between two drawings on a terminal
WINDOW = 60.0  # seconds over which the rate is taken: long enough to be calm, short enough to follow a change


class Progress:
    """Counts towards a total, and says how fast and how much longer.

        with Progress("train", total=1000, unit="steps", start=250) as progress:
            for …:
                progress.advance(1, loss=0.12)

    Args:
        title: what is going on, the first word of the line.
        total: how many there are, or None when nobody knows.
        unit: what is counted.
        start: how many an earlier run had done; they count as done but not towards the rate.
        every: seconds between two lines when the stream is not a terminal.
        stream: where to write (default stderr).
    """

    def __init__(
        self,
        title: str,
        total: int | None = None,
        unit: str = "steps",
        start: int = 0,
        every: float = 15.0,
        stream: TextIO | None = None,
    ) -> None:
        self.title, self.total, self.unit, self.done = title, total, unit, start
        self.stream = sys.stderr if stream is None else stream
        self.terminal = self.stream.isatty()
        self._interval = TERMINAL_INTERVAL if self.terminal else every
        self._start, self._begin = start, time.monotonic()
        self._shown = self._begin  # in a log, the first line comes after one interval: it then has a rate
        self._history: deque[tuple[float, int]] = deque([(self._begin, start)])
        self._values: dict[str, object] = {}
        self._width = 0
        self._closed = False

    def advance(self, n: int = 1, **values: object) -> None:
        """Count `n` more. `values` are shown behind the count (numbers with three digits) until replaced."""
        self.done += n
        self._values.update(values)
        now = time.monotonic()
        # Two entries a second are enough for a rate, whatever the speed of the loop.
        if now - self._history[-1][0] > 0.5:
            self._history.append((now, self.done))
            while len(self._history) > 2 and now - self._history[0][0] > WINDOW:
                self._history.popleft()
        if now - self._shown >= self._interval:
            self._draw(now)

    def note(self, text: str) -> None:
        """Print a line of its own, above the progress line."""
        self._erase()
        self.stream.write(f"{text}\n")
        self.stream.flush()
        if self.terminal and not self._closed:
            self._draw(time.monotonic())

    def close(self) -> None:
        """Print the last state and leave its line. Harmless twice."""
        if self._closed:
            return
        self._closed = True
        now = time.monotonic()
        self._erase()
        self.stream.write(f"{self._line(now, final=True)}\n")
        self.stream.flush()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def rate(self, now: float | None = None) -> float:
        """Units a second over the last minute, 0 before the first one."""
        now = time.monotonic() if now is None else now
        since, count = self._history[0]
        return (self.done - count) / (now - since) if now > since else 0.0

    def time_left(self, now: float | None = None) -> float | None:
        """Seconds, or None while unknown."""
        rate = self.rate(now)
        if self.total is None or rate <= 0:
            return None
        return max(0, self.total - self.done) / rate

    def _draw(self, now: float) -> None:
        self._shown = now
        line = self._line(now)
        if not self.terminal:
            self.stream.write(f"{line}\n")
        else:
            line = line[: shutil.get_terminal_size().columns - 1]  # a wrapped line could not be rewritten
            self.stream.write(f"\r{line.ljust(self._width)}")
            self._width = len(line)
        self.stream.flush()

    def _erase(self) -> None:
        if self.terminal and self._width:
            self.stream.write(f"\r{' ' * self._width}\r")
            self._width = 0

    def _line(self, now: float, final: bool = False) -> str:
        elapsed = now - self._begin
        parts = [self.title]
        if self.total is None:
            parts.append(f"{self.done} {self.unit}")
        else:
            share = min(1.0, self.done / self.total) if self.total else 1.0
            if self.terminal and not final:
                filled = round(share * BAR)
                parts.append(f"[{'#' * filled}{'.' * (BAR - filled)}]")
            parts.append(f"{self.done}/{self.total} {self.unit} ({share:.0%})")
        rate = (self.done - self._start) / elapsed if final and elapsed > 0 else self.rate(now)
        if rate > 0:
            parts.append(f"{rate:.3g} {self.unit}/s" if rate >= 1 else f"{1 / rate:.3g} s each")
        if final:
            parts.append(f"took {duration(elapsed)}")
        else:
            left = self.time_left(now)
            parts.append(f"{duration(left)} left" if left is not None else f"{duration(elapsed)} so far")
        parts += [f"{name} {_short(value)}" for name, value in self._values.items()]
        return "  ".join(parts)


def duration(seconds: float) -> str:
    """Seconds as people say them: "8 s", "3 min 20 s", "2 h 05 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
