"""What a check says, and how it finds out without being dragged down: heavy or doubtful things are tried in a process
of their own, since a broken library may raise anything, hang, or end the whole process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from manifield.versions import ROOT

MARK = "manifield-doctor:"
_TRY = f"""
import json, os, sys
names = {{}}
try:
    exec(sys.argv[1], names)
    answer = {{"found": names.get("found")}}
except BaseException as error:
    answer = {{"error": f"{{type(error).__name__}}: {{error}}"}}
sys.stdout.write("\\n{MARK}" + json.dumps(answer, default=str) + "\\n")
sys.stdout.flush()
os._exit(0)  # what a library does on leaving is of no interest
"""


@dataclass(frozen=True)
class Finding:
    """One line of the table.

    name: of the thing. ready: it can be used. text: which version, if it is ready; else what to do, in one line.
    needed: nothing works without it.
    """

    name: str
    ready: bool
    text: str = ""
    needed: bool = False


class Failed(Exception):
    """A piece of Python did not come to its end; the message says in one line how it failed."""


def attempt(code: str, timeout: float, python: str = sys.executable, environ: Mapping[str, str] | None = None) -> Any:
    """Run `code` in a process of its own, with this project on its path; returns what it called `found`.

    Args:
        timeout: seconds. python: the program. environ: its environment; None takes this process's.

    Raises:
        Failed: an exception, a crash, no end within the time, or no such program.
    """
    variables = dict(os.environ if environ is None else environ)
    variables["PYTHONPATH"] = os.pathsep.join(part for part in (str(ROOT), variables.get("PYTHONPATH")) if part)
    try:
        process = subprocess.Popen(
            [python, "-P", "-c", _TRY, code],  # -P: what lies in the working folder is not what is meant
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=variables,
            start_new_session=True,
        )
    except OSError as error:
        raise Failed(f"{python} cannot be started ({error.strerror})") from None
    try:
        output, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        raise Failed(f"did not end within {timeout:g} s") from None
    finally:
        if process.poll() is None:  # too slow, or we are interrupted: with all that it has started
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    answers = [line.removeprefix(MARK) for line in output.splitlines() if line.startswith(MARK)]
    if not answers:
        raise Failed(_how_it_ended(process.returncode, errors))
    answer = json.loads(answers[-1])
    if "error" in answer:
        raise Failed(one_line(answer["error"]))
    return answer["found"]


def _how_it_ended(code: int, errors: str) -> str:
    last = next((line for line in reversed(errors.splitlines()) if line.strip()), "")
    told = f": {one_line(last)}" if last else ""
    if code < 0:
        return f"crashed ({signal.Signals(-code).name}){told}"
    return f"ended the process (exit code {code}){told}"


def one_line(text: object, limit: int = 300) -> str:
    """Text of any origin as one line of at most so many characters."""
    words = " ".join(str(text).split())
    return words if len(words) <= limit else words[: limit - 1] + "…"
