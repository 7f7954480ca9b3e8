"""Versions without imports, and a commit that admits changes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from manifield.versions import commit, versions


def test_everything_is_named_and_fits_json() -> None:
    found = versions()
    assert {"python", "torch", "numpy", "mujoco", "manifield", "commit", "cpu", "cores", "platform"} <= set(found)
    assert all(isinstance(value, str) and value for value in found.values())
    json.dumps(found)


def test_commit_says_when_files_were_changed(tmp_path: Path) -> None:
    assert commit(tmp_path) == "unknown"

    def git(*words: str) -> None:
        subprocess.run(
            ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *words],
            cwd=tmp_path, check=True, capture_output=True,
        )  # fmt: skip

    git("init")
    assert commit(tmp_path) == "unknown"  # no commit yet
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-m", "one")
    assert len(commit(tmp_path)) == 40
    (tmp_path / "new").write_text("x")
    assert len(commit(tmp_path)) == 40
    (tmp_path / "a").write_text("2")
    assert commit(tmp_path).endswith("+dirty")
