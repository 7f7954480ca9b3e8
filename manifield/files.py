"""Writing so that a kill leaves no half file, and so that two jobs do not write into one folder; reading files that
others have made, without trusting them."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from manifield.errors import InputError


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file (text as UTF-8) that is there either as it was or as it shall be, never in between."""
    draft = path.with_name(f".{path.name}.writing")
    with draft.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def read_whole(path: Path, limit: int, mending: str) -> bytes:
    """The content of a file that may come from anyone: a pipe or a device is not waited for, a giant is not loaded.

    Args:
        limit: bytes that such a file has at most. mending: what to do about a file that is refused.

    Raises:
        OSError: it is not there, or may not be read.
        InputError: no regular file, or a larger one.
    """
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=0) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{path}: cannot be read, it is no regular file; {mending}")
        if status.st_size > limit:
            raise InputError(f"{path}: refused, {status.st_size} bytes where {limit} are plenty; {mending}")
        return file.read(status.st_size)


def inside(folder: Path, name: str) -> Path:
    """The path of a file in `folder` whose name stands in another file.

    Raises:
        InputError: the name leads out of the folder.
    """
    if "\0" in name or PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise InputError(f"{folder}: refused, a file in it names {name[:99]!r}, which leads out of it; do not trust it")
    return folder / name


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
