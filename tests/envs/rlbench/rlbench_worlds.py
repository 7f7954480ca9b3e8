"""RLBench for tests: its small stand-in, or its real Python over a CoppeliaSim that plays recorded episodes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
RLBENCH_VERSIONS = {"peract": "RLBench-peract", "current": "RLBench"}


@contextmanager
def fake_rlbench(peract: bool) -> Iterator[None]:
    """`import rlbench` finds the small stand-in for its Python."""
    from fake_rlbench import install

    with _no_rlbench():
        install(peract)
        yield


@contextmanager
def recorded_rlbench(version: str, data: Path, folder: Path) -> Iterator[Any]:
    """`import rlbench` finds RLBench's real Python, over a CoppeliaSim that plays the recorded episodes in `data`.

    Yields the `RecordedCoppeliaSim`. Skips where the sources or what they import are missing.
    """
    sources = rlbench_sources(version)
    missing = [name for name in ("cffi", "natsort", "pyquaternion", "gymnasium") if find_spec(name) is None]
    if missing:
        pytest.skip(f"RLBench imports {', '.join(missing)}: pip install -e '.[rlbench]'")
    from recorded_coppeliasim import RecordedCoppeliaSim

    episodes = data / "rlbench" / "open_drawer" / "all_variations" / "episodes"
    with _no_rlbench(), pytest.MonkeyPatch.context() as patch:
        world = RecordedCoppeliaSim(sources[0], sorted(episodes.glob("episode[0-9]")))
        world.install()
        patch.setenv("COPPELIASIM_ROOT", str(folder))
        for source in sources:
            patch.syspath_prepend(str(source))
        yield world


def rlbench_sources(version: str) -> tuple[Path, Path]:
    """Folders of PyRep's and of a version of RLBench's source.

    They lie outside the repository, in $MANIFIELD_RLBENCH_SOURCE, else in `.rlbench`, where `make rlbench-test` puts
    them. Tests that need them skip where they are absent.
    """
    root = Path(os.environ.get("MANIFIELD_RLBENCH_SOURCE") or ROOT / ".rlbench")
    folders = root / "PyRep", root / RLBENCH_VERSIONS[version]
    for folder in folders:
        if not folder.is_dir():
            pytest.skip(f"no source in {folder}: `make rlbench-test` fetches it, or set MANIFIELD_RLBENCH_SOURCE")
    return folders


@contextmanager
def _no_rlbench() -> Iterator[None]:
    """Neither RLBench nor PyRep is imported at the beginning, nor what a test imported of them at the end; whether
    they are installed does not matter."""
    from envs.rlbench import session

    def imported() -> list[str]:
        return [name for name in sys.modules if name.partition(".")[0] in ("rlbench", "pyrep")]

    real = {name: sys.modules.pop(name) for name in imported()}
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(session, "require", lambda: None)
            yield
    finally:
        if session.Session._present is not None:
            session.Session._present.shut_down()
        for name in imported():
            del sys.modules[name]
        sys.modules.update(real)
