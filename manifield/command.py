"""The command `manifield VERB key=value …`: finds the verb, composes its config, runs it, and words its failures.

Verbs are imported only when they run, so that help and refusals come at once.
"""

from __future__ import annotations

import errno
import os
import shlex
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manifield import __version__
from manifield.errors import InputError, choose
from manifield.files import write_whole

if TYPE_CHECKING:
    from omegaconf import DictConfig

# verb → what it does, and where it lives ("module:function", called with the config). A verb is one line here and
# one file configs/VERB.yaml.
VERBS: dict[str, tuple[str, str]] = {
    "collect": ("record demonstrations of the expert in simulation", "demos.collect:run"),
    "features": ("let a 2D foundation model look at the data, for the neural field", "demos.extract_features:run"),
    "train": ("train a policy on demonstrations, recorded here or by RLBench", "agents.training:run"),
    "evaluate": ("measure a policy: unseen episodes in simulation, or held-back recordings", "agents.evaluation:run"),
    "render": ("look at what an agent's neural field makes of an episode, from any side", "agents.render:run"),
    "compare": ("put the results of runs side by side, with a paired test", "agents.compare:run"),
    "ablate": ("train and evaluate variants over several seeds, and put them into one table", "agents.ablate:run"),
    "report": ("write a run's results as one self-contained HTML page", "agents.report.page:run"),
    "view": ("look at demonstrations and rollouts in 3D, in the browser", "agents.view:run"),
    "sim-arm": ("serve the simulator's arm as a ROS 2 robot, to rehearse a deployment", "envs.ros.serve:run"),
    "deploy": ("let a policy act on a real arm over ROS, checked and confirmed", "agents.deployment:run"),
    "calibrate": ("find out where a real arm's cameras are, and how well", "envs.ros.calibration.command:run"),
    "record": ("record takes of a real arm as ROS bags, and make demonstrations of them", "demos.bags.record:run"),
    "convert": ("turn recorded bags into demonstrations", "demos.bags.convert:run"),
    "replay": ("let a policy look at a recorded bag, without a robot", "agents.replay:run"),
    "doctor": ("look what is installed and works here, and what to do about the rest", "manifield.doctor.examine:run"),
    "demo": ("collect, train, evaluate and report in a row, for two cores", "agents.demo:run"),
}

FLAGS = ("--help", "--multirun", "--print-config", "--traceback", "--version")
OWN_PACKAGES = ("agents", "envs", "perception", "demos", "configs", "manifield")

# Packages that only some need → the extra of pyproject.toml that brings them.
EXTRAS = {
    "cv2": "calibration",
    "diffusers": "diffusion",
    "efficientnet_lite_pytorch": "features",
    "open_clip": "clip",
    "ray": "ray",
    "rosbags": "bags",
    "roslibpy": "ros",
    "viser": "viewer",
}

# What the machine or its user must mend, as opposed to a bug: these lose their traceback.
SYSTEM_ERRORS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EACCES: "permission denied",
    errno.EPERM: "operation not permitted",
    errno.EEXIST: "it exists already, and is no folder",
    errno.ENOTDIR: "a folder is needed where a file is",
    errno.EROFS: "the file system is read-only",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (default: the process's) and return its exit code.

    0 done, 1 a bug (its traceback is on stderr), 2 something that was given is wrong (one line on stderr),
    130 interrupted.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if threading.current_thread() is threading.main_thread():  # end in order, as after Ctrl-C: workers are waited for
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    show_traceback = "--traceback" in words or os.environ.get("MANIFIELD_TRACEBACK", "") not in ("", "0")
    try:
        return _run(words)
    except KeyboardInterrupt as interrupt:
        failure: BaseException = interrupt
        message, code = "interrupted; run the same command again to go on", 130
    except BrokenPipeError:  # the reader of our output has left, as in `manifield --help | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        explained = explain(error)
        if explained is None:
            traceback.print_exc()
            return 1
        failure, message, code = error, f"error: {explained}", 2
    if show_traceback:
        traceback.print_exception(failure)
    print(f"manifield: {message}", file=sys.stderr)
    return code


def _run(words: list[str]) -> int:
    flags = [word for word in words if word.startswith("-") and "=" not in word]
    words = [word for word in words if word not in flags]
    flags = ["--help" if flag == "-h" else flag for flag in flags]
    for flag in flags:
        if flag not in FLAGS:
            near = get_close_matches(flag, FLAGS, n=1, cutoff=0.75)
            hint = f"did you mean {near[0]}?" if near else f"keys are given as key=value, flags are {', '.join(FLAGS)}"
            raise InputError(f"unknown flag {flag}: {hint}")
    if "--version" in flags:
        print(f"manifield {__version__}")
        return 0
    if words[:1] == ["help"]:
        words, flags = words[1:], ["--help"]
    if not words:
        print(overview())
        return 0
    verb, keys = words[0], words[1:]
    summary, _ = VERBS[choose(verb, VERBS, "verb")]
    if "--help" in flags:
        from manifield.help import verb_help

        print(verb_help(verb, summary, [word for word in keys if "=" in word]))
        return 0
    if "--print-config" in flags:
        from omegaconf import OmegaConf

        from manifield.configuration import compose

        print(OmegaConf.to_yaml(compose(verb, keys)), end="")
        return 0
    if "--multirun" in flags:
        from manifield.sweep import sweep

        sweep(verb, keys)
        return 0
    result = perform(verb, keys)
    return result if isinstance(result, int) else 0


def perform(verb: str, words: Sequence[str]) -> Any:
    """Do what a command line asks for, and add it to the commands that made the run; returns what the verb returns, a
    whole number being an exit code."""
    from manifield.configuration import compose

    config = compose(verb, words)
    result = load(VERBS[verb][1])(config)
    if config.get("run") and is_first_process():
        remember(Path(config.run), quoted(verb, words))
    return result


def is_first_process() -> bool:
    """Whether no other process of a job that torchrun or srun started comes before this one."""
    return os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0"


def quoted(verb: str, words: Sequence[str]) -> str:
    """The command line as one can paste it into a shell; brackets mean something to some of them."""
    return shlex.join(["manifield", verb, *words])


def remember(run: Path, command: str) -> None:
    """Add a command line to RUN/commands.txt, which tells how to repeat what is there."""
    folder = run_folder(run)
    file = folder / "commands.txt"
    known = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    if folder.is_dir() and command not in known:
        write_whole(file, "\n".join([*known, command]) + "\n")


def run_folder(path: Path) -> Path:
    """The run's folder, of a run's folder or one of its checkpoints'."""
    return path.parents[1] if path.parent.name == "checkpoints" else path


def load(target: str) -> Callable[[DictConfig], Any]:
    """The function that "module:function" names."""
    module, _, function = target.partition(":")
    run: Callable[[DictConfig], Any] = getattr(import_module(module), function)
    return run


def explain(error: BaseException) -> str | None:
    """One line for an error that is the user's or the machine's to mend; None for a bug."""
    if isinstance(error, InputError):
        return " ".join(str(error).split())
    if isinstance(error, ModuleNotFoundError) and error.name and error.name.partition(".")[0] not in OWN_PACKAGES:
        package = error.name.partition(".")[0]
        wanted = f"'.[{EXTRAS[package]}]'" if package in EXTRAS else "."
        remedy = f"run `pip install -e {wanted}` in the project's folder"
        return f"the Python package '{error.name}' is not installed: {remedy}"
    if isinstance(error, OSError) and error.errno in SYSTEM_ERRORS:
        # A failed write carries no file name, a failed open does.
        where = error.filename or _file_being_written(error)
        return f"{SYSTEM_ERRORS[error.errno]}{f': {where}' if where else ''}"
    return None


def _file_being_written(error: BaseException) -> str | None:
    """The newest open file (or path) among the local variables of the frames that the error passed through."""
    names: list[str] = []
    for frame, _ in traceback.walk_tb(error.__traceback__):
        for value in frame.f_locals.values():
            name = getattr(value, "name", None) if hasattr(value, "write") else None
            if isinstance(name, str):
                names.append(name)
            elif isinstance(value, os.PathLike):
                names.append(os.fspath(value))
    return names[-1] if names else None


def overview() -> str:
    """What `manifield --help` prints."""
    verbs = "\n".join(f"  {verb:<10} {summary}" for verb, (summary, _) in VERBS.items())
    return f"""manifield: learn manipulation from demonstrations with 3D neural feature volumes

usage: manifield VERB key=value …

verbs:
{verbs}

  manifield VERB --help   explains the verb and lists its keys with their defaults

examples:
  manifield demo
  manifield collect tasks=[open_drawer,push_buttons]
  manifield train data=data/demo run=runs/mine steps=2000
  manifield train agent=peract --print-config

flags:
  --help          this text, or a verb's
  --multirun      do it for every combination of values: train --multirun learning_rate=0.001,0.002 seed=0,1
  --version       the version
  --print-config  show the config that the words make, and stop
  --traceback     show where an error arose (or set MANIFIELD_TRACEBACK=1)

Defaults live in configs/VERB.yaml and the folders beside it; README.md is the place to start."""


if __name__ == "__main__":
    sys.exit(main())
