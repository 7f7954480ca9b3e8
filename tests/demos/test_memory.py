"""A bound on what stays decoded."""

from __future__ import annotations

import numpy as np

from demos.memory import Memory, size_of
from envs.interface import CameraView


def test_what_fits_is_admitted_and_counted():
    memory = Memory(100)
    assert memory.admits(np.zeros(10)) and memory.used == 80
    assert not memory.admits(np.zeros(10)) and memory.used == 80
    assert memory.admits(np.zeros(20, np.uint8)) and memory.used == 100
    view = CameraView(np.zeros((2, 3, 3), np.uint8), np.zeros((2, 3), np.float32), np.eye(3), np.eye(4))
    assert size_of({"front": [view]}) == 18 + 24 + 72 + 128
    assert size_of("text") == size_of(None) == 0
