"""Which Python packages pyproject.toml asks for, and whether they are there: the core's and every extra's."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, metadata, requires, version

from packaging.requirements import Requirement

from manifield.doctor.findings import Failed, Finding, attempt
from manifield.versions import ROOT

CORE = ""
NAME = "manifield"
NOT_FOR_USERS = ("dev",)
# What is imported is called as what is installed, with underscores, but for these.
IMPORTS = {
    "open_clip_torch": "open_clip",
    "opencv-python-headless": "cv2",
    "pillow": "PIL",
    "pyyaml": "yaml",
    "hydra-core": "hydra",
}
# Built for another PyTorch than the installed one, torchvision takes these along unless it is mended first.
MEND = "from perception.features.teacher import mend_torchvision; mend_torchvision()\n"


def requirements() -> dict[str, list[Requirement]]:
    """What each extra asks for, `CORE` first: from pyproject.toml in a checkout, else from the installed project."""
    file = ROOT / "pyproject.toml"
    if file.is_file():
        project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
        texts = {CORE: project["dependencies"], **project.get("optional-dependencies", {})}
        found = {extra: [Requirement(text) for text in wanted] for extra, wanted in texts.items()}
    else:
        wanted = [Requirement(text) for text in requires(NAME) or []]
        extras = metadata(NAME).get_all("Provides-Extra") or []
        found = {CORE: [r for r in wanted if r.marker is None or r.marker.evaluate({"extra": ""})]}
        others = [r for r in wanted if r not in found[CORE]]
        found |= {extra: [r for r in others if r.marker and r.marker.evaluate({"extra": extra})] for extra in extras}
    return {
        extra: [r for r in wanted if r.name != NAME and (r.marker is None or r.marker.evaluate({"extra": extra}))]
        for extra, wanted in found.items()
    }


def problem(requirement: Requirement) -> str | None:
    """What is wrong with a package, from its metadata alone; None if nothing is."""
    try:
        present = version(requirement.name)
    except PackageNotFoundError:
        return f"{requirement.name} is not installed"
    if not requirement.specifier.contains(present, prereleases=True):
        return f"{requirement.name} {present} is installed, {requirement.specifier} is wanted"
    return None


def check_core_packages(wanted: Sequence[Requirement]) -> Finding:
    """Whether all of the core's packages are there in the right versions; nothing is imported."""
    wrong = [text for text in map(problem, wanted) if text]
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        return Finding("packages", False, f"{wrong[0]}{more}: pip install -e . (or `make venv`)", needed=True)
    return Finding("packages", True, f"all {len(wanted)} in the versions that pyproject.toml wants", needed=True)


def check_extra(extra: str, wanted: Sequence[Requirement], timeout: float) -> Finding:
    """Whether an extra's packages are there in the right versions, and can be imported."""
    install = f"pip install -e '.[{extra}]'"
    wrong = [text for text in map(problem, wanted) if text]
    if wrong:
        return Finding(extra, False, f"{'; '.join(wrong)}: {install}")
    modules = [IMPORTS.get(r.name, r.name.replace("-", "_")) for r in wanted]
    mending = MEND if any(module in ("open_clip", "diffusers") for module in modules) else ""
    try:
        attempt(mending + "".join(f"import {module}\n" for module in modules), timeout)
    except Failed as failure:
        names = ", ".join(r.name for r in wanted)
        return Finding(extra, False, f"{names}: {failure}; try pip install --force-reinstall -e '.[{extra}]'")
    return Finding(extra, True, ", ".join(f"{r.name} {version(r.name)}" for r in wanted))
