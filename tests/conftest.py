"""Fixtures for all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with real RLBench demonstrations (`rlbench/`) and what PerAct's code makes of them (`reference/`).

    It lies outside the repository, because RLBench's licence is academic: in $MANIFIELD_REAL_DATA, else in
    `../shared/data` beside the checkout. Tests that need it skip where it is absent.
    """
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("MANIFIELD_REAL_DATA") or beside)
    if not (folder / "rlbench").is_dir():
        pytest.skip(f"no real demonstrations in {folder} (set MANIFIELD_REAL_DATA to their folder)")
    return folder
