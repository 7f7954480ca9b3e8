"""The one exception for everything that a user can mend, and the words to say it in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any


class InputError(Exception):
    """Something that was given (a file, a field, a config value) is wrong.

    The message is one line: what is wrong, where (file, field or value), and what to do. The command prints it
    without a traceback and ends with exit code 2; any other exception is a bug and keeps its traceback.
    """


def choose(value: str, options: Iterable[str], what: str) -> str:
    """Return `value` if it is one of `options`, else raise `InputError` that names the nearest ones.

    Args:
        value: what was given.
        options: what is known.
        what: the noun for the message, e.g. "task" or "camera".
    """
    known = sorted(options)
    if value in known:
        return value
    near = get_close_matches(str(value), known, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
    raise InputError(f"unknown {what} '{value}': {hint}")


def distinct(values: Sequence[Any], key: str) -> None:
    """Check that a list of a config names at least one thing, and each once.

    Raises:
        InputError: names the key and what is wrong with it.
    """
    if not values:
        raise InputError(f"{key}=[]: give at least one")
    for value in values:
        if values.count(value) > 1:
            raise InputError(f"{key} names {value} twice: give each once")


def within(config: Mapping[str, Any] | Any, **ranges: tuple[float, float]) -> None:
    """Check numbers of a config against what makes sense: within(config, workers=(1, 256), …).

    Raises:
        InputError: names the key, its value and the range.
    """
    for key, (low, high) in ranges.items():
        if not low <= config[key] <= high:
            raise InputError(f"{key}={config[key]}: give a number from {low} to {high}")
