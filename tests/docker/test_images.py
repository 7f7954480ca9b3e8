"""The images' recipes: linted, pinned, not root, watched; and what they install is what pyproject.toml has."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())

specification = importlib.util.spec_from_file_location("docker_lint", ROOT / "docker" / "lint.py")
assert specification is not None and specification.loader is not None
lint = importlib.util.module_from_spec(specification)
specification.loader.exec_module(lint)

IMAGES = ("cpu", "test", "rlbench", "arm")


def stages() -> dict[str, tuple[str, list[str]]]:
    """Stage → (what it is made from, its instructions)."""
    found: dict[str, tuple[str, list[str]]] = {}
    for line in lint.instructions(DOCKERFILE):
        if match := re.fullmatch(r"FROM (\S+) AS (\S+)", line):
            found[match[2]] = (match[1], [])
        elif found:
            list(found.values())[-1][1].append(line)
    return found


def chain(stage: str) -> list[str]:
    """The instructions of a stage and of those it is made from, in the order in which they are carried out."""
    parent, own = stages()[stage]
    return [*(chain(parent) if parent in stages() else []), *own]


def test_hadolint() -> None:
    program = Path(sys.executable).with_name("hadolint")
    if not program.exists():
        pytest.skip("hadolint is not installed (extra `dev`)")
    words = [str(program), "--config", str(ROOT / "docker/hadolint.yaml"), str(ROOT / "docker/Dockerfile")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_ignored_rule_is_explained() -> None:
    lines = (ROOT / "docker" / "hadolint.yaml").read_text().splitlines()
    for number, line in enumerate(lines):
        if re.match(r"\s*- DL\d+", line):
            assert lines[number - 1].lstrip().startswith("#")
    assert "hadolint ignore" not in DOCKERFILE


@pytest.mark.parametrize("stage", IMAGES)
def test_an_image_is_no_root_and_watched(stage: str) -> None:
    carried_out = chain(stage)
    users = [line.split()[1] for line in carried_out if line.startswith("USER ")]
    assert users[-1] == "1000:1000"
    assert any(line.startswith("HEALTHCHECK ") for line in carried_out)
    assert [line for line in carried_out if line.startswith("ENTRYPOINT ")][-1].startswith('ENTRYPOINT ["tini"')


def test_foreign_images_have_a_version() -> None:
    foreign = {parent for parent, _ in stages().values() if parent not in stages()}
    assert foreign == {"python:${PYTHON}", "debian:12.11-slim"}
    assert re.search(r"^ARG PYTHON=3\.11\.\d+-slim-bookworm$", DOCKERFILE, re.MULTILINE)


def test_nothing_is_left_of_the_packages_lists() -> None:
    for line in lint.instructions(DOCKERFILE):
        if "apt-get install" in line:
            assert "--no-install-recommends" in line and "rm -rf /var/lib/apt/lists/*" in line
        if "pip" in line and " install " in line and "apt-get" not in line:
            assert "--no-cache-dir" in line


def test_what_is_copied_is_there() -> None:
    for line in lint.instructions(DOCKERFILE):
        if line.startswith("COPY ") and "--from" not in line:
            for source in line.split()[1:-1]:
                assert (ROOT / source).exists(), source


def test_services_are_built_from_stages_and_extras_that_exist() -> None:
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for service in COMPOSE["services"].values():
        assert service["build"]["target"] in stages()
        for argument in service["build"].get("args", {}):
            assert f"ARG {argument}" in DOCKERFILE
        assert service["cap_drop"] == ["ALL"] and "no-new-privileges:true" in service["security_opt"]
    wanted = lint.extras(DOCKERFILE, (ROOT / "docker" / "compose.yaml").read_text())
    assert {"dev", "features"} <= set(wanted) <= set(known)


def test_ports_are_open_to_this_machine_only() -> None:
    for service in COMPOSE["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_apt_s_packages_are_found_in_the_text() -> None:
    text = "RUN apt-get update \\\n # why\n && apt-get install -y --no-install-recommends a \\\n b-1 && rm x\n"
    text += "RUN apt-get install c; d"
    assert lint.apt_packages(text) == ["a", "b-1", "c"]
    assert {"xvfb", "libegl1", "tini", "cmake"} <= set(lint.apt_packages(DOCKERFILE))


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_shell_commands_are_shell_commands() -> None:
    for line in lint.instructions(DOCKERFILE):
        if line.startswith("RUN "):
            done = subprocess.run(["bash", "-n", "-c", line[4:]], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
