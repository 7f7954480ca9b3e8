"""The worlds that stand in for RLBench, on the import path: they import one another by name."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "rlbench"))


def pytest_terminal_summary(terminalreporter) -> None:
    """Say once which backends the conformance suite did not find."""
    missing: dict[str, str] = {}
    for report in terminalreporter.stats.get("skipped", []):
        name, _, backend = report.nodeid.partition("test_conformance.py")[2].partition("[")
        if backend and name.endswith("test_start"):
            missing[backend.rstrip("]")] = report.longrepr[2].removeprefix("Skipped: ")
    for backend, reason in missing.items():
        terminalreporter.write_line(f"conformance not shown on {backend}: {reason}")
