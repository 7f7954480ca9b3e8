"""The command line as a user meets it: exit codes, one-line errors, help that comes without heavy imports."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import DictConfig

from manifield import command
from manifield.errors import InputError

ROOT = Path(__file__).resolve().parents[2]


def raising(error: BaseException):
    def run(config: DictConfig) -> None:
        raise error

    return run


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch):
    """Put another function behind the verb `report`."""

    def put(function) -> None:
        monkeypatch.setattr(command, "load", lambda target: function)

    monkeypatch.delenv("MANIFIELD_TRACEBACK", raising=False)
    return put


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--help"], ["-h"], ["help"]):
        assert command.main(words) == 0
        printed = capsys.readouterr().out
        assert all(f"  {verb} " in printed for verb in command.VERBS)


def test_verb_help_and_config(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["report", "--help"], ["help", "report"]):
        assert command.main(words) == 0
        assert "run=runs/train" in capsys.readouterr().out
    assert command.main(["report", "run=here", "--print-config"]) == 0
    assert "run: here" in capsys.readouterr().out
    assert command.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("manifield ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["repotr"], "unknown verb 'repotr': did you mean report"),
        (["report", "rnu=x"], "unknown key 'rnu' for report: did you mean run?"),
        (["report", "--helpp"], "unknown flag --helpp: did you mean --help?"),
        (["report", "runs/demo"], "'runs/demo' is not of the form key=value"),
    ],
)
def test_wrong_words_end_in_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(words) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("manifield: error: ") and printed.err.count("\n") == 1
    assert message in printed.err


def full_disk(config: DictConfig) -> None:
    with open(ROOT / "pyproject.toml") as file:
        file.read(1)
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (raising(InputError("front.png is cut off:\nfetch it again")), "front.png is cut off: fetch it again"),
        (raising(PermissionError(errno.EACCES, "Permission denied", "runs/x")), "permission denied: runs/x"),
        (full_disk, "the disk is full: "),
        (raising(ModuleNotFoundError("No module", name="open_clip.model")), "'open_clip.model' is not installed"),
        (raising(ModuleNotFoundError("No module", name="roslibpy")), "run `pip install -e '.[ros]'`"),
    ],
)
def test_what_a_user_can_mend_is_one_line(function, message: str, report, capsys: pytest.CaptureFixture[str]) -> None:
    report(function)
    assert command.main(["report"]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert command.main(["report", "--traceback"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_full_disk_names_the_file(report, capsys: pytest.CaptureFixture[str]) -> None:
    report(full_disk)
    command.main(["report"])
    assert "pyproject.toml" in capsys.readouterr().err


def test_traceback_by_environment(report, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("MANIFIELD_TRACEBACK", "1")
    report(raising(InputError("x")))
    assert command.main(["report"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_bug_keeps_its_traceback(report, capsys: pytest.CaptureFixture[str]) -> None:
    report(raising(KeyError("x")))
    assert command.main(["report"]) == 1
    assert "KeyError" in capsys.readouterr().err


def test_an_interrupt_says_how_to_go_on(report, capsys: pytest.CaptureFixture[str]) -> None:
    report(raising(KeyboardInterrupt()))
    assert command.main(["report"]) == 130
    assert capsys.readouterr().err == "manifield: interrupted; run the same command again to go on\n"


def test_the_verb_gets_its_config_and_gives_its_exit_code(report) -> None:
    seen = []
    report(lambda config: seen.append(config) or 7)
    assert command.main(["report", "run=there"]) in (0, 7)
    assert seen[0].run == "there"
    report(lambda config: 7)
    assert command.main(["report"]) == 7


def test_help_imports_nothing_heavy_and_works_from_any_folder(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()  # a stranger's folder of the same name must not be taken
    code = f"""if True:
        import sys
        sys.path.insert(0, {str(ROOT)!r})
        from manifield.command import main
        assert main(["--help"]) == 0
        assert "hydra" not in sys.modules
        assert main(["report", "--help"]) == 0
        heavy = {{"torch", "mujoco", "transformers", "scipy", "wandb", "PIL", "numpy"}} & set(sys.modules)
        assert not heavy, heavy
    """
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_python_dash_m(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "manifield", "tarin"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == "manifield: error: unknown verb 'tarin': did you mean train?\n"


def test_commands_that_made_a_run_are_remembered(report, tmp_path: Path) -> None:
    report(lambda config: None)
    for words in (["run=a b", "strips=2"], ["run=a b"], ["run=a b", "strips=2"]):
        (tmp_path / "a b").mkdir(exist_ok=True)
        assert command.main(["report", *[word.replace("a b", str(tmp_path / "a b")) for word in words]]) == 0
    lines = (tmp_path / "a b" / "commands.txt").read_text().splitlines()
    assert lines == [f"manifield report 'run={tmp_path}/a b' strips=2", f"manifield report 'run={tmp_path}/a b'"]


def test_a_refused_command_is_not_remembered(report, tmp_path: Path) -> None:
    report(raising(InputError("x")))
    assert command.main(["report", f"run={tmp_path}"]) == 2
    assert not (tmp_path / "commands.txt").exists()


def test_termination_ends_like_an_interrupt() -> None:
    """Workers and locks are then let go in order, as after Ctrl-C."""
    code = (
        "import os, signal, sys\n"
        "from manifield import command\n"
        "command.load = lambda target: lambda config: os.kill(os.getpid(), signal.SIGTERM)\n"
        "sys.exit(command.main(['report']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 130 and "interrupted" in done.stderr and "Traceback" not in done.stderr
