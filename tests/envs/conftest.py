"""The worlds that stand in for RLBench, on the import path: they import one another by name."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "rlbench"))
