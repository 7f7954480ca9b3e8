"""Yaw from what lies around: the same small network looks from a position into every direction.

Turning the scene turns the answer with it, by construction. From a few demonstrations a head that must learn the
meaning of every direction on its own learns yaw badly (docs/learning.md has the numbers).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from perception.voxels import sample_volume

RADII = (1.0, 2.5, 4.0, 6.0)
"""Cells from the position, in every direction."""
HEIGHTS = (0.0, -2.5, -5.0)
"""Cells above the position: what a tool does to a thing is decided below it."""


class PolarHead(nn.Module):
    """Logits over yaw from the feature volumes of all stages.

    Args:
        channels: of each stage's features. context: length of the vector of words and proprioception.
        bins: directions; bin b is the yaw b · 360° / bins - 180°.
    """

    def __init__(self, channels: list[int], context: int, bins: int, width: int = 64) -> None:
        super().__init__()
        self.bins = bins
        self.look = nn.ModuleList(nn.Conv1d(c * len(RADII) * len(HEIGHTS), width, 1) for c in channels)
        self.context = nn.Linear(context, width) if context else None
        self.around = nn.Conv1d(width, width, 5, padding=2, padding_mode="circular")
        self.answer = nn.Sequential(nn.Conv1d(3 * width, width, 1), nn.ReLU(), nn.Conv1d(width, 1, 1))
        angle = torch.arange(bins) * 2 * math.pi / bins - math.pi
        radius, height = torch.meshgrid(torch.tensor(RADII), torch.tensor(HEIGHTS), indexing="ij")
        offsets = torch.stack(
            [
                angle.cos()[:, None] * radius.flatten(),
                angle.sin()[:, None] * radius.flatten(),
                height.flatten().expand(bins, -1),
            ],
            dim=-1,
        )
        self.register_buffer("offsets", offsets, persistent=False)

    offsets: Tensor

    def forward(
        self, features: list[Tensor], low: list[Tensor], high: list[Tensor], position: Tensor, context: Tensor | None
    ) -> Tensor:
        """Features [B, C, X, Y, Z] of each stage and their boxes [B, 3], position [B, 3] → logits [B, bins]."""
        hidden = torch.zeros((), device=position.device)
        for look, volume, bottom, top in zip(self.look, features, low, high, strict=True):
            cell = ((top - bottom) / torch.tensor(volume.shape[2:], device=position.device))[:, None, None]
            points = position[:, None, None] + self.offsets * cell
            seen = sample_volume(volume.float(), points.flatten(1, 2), bottom, top)  # [B, C, bins · R · H]
            seen = seen.unflatten(2, (self.bins, -1)).permute(0, 1, 3, 2).flatten(1, 2)
            hidden = hidden + look(seen)
        if self.context is not None:
            hidden = hidden + self.context(context)[:, :, None]
        hidden = torch.relu(hidden)
        near = torch.relu(self.around(hidden))
        behind = near.roll(self.bins // 2, dims=2)  # two fingers see both ways
        overall = near.mean(dim=2, keepdim=True).expand_as(near)
        return self.answer(torch.cat([near, behind, overall], dim=1))[:, 0]
