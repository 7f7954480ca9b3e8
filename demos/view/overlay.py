"""What somebody else may add to the viewer's scene, such as an agent what it makes of it."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from demos.view.replay import Replay


class Overlay(Protocol):
    """layers: names of what can be switched on."""

    layers: tuple[str, ...]

    def voxels(self, layer: str, replay: Replay, frame: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Coloured cells of one layer at a frame: centres [M, 3] metres, colours [M, 3] uint8, size [3] metres."""

    def goal(self, replay: Replay, frame: int) -> np.ndarray:
        """[8] the pose to go to from a frame: position, quaternion xyzw, gripper open (1) or closed (0)."""
