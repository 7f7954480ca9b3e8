"""Rays of calibrated cameras, and where they cross the voxel box.

A ray is origin + t · direction in world metres. Directions are not of unit length: their component along the camera's z
is 1, so that t is the depth that pictures store.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Rays:
    """R rays for each of B samples.

    origins, directions: [B, R, 3] world metres, directions with t = depth. near, far: [B, R] depths at which the ray
    enters and leaves its sample's box; far <= near if it misses. Where the scene was moved by augmentation, `unmoved`
    [B, R, 6] holds origins and directions in the world as it was: what lies outside the box does not move along.
    """

    origins: Tensor
    directions: Tensor
    near: Tensor
    far: Tensor
    unmoved: Tensor

    @property
    def hits(self) -> Tensor:
        """[B, R] bool: whether a ray crosses the box."""
        return self.far > self.near

    def points(self, depths: Tensor) -> Tensor:
        """[B, R, S, 3] world points at depths [B, R, S]."""
        return self.origins[:, :, None] + depths[..., None] * self.directions[:, :, None]

    def lengths(self) -> Tensor:
        """[B, R] metres of way per metre of depth."""
        return self.directions.norm(dim=-1)

    def take(self, chosen: Tensor) -> Rays:
        """The rays whose numbers `chosen` [B, N] gives, for each sample its own."""
        parts = (self.origins, self.directions, self.near, self.far, self.unmoved)
        return Rays(*(take(part, chosen) for part in parts))


def take(values: Tensor, chosen: Tensor) -> Tensor:
    """[B, N, ...] the entries of [B, R, ...] that `chosen` [B, N] names."""
    index = chosen.view(*chosen.shape, *[1] * (values.dim() - 2)).expand(-1, -1, *values.shape[2:])
    return values.gather(1, index)


def pixel_rays(pixels: Tensor, intrinsics: Tensor, T_world_camera: Tensor) -> tuple[Tensor, Tensor]:
    """Origins and directions [..., 3] of the rays through pixels.

    Args:
        pixels: [..., 2] column and row (u, v); whole numbers are pixel centres.
        intrinsics: [..., 3, 3] of each pixel's own camera. T_world_camera: [..., 4, 4] its pose, OpenCV axes.
    """
    focal = torch.stack([intrinsics[..., 0, 0], intrinsics[..., 1, 1]], dim=-1)
    local = (pixels - intrinsics[..., :2, 2]) / focal
    local = torch.cat([local, torch.ones_like(local[..., :1])], dim=-1)
    directions = rotate(T_world_camera[..., :3, :3], local)
    return T_world_camera[..., :3, 3].expand_as(directions), directions


def rotate(rotations: Tensor, vectors: Tensor) -> Tensor:
    """[..., 3] vectors turned by rotations [..., 3, 3]. (A matrix product would be made in bfloat16 under autocast, and
    move a camera by millimetres.)"""
    return (rotations * vectors[..., None, :]).sum(dim=-1)


def clip_to_box(origins: Tensor, directions: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Depths [B, R] at which rays [B, R, 3] enter and leave the boxes [B, 3]; leaving <= entering if they miss.

    Nothing behind the camera counts. The slab method: a ray is inside while it is between each pair of faces.
    """
    # A component of 0 never crosses its pair of faces; dividing by a tiny number instead gives the same answer.
    safe = torch.where(directions.abs() < 1e-9, torch.full_like(directions, 1e-9), directions)
    first = (low[:, None] - origins) / safe
    second = (high[:, None] - origins) / safe
    near = torch.minimum(first, second).amax(dim=-1).clamp(min=0)
    far = torch.maximum(first, second).amin(dim=-1)
    return near, far


def make_rays(
    pixels: Tensor,
    intrinsics: Tensor,
    T_world_camera: Tensor,
    low: Tensor,
    high: Tensor,
    motion: tuple[Tensor, Tensor] | None = None,
) -> Rays:
    """Rays through pixels [B, R, 2] of cameras given per ray ([B, R, 3, 3], [B, R, 4, 4]), clipped to boxes [B, 3].

    Args:
        motion: rotation [B, 3, 3] and shift [B, 3] by which augmentation moved the scene, world → moved world; the
            cameras are then moved along.
    """
    origins, directions = pixel_rays(pixels, intrinsics, T_world_camera)
    unmoved = torch.cat([origins, directions], dim=-1)
    if motion is not None:
        rotation, shift = motion
        origins = rotate(rotation[:, None], origins) + shift[:, None]
        directions = rotate(rotation[:, None], directions)
    near, far = clip_to_box(origins, directions, low, high)
    return Rays(origins, directions, near, far, unmoved)


def picture_pixels(height: int, width: int) -> Tensor:
    """[H * W, 2] float (u, v) of every pixel, row by row."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([columns, rows], dim=-1).reshape(-1, 2).float()
