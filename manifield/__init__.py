"""Manifield: learn many manipulation tasks from a few demonstrations each, told in words what to do."""

import os

__version__ = "0.1.0"

# PyTorch's threads (OpenMP) wait for each other busily by default. As soon as anything else runs on the machine, they
# take each other's cores that way: two jobs side by side are then five times slower than with threads that sleep
# (tests/benchmarks/benchmark_threads.py). OpenMP reads this once, when it is loaded, so it is set before anyone can.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
