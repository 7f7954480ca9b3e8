"""Every known way in which an installation of RLBench goes wrong is recognised, with what to do about it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import sources

from envs.rlbench import installation
from envs.rlbench.environment import RLBenchEnvironment
from envs.rlbench.installation import NEEDED_SYMBOLS, ROOT, checks, require
from manifield.errors import InputError


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, dict[str, str]]:
    """A folder with everything as it should be, and the environment variables."""
    coppelia = tmp_path / "CoppeliaSim"
    (coppelia / "system").mkdir(parents=True)
    (coppelia / "libcoppeliaSim.so").write_bytes(b"\0".join(NEEDED_SYMBOLS))
    (coppelia / "system" / "usrset.txt").write_text("allowOldEduRelease=7501\n")
    packages = tmp_path / "packages"
    for file, text in {
        "pyrep/__init__.py": "__version__ = '4.1.0.3'\n",
        "pyrep/backend/sim.py": "",
        "pyrep/backend/_sim_cffi.cpython-312-x86_64-linux-gnu.so": "",
        "rlbench/__init__.py": "",
        "rlbench/action_modes/__init__.py": "",
        "rlbench/task_design.ttt": "",
        "rlbench/task_ttms/reach_target.ttm": "",
        **{f"{name}/__init__.py": "" for name in installation.LIBRARIES},
    }.items():
        (packages / file).parent.mkdir(parents=True, exist_ok=True)
        (packages / file).write_text(text)
    monkeypatch.setattr(sys, "path", [str(packages), *sys.path])
    monkeypatch.setattr(installation, "_installed", lambda package: False)
    for name in [
        name for name in sys.modules if name.partition(".")[0] in ("rlbench", "pyrep", *installation.LIBRARIES)
    ]:
        monkeypatch.delitem(sys.modules, name)
    return tmp_path, {
        ROOT: str(coppelia),
        "LD_LIBRARY_PATH": f"/usr/lib:{coppelia}",
        "QT_QPA_PLATFORM_PLUGIN_PATH": str(coppelia),
        "DISPLAY": "somewhere:7",
    }


def wrong(environ: dict[str, str]) -> dict[str, str]:
    return {check.name: check.remedy for check in checks(environ) if not check.ok}


def test_all_is_well(machine) -> None:
    _, environ = machine
    found = checks(environ)
    assert all(check.ok and check.remedy == "" for check in found), wrong(environ)
    assert len({check.name for check in found}) == len(found) >= 10
    require(environ)


VARIABLES = {
    "no root": ({ROOT: None}, ROOT, "is not set: unpack CoppeliaSim_Edu_V4_1_0"),
    "root is nothing": ({ROOT: "/no/where"}, ROOT, "/no/where: no such folder"),
    "library path": ({"LD_LIBRARY_PATH": "/usr/lib"}, "LD_LIBRARY_PATH", "libcoppeliaSim.so.1 will not be found"),
    "no plugin path": ({"QT_QPA_PLATFORM_PLUGIN_PATH": None}, "Qt", "is not set, so Qt would take another"),
    "plugins of OpenCV": ({"QT_QPA_PLATFORM_PLUGIN_PATH": "/cv2/qt/plugins"}, "Qt", "is /cv2/qt/plugins, so Qt"),
    "no display": ({"DISPLAY": None}, "display", "DISPLAY is not set.*xvfb-run -a manifield"),
    "dead display": ({"DISPLAY": ":4711"}, "display", "no X server answers at DISPLAY=:4711"),
}


@pytest.mark.parametrize(("change", "name", "message"), VARIABLES.values(), ids=VARIABLES.keys())
def test_environment_variables(machine, change: dict[str, str | None], name: str, message: str) -> None:
    _, environ = machine
    changed = {key: value for key, value in (environ | change).items() if value is not None}
    remedies = wrong(changed)
    assert re.search(message, remedies[name]), remedies
    if ROOT not in change:
        assert set(remedies) == {name}, "one fault, one remedy"


FILES = {
    "not CoppeliaSim": (
        lambda root: (root / "CoppeliaSim/libcoppeliaSim.so").unlink(),
        "CoppeliaSim's library",
        "libcoppeliaSim.so: not there",
    ),
    "another version": (
        lambda root: (root / "CoppeliaSim/libcoppeliaSim.so").write_bytes(b"simExtLaunchUIThread"),
        "CoppeliaSim's library",
        "has no simExtCallScriptFunction, simGetConfigForTipPose, simRMLPos, so it is not version 4.1",
    ),
    "licence": (
        lambda root: (root / "CoppeliaSim/system/usrset.txt").write_text("nothing"),
        "CoppeliaSim's licence file",
        "lacks the line allowOldEduRelease=7501",
    ),
    "wrong pyrep": (
        lambda root: (root / "packages/pyrep/backend/sim.py").unlink(),
        "PyRep",
        "another program of the same name",
    ),
    "old pyrep": (
        lambda root: (root / "packages/pyrep/__init__.py").write_text("__version__ = '4.1.0.1'"),
        "PyRep",
        "version 4.1.0.1, RLBench needs 4.1.0.2 or later",
    ),
    "not built": (
        lambda root: [path.unlink() for path in (root / "packages/pyrep/backend").glob("*.so")],
        "PyRep's binding",
        "holds no _sim_cffi: PyRep was not built",
    ),
    "half of PerAct's branch": (
        lambda root: (root / "packages/rlbench/action_modes/__init__.py").unlink(),
        "RLBench",
        "PerAct's branch forgets this package unless",
    ),
    "no models": (
        lambda root: (root / "packages/rlbench/task_design.ttt").unlink(),
        "RLBench",
        "task_design.ttt is missing, the simulator's scene",
    ),
}


@pytest.mark.parametrize(("hurt", "name", "message"), FILES.values(), ids=FILES.keys())
def test_files(machine, hurt, name: str, message: str) -> None:
    root, environ = machine
    hurt(root)
    remedies = wrong(environ)
    assert set(remedies) == {name} and message in remedies[name], remedies
    assert "\n" not in remedies[name]
    with pytest.raises(InputError, match=f"env=rlbench cannot start: {name}: "):
        require(environ)


def test_opencv_with_a_window(machine, monkeypatch: pytest.MonkeyPatch) -> None:
    _, environ = machine
    monkeypatch.setattr(installation, "_installed", lambda package: package == "opencv-python")
    assert "pip uninstall opencv-python && pip install opencv-python-headless" in wrong(environ)["Qt"]


def test_nothing_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "find_spec", lambda name: None)
    remedies = wrong({})
    assert len(remedies) >= 9 and "git" not in remedies[ROOT]
    assert "is not installed: pip install" in remedies["PyRep"] and "gymnasium" in remedies["their Python packages"]
    with pytest.raises(InputError, match=rf"{ROOT}: is not set.*\(\d+ more: `manifield doctor`\)"):
        require({})


def test_sources_of_the_tests_are_those_of_the_requirements(tmp_path: Path) -> None:
    """`make rlbench-test` fetches one commit of each; tried on a repository of this machine."""
    known = sources.repositories()
    assert set(known) == {"PyRep", "RLBench", "RLBench-peract", "GNFactor"}
    assert all(re.fullmatch("[0-9a-f]{40}", commit) for _, commit in known.values())
    if shutil.which("git") is None:
        pytest.skip("no git")
    origin = tmp_path / "origin"
    git = ["git", "-C", str(origin), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "init", "--quiet", str(origin)], check=True)
    (origin / "file").write_text("first")
    for words in (["add", "file"], ["commit", "--quiet", "-m", "first"]):
        subprocess.run([*git, *words], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    sources.fetch(tmp_path / "copy", origin.as_uri(), commit)
    assert (tmp_path / "copy" / "file").read_text() == "first"


def test_making_an_environment_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ROOT, raising=False)
    with pytest.raises(InputError, match=f"env=rlbench cannot start: {ROOT}: is not set"):
        RLBenchEnvironment("open_drawer")


def test_import_that_fails_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from envs.rlbench import session

    (tmp_path / "rlbench").mkdir()
    (tmp_path / "rlbench" / "__init__.py").write_text("raise ImportError('undefined symbol: simNew')")
    for name in [name for name in sys.modules if name.partition(".")[0] == "rlbench"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(session, "require", lambda: None)
    with pytest.raises(InputError, match="importing RLBench failed .undefined symbol: simNew.: pip install"):
        session.load()
