"""Reading a volume at many points, several times, for one gradient.

`grid_sample` gives every call a gradient as large as the volume (512 MB for 100³ cells of 128 channels) and writes it
channel by channel, cell by cell. Here the calls' gradients wait until the last has come; then the rows of the cells
that were read are summed up at once, and the others are 0.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from perception.voxels import sample_volume


class VolumeReader:
    """Trilinear features of a volume, as `perception.voxels.sample_volume` gives them.

    Args:
        volume: [B, C, X, Y, Z]. low, high: [B, 3] corners of the box that it fills, world metres.
    """

    def __init__(self, volume: Tensor, low: Tensor, high: Tensor) -> None:
        self.volume = volume
        channels_last = volume.is_contiguous(memory_format=torch.channels_last_3d)
        self._readings = _Readings(low, high, volume.shape, channels_last)
        self._handle: Tensor | None = None

    def at(self, points: Tensor) -> Tensor:
        """[B, N, C] features at world points [B, N, 3]; differentiable in the volume, not in the points."""
        if not (torch.is_grad_enabled() and self.volume.requires_grad):
            return self._readings.read(self.volume, points)
        if self._handle is None:
            self._handle = _Open.apply(self.volume, self._readings)
        return _Read.apply(self._handle, self.volume.detach(), points, self._readings)


class _Readings:
    """What was read where from a volume of a shape, and is still to be answered for. It must not know the handle, which
    would keep the volume in memory by a circle."""

    def __init__(self, low: Tensor, high: Tensor, shape: torch.Size, channels_last: bool) -> None:
        self.low, self.high, self.shape, self.channels_last = low, high, shape, channels_last
        self.waiting: list[tuple[Tensor, Tensor]] = []

    def read(self, volume: Tensor, points: Tensor) -> Tensor:
        """[B, N, C]."""
        return sample_volume(volume.detach(), points, self.low, self.high).transpose(1, 2)

    def gradient(self) -> Tensor:
        """[B, C, X, Y, Z] what the waiting gradients make together; none waits afterwards."""
        points = torch.cat([place for place, _ in self.waiting], dim=1)
        wanted = torch.cat([grad for _, grad in self.waiting], dim=1)
        self.waiting.clear()
        batch, channels, *shape = self.shape
        cells, weights = self._corners(points)
        owner = torch.arange(batch, device=points.device)[:, None, None] * (shape[0] * shape[1] * shape[2])
        # Sorted by cell: each cell's row is then the weighted sum of a run of rows.
        cells, order = (cells + owner).flatten().sort(stable=True)
        touched, counts = cells.unique_consecutive(return_counts=True)
        begins = counts.cumsum(0) - counts
        weights = weights.flatten()[order]
        rows = F.embedding_bag(order // 8, wanted.flatten(0, 1), begins, mode="sum", per_sample_weights=weights)
        if not self.channels_last:  # laid out as the volume is: turning a gradient of this size takes longer than this
            gradient = wanted.new_zeros(channels, batch * shape[0] * shape[1] * shape[2])
            gradient[:, touched] = rows.T
            gradient = gradient.view(channels, batch, *shape).transpose(0, 1)
            return gradient if batch == 1 else gradient.contiguous()
        gradient = wanted.new_zeros(batch * shape[0] * shape[1] * shape[2], channels)
        gradient[touched] = rows
        return gradient.view(batch, *shape, channels).permute(0, 4, 1, 2, 3)

    def _corners(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """[B, N, 8] numbers of the cells around points [B, N, 3], and their trilinear weights (0 outside)."""
        shape = torch.tensor(self.shape[2:], device=points.device)
        place = (points - self.low[:, None]) / (self.high - self.low)[:, None] * shape - 0.5
        first = place.floor()
        steps = torch.tensor([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)], device=points.device)
        corner = first.long()[:, :, None] + steps
        share = (place - first)[:, :, None]
        weights = torch.where(steps.bool(), share, 1 - share).prod(dim=-1)
        inside = ((corner >= 0) & (corner < shape)).all(dim=-1)
        x, y, z = torch.minimum(corner.clamp(min=0), shape - 1).unbind(-1)
        return (x * shape[1] + y) * shape[2] + z, weights * inside


class _Open(torch.autograd.Function):
    """From a volume to a handle that every reading hangs on: its backward pass runs once, after all of theirs."""

    @staticmethod
    def forward(ctx: Any, volume: Tensor, readings: _Readings) -> Tensor:
        ctx.readings = readings
        return volume.new_zeros(())

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor, None]:
        return ctx.readings.gradient(), None


class _Read(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, handle: Tensor, volume: Tensor, points: Tensor, readings: _Readings) -> Tensor:
        ctx.readings, ctx.points = readings, points
        return readings.read(volume, points)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        ctx.readings.waiting.append((ctx.points, gradients[0]))
        return gradients[0].new_zeros(()), None, None, None
