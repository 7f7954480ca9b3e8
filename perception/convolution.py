"""Convolution with 3³ taps of one or several volumes side by side, borders replicated.

In float32 on a CPU, four cells along x share products (Winograd's F(4, 3): Lavin & Gray 2016, section 4.1): half the
arithmetic, the same function up to rounding; neither the volumes side by side nor their borders are made as a whole.
For a single output it comes first what the taps make of all cells, and then the sum over neighbours.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Lavin & Gray, F(4, 3): six values along x → six products → four sums.
INTO = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
TAPS = ((6, 0, 0), (-4, -4, -4), (-4, 4, -4), (1, 2, 4), (1, -2, 4), (0, 0, 24))
OUT = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))
SUMS = len(OUT)
Matrix = Sequence[Sequence[int]]


class Convolution(nn.Conv3d):
    """[B, in, X, Y, Z] → [B, out, X, Y, Z]; given several volumes, `in` counts the channels of all."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, 3, padding=1, padding_mode="replicate")

    def forward(self, *volumes: Tensor) -> Tensor:
        if self.out_channels == 1:
            return self._one(torch.cat(volumes, dim=1))
        kind = volumes[0].device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else self.weight.dtype
        if kind != "cpu" or dtype != torch.float32:
            return super().forward(torch.cat(volumes, dim=1))
        assert self.bias is not None
        with torch.autocast(kind, enabled=False):
            found: Tensor = _Winograd.apply(self.weight, self.bias, *(volume.float() for volume in volumes))
        return found

    def _one(self, volume: Tensor) -> Tensor:
        """What every tap makes of every cell, by one product of matrices, and then the sum over neighbours."""
        taps = (self.weight[0].flatten(1).T @ volume.flatten(2)).unflatten(2, volume.shape[2:])
        found: Tensor = _Neighbours.apply(F.pad(taps, [1] * 6, mode="replicate"))
        return found if self.bias is None else found + self.bias


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


class _Winograd(torch.autograd.Function):
    """Four slices along x at a time, in buffers that are used again: fresh memory costs more than the sums."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias: Tensor, *volumes: Tensor) -> Tensor:
        ctx.save_for_backward(weight, *volumes)
        batch, _, count, y, z = volumes[0].shape
        out, kernels = len(weight), _kernels(weight)
        found = weight.new_empty(batch, out, count, y, z)
        slab = weight.new_empty(len(INTO), batch, weight.shape[1], y + 2, z + 2)
        values, products = torch.empty_like(slab), weight.new_empty(len(INTO), batch, out, y, z)
        sums = weight.new_empty(SUMS, batch, out, y, z)
        for start in range(0, count, SUMS):
            _mix(INTO, _fill(slab, volumes, start), values)
            for product, value, kernel in zip(products, values, kernels, strict=True):
                product.copy_(F.conv2d(value, kernel))
            some = found[:, :, start : start + SUMS].permute(2, 0, 1, 3, 4)
            torch.add(_mix(OUT, products, sums)[: len(some)], bias[:, None, None], out=some)
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        weight, *volumes = ctx.saved_tensors
        batch, _, count, y, z = volumes[0].shape
        out, kernels, wanted = len(weight), _kernels(weight), gradients[0]
        by_kernels, by_volumes = torch.zeros_like(kernels), [torch.zeros_like(v) for v in volumes]
        slab = weight.new_empty(len(INTO), batch, weight.shape[1], y + 2, z + 2)
        values = torch.empty_like(slab)
        by_sums, by_products = weight.new_empty(SUMS, batch, out, y, z), weight.new_empty(len(INTO), batch, out, y, z)
        for start in range(0, count, SUMS):
            _mix(INTO, _fill(slab, volumes, start), values)
            some = wanted[:, :, start : start + SUMS].permute(2, 0, 1, 3, 4)
            by_sums[: len(some)], by_sums[len(some) :] = some, 0.0
            _mix(_turned(OUT), by_sums, by_products)
            for by_product, value, kernel, by_kernel in zip(by_products, values, kernels, by_kernels, strict=True):
                by_value, more, _ = torch.ops.aten.convolution_backward(
                    by_product, value, kernel, None,
                    [1] * 2, [0] * 2, [1] * 2, False, [0] * 2, 1, [True, True, False],
                )  # fmt: skip
                value.copy_(by_value)
                by_kernel += more
            _give_back(_mix(_turned(INTO), values, slab), by_volumes, start)
        by_weight = torch.einsum("koiyz,kx->oixyz", by_kernels, weight.new_tensor(TAPS) / 24)
        return by_weight, wanted.sum(dim=(0, 2, 3, 4)), *by_volumes


def _kernels(weight: Tensor) -> Tensor:
    """[6, out, in, 3, 3]."""
    return torch.einsum("oixyz,kx->koiyz", weight, weight.new_tensor(TAPS) / 24).contiguous()


def _turned(matrix: Matrix) -> Matrix:
    return tuple(zip(*matrix, strict=True))


def _mix(by: Matrix, slices: Tensor, into: Tensor) -> Tensor:
    """Sums [M, …] of slices [N, …] by a matrix [M, N]; returns `into`."""
    torch.mm(slices.new_tensor(by), slices.flatten(1), out=into.flatten(1))
    return into


def _rows(start: int, count: int) -> list[int]:
    """The slices of x that sums from `start` on read."""
    return [min(max(x, 0), count - 1) for x in range(start - 1, start - 1 + len(INTO))]


def _fill(slab: Tensor, volumes: tuple[Tensor, ...] | list[Tensor], start: int) -> Tensor:
    """Copy what sums from `start` on read into a slab [6, B, in, Y + 2, Z + 2]; returns it."""
    for number, x in enumerate(_rows(start, volumes[0].shape[2])):
        first = 0
        for volume in volumes:
            slab[number, :, first : first + volume.shape[1], 1:-1, 1:-1] = volume[:, :, x]
            first += volume.shape[1]
    slab[..., 0, 1:-1], slab[..., -1, 1:-1] = slab[..., 1, 1:-1], slab[..., -2, 1:-1]
    slab[..., 0], slab[..., -1] = slab[..., 1], slab[..., -2]
    return slab


def _give_back(slab: Tensor, volumes: list[Tensor], start: int) -> None:
    """Add a slab's gradient to those of the volumes that it was filled from."""
    slab[..., 1] += slab[..., 0]
    slab[..., -2] += slab[..., -1]
    slab[..., 1, :] += slab[..., 0, :]
    slab[..., -2, :] += slab[..., -1, :]
    for number, x in enumerate(_rows(start, volumes[0].shape[2])):
        first = 0
        for volume in volumes:
            volume[:, :, x] += slab[number, :, first : first + volume.shape[1], 1:-1, 1:-1]
            first += volume.shape[1]
