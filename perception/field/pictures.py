"""The given pictures as a condition of the field: what they show where a point projects to (pixelNeRF, Yu et al. 2021,
section 4, with measured depth instead of learned features).

A volume holds what fits into its cells; the pictures still have every pixel. Their depth says of each point whether a
camera looks through it, onto it, or does not see it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from envs.interface import CameraView

REACHES = (0.01, 0.04)  # metres off a measured surface within which a point takes on its colour: sharp, and forgiving
THROUGH = 0.05  # metres in front of a measured surface from which on a point counts as looked through
CHANNELS = 4 * len(REACHES) + 3


@dataclass(frozen=True)
class Pictures:
    """K pictures of each of B scenes.

    content: [B, K, H * W, 4] red, green, blue in [0, 1] and depth in metres. size: (H, W). intrinsics: [B, K, 3, 3].
    T_camera_world: [B, K, 4, 4], from the world in which points are asked for.
    """

    content: Tensor
    size: tuple[int, int]
    intrinsics: Tensor
    T_camera_world: Tensor

    @torch.no_grad()
    def at(self, points: Tensor) -> Tensor:
        """[B, N, CHANNELS] what is known of world points [B, N, 3]: for each of `REACHES` the colour that cameras see
        there and how near its surface is (1: on it, 0: far off), how far in front of what is measured it lies at most
        and at least (-1: `THROUGH` behind, 1: `THROUGH` before), and by which part of the cameras it is seen."""
        with torch.autocast(points.device.type, enabled=False):  # pixels in bfloat16 would be off by several
            inside, colour, before = self._look(points.float())
        ahead = (before / THROUGH).tanh()
        most = torch.where(inside, ahead, -1.0).amax(dim=1)
        least = torch.where(inside, ahead, 1.0).amin(dim=1)
        parts = []
        for reach in REACHES:
            weight = torch.exp(-((before / reach) ** 2)) * inside
            mean = (weight[..., None] * colour).sum(dim=1) / (weight.sum(dim=1) + 1e-3)[..., None]
            parts += [mean, weight.amax(dim=1)[..., None]]
        return torch.cat([*parts, torch.stack([most, least, inside.float().mean(dim=1)], dim=-1)], dim=-1)

    def _look(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of each camera: which points lie in its picture [B, K, N], the colour there [B, K, N, 3], and how many metres
        of depth they are before what it measured there [B, K, N]."""
        height, width = self.size
        T, K = self.T_camera_world, self.intrinsics
        local = points[:, None] @ T[..., :3, :3].transpose(2, 3) + T[:, :, None, :3, 3]
        depth = local[..., 2]
        focal = torch.stack([K[..., 0, 0], K[..., 1, 1]], dim=-1)[:, :, None]
        place = local[..., :2] / depth.clamp(min=1e-6)[..., None] * focal + K[:, :, None, :2, 2]
        column, row = place.round().unbind(-1)
        inside = (depth > 1e-2) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
        pixel = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).long()
        first = torch.arange(pixel.shape[0] * pixel.shape[1], device=pixel.device) * (height * width)
        pixel = (pixel + first.view(*pixel.shape[:2], 1)).flatten()
        content = self.content.view(-1, 4).index_select(0, pixel).view(*depth.shape, 4)
        return inside, content[..., :3], content[..., 3] - depth


def colours_of(known: Tensor) -> list[Tensor]:
    """[..., 3] the colour for each of `REACHES` in what begins with `Pictures.at` [..., C]."""
    return [known[..., 4 * number : 4 * number + 3] for number in range(len(REACHES))]


def stack_pictures(scenes: Sequence[Mapping[str, CameraView]], motion: np.ndarray) -> Pictures:
    """The pictures of B scenes, each of the same cameras and sizes, which augmentation has moved by `motion` [B, 4, 4]
    since they were taken."""
    rows = [list(cameras.values()) for cameras in scenes]
    content = [
        [np.concatenate([v.rgb.reshape(-1, 3) / np.float32(255), v.depth.reshape(-1, 1)], axis=1) for v in row]
        for row in rows
    ]
    poses = [[np.linalg.inv(T @ v.T_world_camera) for v in row] for row, T in zip(rows, motion, strict=True)]
    return Pictures(
        content=torch.from_numpy(np.array(content, np.float32)),
        size=(rows[0][0].depth.shape[0], rows[0][0].depth.shape[1]),
        intrinsics=torch.from_numpy(np.array([[v.intrinsics for v in row] for row in rows], np.float32)),
        T_camera_world=torch.from_numpy(np.array(poses, np.float32)),
    )
