"""What the documents name is there: files, tests, configs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docker").glob("*.md"))]
FOLDERS = ("agents", "configs", "demos", "docker", "docs", "envs", "manifield", "perception", "tests")


def quoted(document: Path) -> list[str]:
    """Words in backticks."""
    return re.findall(r"`([^`\n]+)`", document.read_text(encoding="utf-8"))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_a_document_names_exist(document: Path) -> None:
    for name in quoted(document):
        if "/my_" in name:  # what a reader would write
            continue
        if re.fullmatch(rf"({'|'.join(FOLDERS)})/[\w./-]+", name):
            assert (ROOT / name).exists(), name
        elif re.fullmatch(r"test_\w+\.py", name):
            assert list((ROOT / "tests").rglob(name)), name
    for name in re.findall(r"\]\(([^)#:]+)\)", document.read_text(encoding="utf-8")):
        assert (document.parent / name).exists(), name


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_tests_that_a_document_names_exist(document: Path) -> None:
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    for name in quoted(document):
        if re.fullmatch(r"test_\w+…?", name):
            whole = r"\(" if not name.endswith("…") else r"\w*\("
            assert re.search(rf"^def {name.removesuffix('…')}{whole}", sources, re.MULTILINE), name
