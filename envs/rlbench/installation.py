"""What RLBench needs on a machine, looked at one by one without importing any of it: CoppeliaSim, PyRep, RLBench.

A wrong installation of these does not raise: CoppeliaSim's Qt ends the whole process, and a library that is not found
is reported by the name of another one. So everything that is known to go wrong is checked before the first import.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

from manifield.errors import InputError

ROOT = "COPPELIASIM_ROOT"
COPPELIASIM = "CoppeliaSim_Edu_V4_1_0_Ubuntu20_04.tar.xz from https://downloads.coppeliarobotics.com/V4_1_0"
REQUIREMENTS = "docker/requirements-rlbench.txt"  # PyRep and RLBench by commit, and why not otherwise
INSTALL = f"pip install -e '.[rlbench]' && pip install --no-deps -r {REQUIREMENTS}"
OLDEST_PYREP = (4, 1, 0, 2)
# Imported by RLBench and PyRep: the first is what the package is called where it is installed from.
LIBRARIES = {"cffi": "cffi", "pyquaternion": "pyquaternion", "natsort": "natsort", "gymnasium": "gymnasium"}
# Functions that PyRep calls and that other releases of CoppeliaSim have dropped or have not had yet.
NEEDED_SYMBOLS = (b"simExtLaunchUIThread", b"simExtCallScriptFunction", b"simGetConfigForTipPose", b"simRMLPos")


@dataclass(frozen=True)
class Check:
    """One thing that must be right. name: in a few words. ok: it is. remedy: what is wrong and what to do, one line;
    empty if it is right."""

    name: str
    ok: bool
    remedy: str = ""


def checks(environ: Mapping[str, str] | None = None) -> list[Check]:
    """Every check, in the order in which one would mend them.

    Args:
        environ: environment variables; None takes the process's.
    """
    environ = os.environ if environ is None else environ
    steps: list[tuple[str, Callable[[Mapping[str, str]], str | None]]] = [
        ("operating system", _system),
        (f"{ROOT}", _root),
        ("CoppeliaSim's library", _library),
        ("CoppeliaSim's licence file", _licence_file),
        ("LD_LIBRARY_PATH", _library_path),
        ("Qt", _qt),
        ("display", _display),
        ("PyRep", _pyrep),
        ("PyRep's binding", _binding),
        ("RLBench", _rlbench),
        ("their Python packages", _libraries),
    ]
    found = []
    for name, step in steps:
        problem = step(environ)
        found.append(Check(name, problem is None, problem or ""))
    return found


def require(environ: Mapping[str, str] | None = None) -> None:
    """Check everything.

    Raises:
        InputError: the first thing that is not right, and how many others are not.
    """
    wrong = [check for check in checks(environ) if not check.ok]
    if wrong:
        more = f" ({len(wrong) - 1} more: `manifield doctor`)" if len(wrong) > 1 else ""
        raise InputError(f"env=rlbench cannot start: {wrong[0].name}: {wrong[0].remedy}{more}")


def _system(_: Mapping[str, str]) -> str | None:
    return None if sys.platform == "linux" else f"PyRep runs on Linux only, this is {sys.platform}: use env=mujoco"


def _root(environ: Mapping[str, str]) -> str | None:
    root = environ.get(ROOT)
    if not root:
        return f"is not set: unpack {COPPELIASIM} and `export {ROOT}=` its folder"
    if not Path(root).is_dir():
        return f"{root}: no such folder; unpack {COPPELIASIM} there, or set {ROOT} to where it is"
    return None


def _library(environ: Mapping[str, str]) -> str | None:
    root = environ.get(ROOT)
    if not root:
        return f"{ROOT} is not set"
    library = Path(root) / "libcoppeliaSim.so"
    try:
        content = library.read_bytes()
    except OSError:
        return f"{library}: not there; {ROOT} must be CoppeliaSim's own folder, the one with coppeliaSim.sh"
    missing = [symbol.decode() for symbol in NEEDED_SYMBOLS if symbol not in content]
    if missing:
        return f"{library}: has no {', '.join(missing)}, so it is not version 4.1: unpack {COPPELIASIM}"
    return None


def _licence_file(environ: Mapping[str, str]) -> str | None:
    # Without this line the educational release of 2020 refuses to start; PyRep's setup.py writes it.
    settings = Path(environ.get(ROOT, "")) / "system" / "usrset.txt"
    if not environ.get(ROOT):
        return f"{ROOT} is not set"
    text = settings.read_text(errors="replace") if settings.is_file() else ""
    if "allowOldEduRelease" not in text:
        return f"{settings}: lacks the line allowOldEduRelease=7501, which installing PyRep writes; add it by hand"
    return None


def _library_path(environ: Mapping[str, str]) -> str | None:
    root = environ.get(ROOT)
    if not root:
        return f"{ROOT} is not set"
    folders = [Path(part).resolve() for part in environ.get("LD_LIBRARY_PATH", "").split(os.pathsep) if part]
    if Path(root).resolve() in folders:
        return None
    return (
        f"does not name {root}, so libcoppeliaSim.so.1 will not be found: "
        f"`export LD_LIBRARY_PATH=$LD_LIBRARY_PATH:${ROOT}` before Python starts"
    )


def _qt(environ: Mapping[str, str]) -> str | None:
    root, plugins = environ.get(ROOT), environ.get("QT_QPA_PLATFORM_PLUGIN_PATH")
    if not root:
        return f"{ROOT} is not set"
    if plugins is None or Path(plugins).resolve() != Path(root).resolve():
        return (
            f"QT_QPA_PLATFORM_PLUGIN_PATH is {plugins or 'not set'}, so Qt would take another library's plugins and "
            "end the process (could not load the Qt platform plugin 'xcb'): "
            f"`export QT_QPA_PLATFORM_PLUGIN_PATH=${ROOT}`"
        )
    for package in ("opencv-python", "opencv-contrib-python"):
        if _installed(package):
            return (
                f"{package} brings a Qt of its own that clashes with CoppeliaSim's: "
                f"pip uninstall {package} && pip install {package}-headless"
            )
    return None


def _display(environ: Mapping[str, str]) -> str | None:
    display = environ.get("DISPLAY")
    advice = "run under a virtual one, `xvfb-run -a manifield …` (apt-get install xvfb), or start an X server"
    if not display:
        return f"DISPLAY is not set, and CoppeliaSim draws through X even when headless: {advice}"
    local = re.fullmatch(r"(?:unix)?:(\d+)(?:\.\d+)?", display)
    if local and not Path(f"/tmp/.X11-unix/X{local[1]}").exists():
        return f"no X server answers at DISPLAY={display}: {advice}"
    return None


def _pyrep(_: Mapping[str, str]) -> str | None:
    folder = _package("pyrep")
    if folder is None:
        return f"is not installed: {INSTALL}"
    if not (folder / "backend" / "sim.py").is_file():
        return (
            f"{folder}: this is another program of the same name (PyPI's `pyrep` has nothing to do with robots): "
            f"pip uninstall pyrep && {INSTALL}"
        )
    written = re.search(r"__version__ = ['\"]([\d.]+)", (folder / "__init__.py").read_text(errors="replace"))
    version = tuple(int(part) for part in written[1].split(".") if part) if written else ()
    if version < OLDEST_PYREP:
        found, wanted = (".".join(map(str, numbers)) or "unknown" for numbers in (version, OLDEST_PYREP))
        return f"{folder}: version {found}, RLBench needs {wanted} or later: {INSTALL}"
    return None


def _binding(_: Mapping[str, str]) -> str | None:
    folder = _package("pyrep")
    if folder is None:
        return "PyRep is not installed"
    if not list((folder / "backend").glob("_sim_cffi*.so")):
        return (
            f"{folder / 'backend'} holds no _sim_cffi: PyRep was not built (it needs {ROOT}, gcc and Python's headers: "
            f"apt-get install build-essential python3-dev), or this is its source folder: leave it, then {INSTALL}"
        )
    return None


def _rlbench(_: Mapping[str, str]) -> str | None:
    folder = _package("rlbench")
    if folder is None:
        return f"is not installed: {INSTALL}"
    for part, why in {
        "action_modes/__init__.py": "PerAct's branch forgets this package unless it is installed with pip's -e",
        "task_design.ttt": "the simulator's scene was not installed with it",
        "task_ttms": "the tasks' models were not installed with it",
    }.items():
        if not (folder / part).exists():
            return f"{folder / part} is missing, {why}: pip uninstall rlbench && {INSTALL}"
    return None


def _libraries(_: Mapping[str, str]) -> str | None:
    missing = [package for module, package in LIBRARIES.items() if find_spec(module) is None]
    return f"{', '.join(missing)} not installed: pip install -e '.[rlbench]'" if missing else None


def _package(name: str) -> Path | None:
    """Folder of a top-level package, found without importing it."""
    try:
        spec = find_spec(name)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    return Path(spec.origin) if spec.origin else None


def _installed(package: str) -> bool:
    try:
        distribution(package)
    except PackageNotFoundError:
        return False
    return True
