"""How well the clouds of calibrated cameras agree, and whether the hand appears where the arm says it is.

Two measures for a pair of cameras, both over what the two see in a box. How far the points of one lie from the surface
that the other sees says what a voxel grid will suffer; the rigid motion that would fit them best says what is wrong
with the calibration, as far as what stands on the table fixes it (an empty table leaves two shifts and a turn free).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from envs.interface import CameraView
from envs.ros.calibration.hand_eye import motion
from perception.cameras import back_project

REACH = 0.05  # metres: points farther than this from the other cloud are something that only one camera sees
ROUNDS = 30
FEWEST_POINTS = 200
EDGE = 0.02  # metres between neighbouring pixels, from which on they lie on different things
FIXED = 0.05  # of the best-fixed direction's weight: directions with less are not fixed by what is seen


@dataclass(frozen=True)
class Agreement:
    """Of two cameras. median, most: metres from points to the other's surface; half and nine tenths of them are closer.

    shift, turn: metres (at the middle of what both see) and radians of the motion that would fit the second's cloud to
    the first's. free: how many of its six directions what is seen leaves open; they count as zero. points: compared.
    """

    first: str
    second: str
    median: float
    most: float
    shift: float
    turn: float
    free: int
    points: int


@dataclass(frozen=True)
class Surface:
    """Points [N, 3] with their normals [N, 3] (towards the camera), world metres."""

    points: np.ndarray
    normals: np.ndarray

    def moved(self, T: np.ndarray) -> Surface:
        """The surface after a rigid motion [4, 4]."""
        return Surface(self.points @ T[:3, :3].T + T[:3, 3], self.normals @ T[:3, :3].T)


def surface(
    view: CameraView, low: Sequence[float] | np.ndarray, high: Sequence[float] | np.ndarray, most: int = 15000
) -> Surface:
    """What a camera sees within a box (world metres), without edges and pixels that have no depth."""
    valid = np.isfinite(view.depth) & (view.depth > view.near) & (view.depth < 0.999 * view.far)
    points = back_project(np.where(valid, view.depth, 1.0), view.intrinsics, view.T_world_camera).astype(float)
    right, down = np.zeros_like(points), np.zeros_like(points)
    right[:, 1:-1] = points[:, 2:] - points[:, :-2]
    down[1:-1] = points[2:] - points[:-2]
    normals = np.cross(down, right)  # x right, y down: this way it points to the camera
    length = np.linalg.norm(normals, axis=-1)
    smooth = valid & (length > 0)
    for axis in (0, 1):
        for step in (1, -1):
            beside = np.roll(view.depth, step, axis)
            smooth &= np.roll(valid, step, axis) & (np.abs(beside - view.depth) < EDGE)
    smooth[[0, -1], :] = smooth[:, [0, -1]] = False
    smooth &= ((points >= low) & (points <= high)).all(axis=-1)
    points, normals = points[smooth], normals[smooth] / length[smooth, None]
    keep = slice(None, None, max(1, -(-len(points) // most)))
    return Surface(points[keep], normals[keep])


def agreement(first: str, second: str, surfaces: Mapping[str, Surface]) -> Agreement | None:
    """Compare two cameras' surfaces; None if they share too little to say anything."""
    fixed, moving = surfaces[first], surfaces[second]
    if min(len(fixed.points), len(moving.points)) < FEWEST_POINTS:
        return None
    tree = cKDTree(fixed.points)
    near, partner = _partners(tree, fixed, moving)
    if near.sum() < FEWEST_POINTS:
        return None
    distance = np.abs(_heights(fixed, moving, near, partner))
    T, free = fit(fixed, moving, tree)
    middle = moving.points[near].mean(axis=0)
    return Agreement(
        first,
        second,
        median=float(np.median(distance)),
        most=float(np.percentile(distance, 90)),
        shift=float(np.linalg.norm(T[:3, :3] @ middle + T[:3, 3] - middle)),
        turn=float(Rotation.from_matrix(T[:3, :3]).magnitude()),
        free=free,
        points=int(near.sum()),
    )


def agreements(
    views: Mapping[str, CameraView], low: Sequence[float] | np.ndarray, high: Sequence[float] | np.ndarray
) -> list[Agreement]:
    """Of all pairs of cameras that see enough of the same."""
    surfaces = {name: surface(view, low, high) for name, view in views.items()}
    found = [agreement(first, second, surfaces) for first, second in combinations(views, 2)]
    return [pair for pair in found if pair is not None]


def fit(fixed: Surface, moving: Surface, tree: cKDTree | None = None) -> tuple[np.ndarray, int]:
    """The motion [4, 4] that brings `moving` onto `fixed` (iterated closest points, point to plane), and how many of
    its six directions the shapes leave free; along those nothing is moved."""
    tree = cKDTree(fixed.points) if tree is None else tree
    middle = fixed.points.mean(axis=0)
    T, free = np.eye(4), 6
    for _ in range(ROUNDS):
        moved = moving.moved(T)
        near, partner = _partners(tree, fixed, moved)
        if near.sum() < FEWEST_POINTS:
            return T, 6
        heights = _heights(fixed, moved, near, partner)
        spread = max(1.4826 * float(np.median(np.abs(heights))), 2e-4)
        weights = np.clip(1.0 - (heights / (4 * spread)) ** 2, 0.0, None) ** 2  # Tukey's: what only one sees is dropped
        points, normals = moved.points[near] - middle, fixed.normals[partner]
        rows = np.concatenate([np.cross(points, normals), normals], axis=1)  # turn about the middle, shift
        step, free = _solve(rows, -heights, weights)
        turned = motion(step)
        turned[:3, 3] += middle - turned[:3, :3] @ middle
        T = turned @ T
        if np.linalg.norm(step) < 1e-7:
            break
    return T, free


def _solve(rows: np.ndarray, wanted: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, int]:
    """Least squares in the directions that the rows fix; turns are weighed by the cloud's own radius."""
    radius = max(float(np.sqrt((rows[:, :3] ** 2).mean() * 3)), 1e-6)
    scales = np.array([1 / radius] * 3 + [1.0] * 3)
    scaled = rows * scales
    normal = scaled.T @ (weights[:, None] * scaled)
    values, vectors = np.linalg.eigh(normal)
    fixed = values > FIXED**2 * values[-1]
    inverse = np.where(fixed, 1 / np.where(fixed, values, 1.0), 0.0)
    step = vectors @ (inverse * (vectors.T @ (scaled.T @ (weights * wanted))))
    return step * scales, int((~fixed).sum())


def _partners(tree: cKDTree, fixed: Surface, moving: Surface) -> tuple[np.ndarray, np.ndarray]:
    """Which points of `moving` [N] have one of `fixed` nearby that faces the same way, and the number of that one."""
    distance, index = tree.query(moving.points, distance_upper_bound=REACH, workers=1)
    near = np.isfinite(distance)
    facing = np.zeros_like(near)
    facing[near] = (moving.normals[near] * fixed.normals[index[near]]).sum(axis=1) > 0.7
    return facing, index[facing]


def _heights(fixed: Surface, moving: Surface, near: np.ndarray, partner: np.ndarray) -> np.ndarray:
    """How far points of `moving` lie above the surface of `fixed`, metres."""
    return ((moving.points[near] - fixed.points[partner]) * fixed.normals[partner]).sum(axis=1)
