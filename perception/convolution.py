"""Convolution with 3³ taps of one or several volumes side by side, borders replicated.

In float32 on a CPU, four cells along x share products (Winograd's F(4, 3): Lavin & Gray 2016, section 4.1): half the
arithmetic, the same function up to rounding; neither the volumes side by side nor their borders are made as a whole.
In bfloat16 and on a GPU, whose matrix units have the arithmetic for nothing, they are, in one copy.
For a single output it comes first what the taps make of all cells, and then the sum over neighbours.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perception.layout import layout_for, with_borders, without_borders
from perception.products import READ, SUMS, Products, working_dtype, worth_sharing


class Convolution(nn.Conv3d):
    """[B, in, X, Y, Z] → [B, out, X, Y, Z]; given several volumes, `in` counts the channels of all."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, 3, padding=1, padding_mode="replicate")

    def forward(self, *volumes: Tensor) -> Tensor:
        if self.out_channels == 1:
            return self._one(_joined(volumes))
        if not worth_sharing(self.weight.device, working_dtype(self.weight)):
            return self.plain(*volumes)
        assert self.bias is not None
        with torch.autocast(self.weight.device.type, enabled=False):
            found: Tensor = _InSlabs.apply(self.weight, self.bias, *(volume.float() for volume in volumes))
        return found

    def plain(self, *volumes: Tensor) -> Tensor:
        """The same by the library's convolution."""
        arguments = (working_dtype(self.weight), layout_for(self.weight))
        return F.conv3d(_WithBorders.apply(*arguments, *volumes), self.weight, self.bias)

    def _one(self, volume: Tensor) -> Tensor:
        """What every tap makes of every cell, by one product of matrices, and then the sum over neighbours."""
        taps = (self.weight[0].flatten(1).T @ volume.flatten(2)).unflatten(2, volume.shape[2:])
        found: Tensor = _Neighbours.apply(_WithBorders.apply(taps.dtype, torch.contiguous_format, taps))
        return found if self.bias is None else found + self.bias


def _joined(volumes: tuple[Tensor, ...]) -> Tensor:
    return volumes[0] if len(volumes) == 1 else torch.cat(volumes, dim=1)  # which would copy a single one


class _WithBorders(torch.autograd.Function):
    """Volumes side by side within replicated borders of one cell."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, layout: torch.memory_format, *volumes: Tensor) -> Tensor:
        ctx.kinds = [(volume.shape[1], volume.dtype) for volume in volumes]
        return with_borders(volumes, 1, dtype, layout)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        # Nobody else has this gradient: what has borders goes into one convolution, or one sum.
        parts = without_borders(gradients[0], 1).split([channels for channels, _ in ctx.kinds], dim=1)
        return None, None, *(part.to(dtype) for part, (_, dtype) in zip(parts, ctx.kinds, strict=True))


class _Neighbours(torch.autograd.Function):
    """[B, 27, X + 2, Y + 2, Z + 2] → [B, 1, X, Y, Z]: the sum of what each cell's neighbours say for their place."""

    @staticmethod
    def forward(ctx: Any, taps: Tensor) -> Tensor:
        ctx.shape = taps.shape
        parts = _shifted(taps)
        total = parts[0].clone()
        for part in parts[1:]:
            total += part
        return total[:, None]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        by_taps = gradients[0].new_zeros(ctx.shape)
        for part in _shifted(by_taps):
            part.copy_(gradients[0][:, 0])
        return by_taps


def _shifted(taps: Tensor) -> list[Tensor]:
    """Views [B, X, Y, Z] of taps [B, 27, X + 2, Y + 2, Z + 2]: of each the cells that it speaks to."""
    x, y, z = (n - 2 for n in taps.shape[2:])
    places = itertools.product(range(3), repeat=3)
    return [taps[:, n, i : i + x, j : j + y, k : k + z] for n, (i, j, k) in enumerate(places)]


class _InSlabs(torch.autograd.Function):
    """Four slices along x at a time, in buffers that are used again: fresh memory costs more than the sums."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias: Tensor, *volumes: Tensor) -> Tensor:
        ctx.save_for_backward(weight, *volumes)
        batch, _, count, y, z = volumes[0].shape
        products = Products(weight)
        found = weight.new_empty(batch, len(weight), count, y, z)
        slab = weight.new_empty(READ, batch, weight.shape[1], y + 2, z + 2)
        for start in range(0, count, SUMS):
            some = found[:, :, start : start + SUMS].permute(2, 0, 1, 3, 4)
            torch.add(products.sums(_fill(slab, volumes, start))[: len(some)], bias[:, None, None], out=some)
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        weight, *volumes = ctx.saved_tensors
        batch, _, count, y, z = volumes[0].shape
        products, wanted, by_volumes = Products(weight), gradients[0], [torch.zeros_like(v) for v in volumes]
        slab = weight.new_empty(READ, batch, weight.shape[1], y + 2, z + 2)
        by_sums = weight.new_empty(SUMS, batch, len(weight), y, z)
        for start in range(0, count, SUMS):
            some = wanted[:, :, start : start + SUMS].permute(2, 0, 1, 3, 4)
            by_sums[: len(some)], by_sums[len(some) :] = some, 0.0
            _give_back(products.gradient(_fill(slab, volumes, start), by_sums), by_volumes, start)
        return products.by_weight(), wanted.sum(dim=(0, 2, 3, 4)), *by_volumes


def _shares(slab: Tensor, volumes: Sequence[Tensor], start: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The inner parts of a slab [6, B, in, Y + 2, Z + 2], each with the slice of a volume that sums from `start` on
    read there."""
    for number in range(READ):
        first, x = 0, min(max(start - 1 + number, 0), volumes[0].shape[2] - 1)
        for volume in volumes:
            yield slab[number, :, first : first + volume.shape[1], 1:-1, 1:-1], volume[:, :, x]
            first += volume.shape[1]


def _fill(slab: Tensor, volumes: Sequence[Tensor], start: int) -> Tensor:
    """Copy what sums from `start` on read into a slab; returns it."""
    for inner, piece in _shares(slab, volumes, start):
        inner.copy_(piece)
    slab[..., 0, 1:-1], slab[..., -1, 1:-1] = slab[..., 1, 1:-1], slab[..., -2, 1:-1]
    slab[..., 0], slab[..., -1] = slab[..., 1], slab[..., -2]
    return slab


def _give_back(slab: Tensor, volumes: Sequence[Tensor], start: int) -> None:
    """Add a slab's gradient to those of the volumes that it was filled from."""
    slab[..., 1] += slab[..., 0]
    slab[..., -2] += slab[..., -1]
    slab[..., 1, :] += slab[..., 0, :]
    slab[..., -2, :] += slab[..., -1, :]
    for inner, piece in _shares(slab, volumes, start):
        piece += inner
