"""The worlds that stand in for RLBench, on the import path: they import one another by name."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "rlbench"))


MISSING: dict[str, str] = {}  # backends of the conformance suite that were not tried, and why


def pytest_deselected(items) -> None:
    for item in items:
        if item.nodeid.partition("[")[0].endswith("test_conformance.py::test_start") and item.get_closest_marker("ros"):
            MISSING[item.callspec.id] = "marked `ros`, in real time: `make ros-test`"


def pytest_terminal_summary(terminalreporter) -> None:
    """Say once which backends the conformance suite did not find."""
    for report in terminalreporter.stats.get("skipped", []):
        name, _, backend = report.nodeid.partition("test_conformance.py")[2].partition("[")
        if backend and name.endswith("test_start"):
            MISSING[backend.rstrip("]")] = report.longrepr[2].removeprefix("Skipped: ")
    for backend, reason in MISSING.items():
        terminalreporter.write_line(f"conformance not shown on {backend}: {reason}")
