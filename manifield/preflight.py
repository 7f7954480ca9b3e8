"""What a machine must have before anything is installed, checked with any Python from 3.6 on and nothing else.

`make` runs this file as a script. It prints everything that is missing at once, each with how to get it.
"""

import ctypes
import shutil
import sys
from importlib.util import find_spec

OLDEST, NEWEST = (3, 11), (3, 13)
DISK = 4.0  # GB: about 3 for the environment with a CPU build of torch, the rest for data and runs


def missing() -> "list[str]":
    """One text per missing thing; empty if all is well."""
    found = []
    name = "python%d.%d" % sys.version_info[:2]  # noqa: UP031 - must run on old Pythons to say that they are old
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        found.append(
            "Python 3.11, 3.12 or 3.13 (this is %s at %s): install one of them,\n"  # noqa: UP031
            "    then: make demo PYTHON=/path/to/python3.12" % (name, sys.executable)
        )
    if find_spec("venv") is None or find_spec("ensurepip") is None:
        found.append(
            "Python's module venv: sudo apt-get install %s-venv\n"  # noqa: UP031
            "    (or python3-venv; other systems ship it with Python)" % name
        )
    if sys.platform.startswith("linux") and not (loads("libEGL.so.1") or loads("libOSMesa.so.8")):
        found.append(
            "a library to render pictures without a screen, EGL or OSMesa:\n"
            "    Debian, Ubuntu:  sudo apt-get install libegl1 libgl1 libgl1-mesa-dri\n"
            "    Fedora:          sudo dnf install mesa-libEGL mesa-libGL mesa-dri-drivers"
        )
    free = shutil.disk_usage(".").free / 1e9
    if free < DISK:
        found.append("disk space: %.0f GB are needed here, %.1f GB are free" % (DISK, free))  # noqa: UP031
    return found


def loads(library: str) -> bool:
    """Whether the dynamic linker finds `library`."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    problems = missing()
    if problems:
        sys.stderr.write("manifield cannot start yet. This machine lacks\n")
        sys.stderr.write("".join("  - %s\n" % problem for problem in problems))  # noqa: UP031
        sys.exit(2)
