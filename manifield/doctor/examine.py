"""The verb: every check, as many side by side as there are cores, and the table of what they found."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from omegaconf import DictConfig

from manifield import __version__
from manifield.doctor.core import check_language, check_mujoco, check_python, check_torch
from manifield.doctor.findings import Finding, one_line
from manifield.doctor.packages import CORE, NOT_FOR_USERS, check_core_packages, check_extra, requirements
from manifield.doctor.robot import check_rclpy, check_rosbridge
from manifield.doctor.simulators import check_rlbench
from manifield.doctor.weights import LANGUAGE, check_clip, check_efficientnet, check_hub, teacher_config
from manifield.errors import choose, within
from manifield.progress import Progress
from manifield.versions import cpu_name, usable_cores

Check = Callable[[], Finding | list[Finding]]
GROUPS = {
    "core": "core: nothing goes without these",
    "backends": "other worlds than the embedded simulator",
    "extras": "extras of pyproject.toml",
    "weights": "weights of optional networks",
}


def run(config: DictConfig) -> int:
    """Print the table; returns 0 if the core is ready, else 2."""
    within(config, timeout=(1, 3600))
    groups = [config.only] if isinstance(config.only, str) else list(config.only or GROUPS)
    for group in groups:
        choose(group, GROUPS, "group in only")
    found = examine({group: checks for group, checks in all_checks(config.timeout).items() if group in groups})
    print(f"{machine()}\n\n{table(found)}", flush=True)
    missing = [f.name for findings in found.values() for f in findings if f.needed and not f.ready]
    if missing:
        print(f"\nthe core is not ready: {', '.join(missing)}")
        return 2
    if "core" in found:
        print("\nthe core is ready; what else is not ready is needed only by those who use it")
    return 0


def all_checks(timeout: float) -> dict[str, list[Check]]:
    """Every check by group. timeout: seconds that a library is given to show that it works."""
    wanted = requirements()
    extras: list[Check] = [
        partial(check_extra, extra, packages, timeout)
        for extra, packages in wanted.items()
        if extra not in (CORE, *NOT_FOR_USERS)
    ]
    return {
        "core": [
            check_python,
            partial(check_core_packages, wanted[CORE]),
            partial(check_torch, timeout),
            partial(check_mujoco, timeout),
            partial(check_language, timeout),
        ],
        "backends": [partial(check_rlbench, timeout), partial(check_rclpy, timeout), check_rosbridge],
        "extras": extras,
        "weights": [
            partial(check_efficientnet, timeout),
            partial(check_clip, "clip, language", LANGUAGE, "agent.language.weights", timeout),
            partial(check_clip, "clip, teacher", teacher_config("clip"), "teacher.weights", timeout),
            partial(check_hub, "dino", "model.safetensors", timeout),
            partial(check_hub, "stable_diffusion", "vae/diffusion_pytorch_model.safetensors", timeout),
        ],
    }


def examine(checks: dict[str, list[Check]]) -> dict[str, list[Finding]]:
    """Run checks; their findings by group, in the order of the checks. A check with a bug is a finding, too."""
    jobs = [(group, check) for group, group_checks in checks.items() for check in group_checks]
    found: dict[str, list[Finding]] = {group: [] for group in checks}
    with ThreadPoolExecutor(usable_cores()) as pool, Progress("doctor", len(jobs), "checks", every=5.0) as progress:
        results = [pool.submit(_findings, check, group == "core") for group, check in jobs]
        for (group, _), result in zip(jobs, results, strict=True):
            found[group] += result.result()
            progress.advance()
    return found


def _findings(check: Check, needed: bool) -> list[Finding]:
    try:
        found = check()
    except Exception as error:  # one check more or less: the others still have something to say
        function = check.func if isinstance(check, partial) else check
        name = getattr(function, "__name__", "check").removeprefix("check_")
        told = one_line(f"{type(error).__name__}: {error}")
        return [Finding(name, False, f"this check failed ({told}): report it", needed)]
    return found if isinstance(found, list) else [found]


def table(found: dict[str, list[Finding]]) -> str:
    """The findings of each group under its title."""
    width = max((len(finding.name) for findings in found.values() for finding in findings), default=0)
    blocks = []
    for group, findings in found.items():
        lines = [
            f"  {finding.name:<{width}}  {'ready    ' if finding.ready else 'not ready'}  {finding.text}".rstrip()
            for finding in findings
        ]
        blocks.append("\n".join([GROUPS[group], *lines]))
    return "\n\n".join(blocks)


def machine() -> str:
    """One line about the machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    free = shutil.disk_usage(".").free / 1e9
    return (
        f"manifield {__version__} on {platform.system()} {platform.release()}, {cpu_name()}, {usable_cores()} cores, "
        f"{memory:.0f} GB of memory, {free:.0f} GB free here"
    )
