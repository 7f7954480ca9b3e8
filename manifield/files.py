"""Writing so that a kill leaves no half file, and so that two jobs do not write into one folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from manifield.errors import InputError


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file (text as UTF-8) that is there either as it was or as it shall be, never in between."""
    draft = path.with_name(f".{path.name}.writing")
    with draft.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


@contextmanager
def only_writer(folder: Path, verb: str, key: str) -> Iterator[None]:
    """Create `folder` and hold it against a second job of the same verb; the lock ends with the process.

    Args:
        verb: the command's, for the message and the lock's name. key: the config key to choose another folder with.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / f".{verb}.lock", "w")  # noqa: SIM115 - closed below, apart from the errors of opening
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be written ({error.strerror}); choose another folder with {key}=…"
        ) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{folder}: another {verb} is writing there; wait for it or choose {key}=…") from None
        yield
