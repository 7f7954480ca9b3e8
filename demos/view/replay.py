"""What the viewer shows, as plain arrays: which episodes a path holds, and the cloud and voxels of a frame."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from demos.keyframes import find_keyframes
from demos.store import open_episode
from demos.writer import EXTRA, LOW_DIM
from envs.interface import Observation
from manifield.errors import InputError
from manifield.files import read_whole
from perception.voxels import cell_index, fuse

CACHE_BYTES = 150_000_000  # of decoded pictures; the clouds made of them take less
LARGEST_FACTS = 64 * 1024**2  # bytes of manifield.json
BYTES_PER_PIXEL = 15  # colour 3, depth 8, mask 4

# Where episodes lie below a path that is itself an episodes', a variation's, a task's, a data folder, an evaluation
# with kept rollouts, or a run with such evaluations. Listed level by level: a search through all folders would walk
# every picture.
TASK_LEVELS = ("all_variations/episodes", "variation[0-9]*/episodes")
LEVELS = (
    ".",
    "episodes",
    *TASK_LEVELS,
    *(f"{above}*/{level}" for above in ("", "rollouts/", "evaluation/*/rollouts/") for level in TASK_LEVELS),
)


def find_shown(path: Path | str) -> list[Path]:
    """Folders of the episodes at or below `path`: by task, then variation folder, then number (9 before 10).

    Args:
        path: an episode, or a folder of any level above it: variation, task, data, evaluation, run.

    Raises:
        InputError: no such folder, or no episode in it.
    """
    path = Path(path)
    if not path.is_dir():
        raise InputError(f"{path}: no such folder; give an episode's, a task's, a data or a run's folder")
    if (path / LOW_DIM).is_file():
        return [path]
    found = {pickle.parent for level in LEVELS for pickle in path.glob(f"{level}/episode*/{LOW_DIM}")}
    if not found:
        raise InputError(
            f"{path}: holds no episode (a folder with {LOW_DIM}); `manifield collect` records some, "
            "`manifield evaluate keep=true` keeps those that it plays"
        )
    return sorted(found, key=lambda p: (p.parents[2:3], len(p.parents[1].name), p.parents[1].name, len(p.name), p.name))


def read_facts(path: Path) -> dict[str, Any]:
    """What `manifield.json` says of an episode: seed, success, instruction...; empty where there is none."""
    try:
        facts = json.loads(read_whole(path / EXTRA, LARGEST_FACTS, "delete it"))
    except (OSError, ValueError, RecursionError, InputError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _read_goals(facts: dict[str, Any]) -> np.ndarray:
    """What can be drawn of a rollout's chosen key-frames; an agent may have chosen nonsense."""
    try:
        goals = np.array(facts.get("actions", []), float).reshape(-1, 9)
    except (TypeError, ValueError):
        return np.zeros((0, 9))
    sound = np.isfinite(goals).all(axis=1) & (np.linalg.norm(goals[:, 3:7], axis=1) > 1e-6)
    return goals[sound]


@dataclass(frozen=True)
class Sight:
    """What of a scene is shown. low, high: [3] corners of the voxels' box, margin: of the cloud's around it (metres).

    spacing: one point per cube of this edge (metres, 0: all). max_points: the most of them. voxel: edge (metres).
    """

    low: Sequence[float]
    high: Sequence[float]
    margin: float
    spacing: float
    max_points: int
    voxel: float

    def __post_init__(self) -> None:
        if not (len(self.low) == len(self.high) == 3 and all(a < b for a, b in zip(self.low, self.high, strict=True))):
            raise InputError(f"low={list(self.low)} must lie below high={list(self.high)} on three axes")


class Replay:
    """One episode, its pictures decoded when asked for and the last ones kept.

    episode: the `demos.store.Episode`. keyframes: numbers of its key-frames. facts: of its `manifield.json`.
    goals: [K, 9] what an agent chose in a kept rollout, reached or not: position, quaternion xyzw, open, ignore
    collisions; K is 0 for demonstrations.

    Raises:
        InputError: as `open_episode`, or the episode has no pictures.
    """

    def __init__(self, path: Path, sight: Sight) -> None:
        self.episode, self.sight, self.facts = open_episode(path), sight, read_facts(path)
        self.keyframes = find_keyframes(self.episode.joint_velocities, self.episode.gripper_open)
        self.goals = _read_goals(self.facts)
        height, width = self.episode.image_size
        kept = max(4, CACHE_BYTES // (height * width * BYTES_PER_PIXEL * len(self.episode.cameras)))
        self._decode = lru_cache(maxsize=kept)(self.episode.observation)
        self._cloud = lru_cache(maxsize=kept)(self._thin)
        self._voxels = lru_cache(maxsize=kept)(self._find_voxels)

    def __len__(self) -> int:
        return len(self.episode)

    def observation(self, index: int, cameras: Sequence[str]) -> Observation:
        """A frame with the pictures of `cameras`; not to be written to, it is kept."""
        return self._decode(index, tuple(cameras))

    def cloud(self, index: int, cameras: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Points [N, 3] float32 (world metres) and colours [N, 3] uint8 that `cameras` see, N <= max_points."""
        return self._cloud(index, tuple(cameras))

    def _thin(self, index: int, cameras: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
        sight, spacing = self.sight, self.sight.spacing
        low, high = np.asarray(sight.low) - sight.margin, np.asarray(sight.high) + sight.margin
        points, colours = self._fuse(index, cameras, low, high, spacing)
        while len(points) > sight.max_points:
            # The number falls with the square of the edge, or more slowly; a little more ends this in a few rounds.
            spacing = max(spacing, 0.001) * max(1.1, (len(points) / sight.max_points) ** 0.5)
            points, colours = self._fuse(index, cameras, low, high, spacing)
        return points, colours

    def voxels(self, index: int, cameras: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Occupied voxels of the fused points: centres [M, 3] (world metres), mean colours [M, 3] uint8, size [3]."""
        return self._voxels(index, tuple(cameras))

    def _find_voxels(self, index: int, cameras: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        low, high = np.asarray(self.sight.low, np.float32), np.asarray(self.sight.high, np.float32)
        points, colours = self._fuse(index, cameras, low, high, 0.0)
        shape = np.maximum(1, np.rint((high - low) / self.sight.voxel)).astype(int)
        size = (high - low) / shape
        batch = torch.zeros(len(points), dtype=torch.int64)
        box = torch.from_numpy(low)[None], torch.from_numpy(high)[None]
        index_of_point, inside = cell_index(torch.from_numpy(points), batch, *box, tuple(shape.tolist()))
        # Only the few cells that hold points are made: the whole grid has a million of them.
        flat = np.ravel_multi_index(tuple(index_of_point[inside].numpy().T), tuple(shape))
        occupied, number = np.unique(flat, return_inverse=True)
        cells, seen = np.stack(np.unravel_index(occupied, tuple(shape)), axis=1), colours[inside.numpy()]
        count = np.bincount(number, minlength=len(cells))
        sums = [np.bincount(number, weights=seen[:, channel], minlength=len(cells)) for channel in range(3)]
        shades = np.rint(np.stack(sums, axis=1) / np.maximum(count, 1)[:, None]).astype(np.uint8)
        return (low + (cells + 0.5) * size).astype(np.float32), shades, size

    def _fuse(
        self, index: int, cameras: Sequence[str], low: np.ndarray, high: np.ndarray, spacing: float
    ) -> tuple[np.ndarray, np.ndarray]:
        if not cameras:
            return np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint8)
        return fuse(self.observation(index, cameras), low, high, cameras, spacing)
