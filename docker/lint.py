"""Lints the images without building them: `make docker-lint`.

hadolint    on the Dockerfile, with docker/hadolint.yaml (from PyPI, in the extra `dev`)
dclint      on the compose file (from npm, where there is npx)
apt         has a candidate for every package that the Dockerfile installs (on the Debian of its base image)
pip         finds every package of the extras that the Dockerfile and the compose file install, in their versions
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
DOCKERFILE, COMPOSE, PROJECT = HERE / "Dockerfile", HERE / "compose.yaml", HERE.parent / "pyproject.toml"


def instructions(text: str) -> list[str]:
    """A Dockerfile's instructions, each in one line, without comments."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines()


def apt_packages(text: str) -> list[str]:
    """Names that a Dockerfile gives to apt-get install."""
    found = re.findall(r"apt-get install ((?:(?!&&|;).)*)", "\n".join(instructions(text)))
    return sorted({word for words in found for word in words.split() if not word.startswith("-")})


def extras(*texts: str) -> list[str]:
    """Names of the extras that the files install."""
    found = [words for text in texts for words in re.findall(r"EXTRAS[=:] ?\"?([a-z][a-z,]*)", text)]
    return sorted({extra for words in found for extra in words.split(",")})


def _run(title: str, *words: str) -> bool:
    print(f"== {title}", flush=True)
    return subprocess.run(words, check=False).returncode == 0


def _hadolint() -> bool:
    program = Path(sys.executable).with_name("hadolint")
    return _run("hadolint", str(program), "--config", str(HERE / "hadolint.yaml"), str(DOCKERFILE))


def _dclint() -> bool:
    if shutil.which("npx") is None:
        print("== dclint: no npx here, left out")
        return True
    return _run("dclint", "npx", "--yes", "dclint@3.1.0", "--config", str(HERE / "dclint.yaml"), str(COMPOSE))


def _apt() -> bool:
    names = apt_packages(DOCKERFILE.read_text(encoding="utf-8"))
    if shutil.which("apt-cache") is None:
        print("== apt: no apt-cache here, left out")
        return True
    told = subprocess.run(["apt-cache", "policy", *names], capture_output=True, text=True, check=True).stdout
    there = set(re.findall(r"^(\S+):\n.*\n  Candidate: (?!\(none\))", told, re.MULTILINE))
    missing = [name for name in names if name not in there]
    print(f"== apt: {len(names) - len(missing)} of {len(names)} packages exist", *missing)
    return not missing


def _pip() -> bool:
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    wanted = list(project["dependencies"])
    for extra in extras(DOCKERFILE.read_text(encoding="utf-8"), COMPOSE.read_text(encoding="utf-8")):
        wanted += project["optional-dependencies"][extra]
    arguments = ["install", "--dry-run", "--quiet", "--no-deps", "--ignore-installed", "--disable-pip-version-check"]
    return _run(f"pip: {len(set(wanted))} packages", sys.executable, "-m", "pip", *arguments, *sorted(set(wanted)))


def main() -> int:
    """Run all of them; 1 if any complains."""
    return int(not all([_hadolint(), _dclint(), _apt(), _pip()]))


if __name__ == "__main__":
    sys.exit(main())
