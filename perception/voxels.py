"""From RGB-D pictures to a voxel grid: fuse, crop, thin, scatter.

A grid covers the box [low, high] with `shape` cells; volumes are [B, C, X, Y, Z] and cell (i, j, k) spans
low + (i, j, k) · cell to low + (i + 1, j + 1, k + 1) · cell.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from envs.interface import CameraView, Observation
from manifield.errors import InputError
from perception.cameras import back_project

GRID_CHANNELS = 10
"""Channels of PerAct's grid: mean xyz, mean rgb in [-1, 1], index / shape, occupancy."""


def fuse(
    observation: Observation,
    low: np.ndarray,
    high: np.ndarray,
    cameras: Sequence[str] | None = None,
    spacing: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """World points and colours that all cameras see inside a box.

    Args:
        observation: with pictures.
        low, high: [3] corners of the box, metres.
        cameras: names to use; None for all.
        spacing: keep one point per cube of this edge (metres), so that near surfaces do not outweigh far ones;
            0 keeps every point. Which one is kept is the first in camera and pixel order: deterministic.

    Returns:
        points [N, 3] float32 metres and colours [N, 3] uint8.

    Raises:
        InputError: a camera is not in the observation.
    """
    views = [_view(observation, name) for name in (cameras or observation.cameras)]
    parts = [_seen_inside(view, np.asarray(low, float), np.asarray(high, float)) for view in views]
    points, colours = (np.concatenate([part[kind] for part in parts]) for kind in (0, 1))
    if spacing > 0:
        cell = np.floor((points - np.asarray(low)) / spacing).astype(np.int64)
        extent = cell.max(axis=0, initial=0) + 1
        _, first = np.unique((cell[:, 0] * extent[1] + cell[:, 1]) * extent[2] + cell[:, 2], return_index=True)
        points, colours = points[first], colours[first]
    return points, colours


def _seen_inside(view: CameraView, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    points = back_project(view.depth, view.intrinsics, view.T_world_camera).reshape(-1, 3)
    x, y, z = ((points[:, axis] >= low[axis]) & (points[:, axis] < high[axis]) for axis in range(3))
    inside = np.flatnonzero(x & y & z)
    return points.take(inside, axis=0), view.rgb.reshape(-1, 3).take(inside, axis=0)


def _view(observation: Observation, name: str) -> CameraView:
    if name not in observation.cameras:
        raise InputError(f"camera '{name}' is not in the observation, which has {', '.join(observation.cameras)}")
    return observation.cameras[name]


def scatter_mean(
    points: torch.Tensor,
    features: torch.Tensor,
    batch_index: torch.Tensor,
    low: torch.Tensor,
    high: torch.Tensor,
    shape: tuple[int, int, int],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean of point features in every cell; differentiable in the features.

    Args:
        points: [M, 3] world metres of all samples of the batch, one after another.
        features: [M, F] float. batch_index: [M] int64, the sample each point belongs to.
        low, high: [B, 3] box of each sample. shape: cells along x, y, z.

    Returns:
        mean [B, F, X, Y, Z] (0 in empty cells) and count [B, 1, X, Y, Z]. Points outside the box do not count.
    """
    batch, cells = len(low), shape[0] * shape[1] * shape[2]
    index, inside = cell_index(points, batch_index, low, high, shape)
    flat = ((batch_index * shape[0] + index[:, 0]) * shape[1] + index[:, 1]) * shape[2] + index[:, 2]
    # Points outside go to one cell too many: cheaper than leaving them out, whose gradient is a slow scatter.
    flat = torch.where(inside, flat, batch * cells)
    total = features.new_zeros(batch * cells + 1, features.shape[1]).index_add(0, flat, features)[:-1]
    count = torch.bincount(flat, minlength=batch * cells + 1)[:-1].to(features.dtype)
    mean = total / count.clamp(min=1)[:, None]
    return mean.view(batch, *shape, -1).permute(0, 4, 1, 2, 3), count.view(batch, 1, *shape)


def cell_index(
    points: torch.Tensor, batch_index: torch.Tensor, low: torch.Tensor, high: torch.Tensor, shape: tuple[int, int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """[M, 3] int64 cell of each point and [M] bool whether it lies in its sample's box."""
    cells = torch.tensor(shape, device=points.device)
    cell = (high - low) / cells
    # Counted from one cell below the box, as PerAct does: points on the face between two cells round as its do.
    index = ((points - (low - cell)[batch_index]) / cell[batch_index]).floor().long() - 1
    return index, ((index >= 0) & (index < cells)).all(dim=1)


def peract_grid(
    points: torch.Tensor,
    colours: torch.Tensor,
    batch_index: torch.Tensor,
    low: torch.Tensor,
    high: torch.Tensor,
    shape: tuple[int, int, int],
) -> torch.Tensor:
    """PerAct's grid (section 3.2, "Voxel observations"): [B, 10, X, Y, Z].

    Channels: mean xyz (metres), mean rgb in [-1, 1], cell index / shape, occupancy. `colours` are [M, 3] uint8 or
    float in [0, 255]. Cells that hold no point carry their index only.
    """
    features = torch.cat([points, colours.to(points.dtype) / 127.5 - 1.0], dim=1)
    mean, count = scatter_mean(points, features, batch_index, low, high, shape)
    axes = [torch.arange(n, device=points.device, dtype=points.dtype) / n for n in shape]
    index = torch.stack(torch.meshgrid(*axes, indexing="ij")).expand(len(low), -1, -1, -1, -1)
    return torch.cat([mean, index, (count > 0).to(mean.dtype)], dim=1)


def cell_centres(low: torch.Tensor, high: torch.Tensor, shape: tuple[int, int, int]) -> torch.Tensor:
    """[B, 3, X, Y, Z] world positions of the centres of all cells of the boxes [B, 3]."""
    axes = [(torch.arange(n, device=low.device, dtype=low.dtype) + 0.5) / n for n in shape]
    unit = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    return low[:, :, None, None, None] + unit * (high - low)[:, :, None, None, None]


def sample_volume(volume: torch.Tensor, points: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """Trilinear features of a volume at world points; differentiable in both.

    Args:
        volume: [B, C, X, Y, Z], value at a cell's centre. points: [B, N, 3] world metres. low, high: [B, 3].

    Returns:
        [B, C, N]; beyond the outermost centres it fades to 0, reached half a cell outside the box.
    """
    unit = (points - low[:, None]) / (high - low)[:, None] * 2 - 1
    # grid_sample reads its coordinates backwards: the last axis of the volume first.
    grid = unit.flip(-1)[:, :, None, None]
    return F.grid_sample(volume, grid, mode="bilinear", padding_mode="zeros", align_corners=False)[..., 0, 0]
