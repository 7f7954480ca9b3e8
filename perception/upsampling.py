"""Convolution of a trilinear upsampling that is never made.

PerAct's decoder enlarges a 20³ volume to 100³ and convolves that with 5³ taps: 4.1 TFLOP at 128 channels. Both are
linear, so that every fine cell is a small convolution of the coarse volume, with a kernel of its own for each of the 5³
places that it can have within its coarse cell: at most 3³ taps, 0.6 TFLOP in all. Replicated coarse borders make the
fine borders come out as replicated ones, exactly.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perception.layout import layout_for, with_borders, without_borders
from perception.products import convolve, convolve_backward, working_dtype, worth_sharing

Slices = tuple[slice, slice, slice]
Groups = list[tuple[Slices, Slices]]
"""Places along x, y and z within a coarse cell, and the taps (of those around it) that they read."""


class UpsampledConvolution(nn.Module):
    """Upsample by `scale` (trilinear, half-pixel centres), then convolve (stride 1, borders replicated):
    [B, in, X, Y, Z] → [B, out, X · scale, Y · scale, Z · scale].

    Args:
        kernel: taps along an axis, odd.
    """

    def __init__(self, channels_in: int, channels_out: int, kernel: int, scale: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels_out, channels_in, kernel, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(channels_out))
        nn.init.kaiming_uniform_(self.weight, nonlinearity="relu")
        taps = fine_to_coarse(kernel, scale)
        self.groups = _groups(taps)
        self.register_buffer("taps", taps.float(), persistent=False)

    taps: Tensor

    def forward(self, volume: Tensor) -> Tensor:
        dtype = working_dtype(self.weight)
        with torch.autocast(volume.device.type, enabled=False):
            arguments = (volume, self.weight, self.bias, self.taps)
            fine: Tensor = _Function.apply(self.groups, *(argument.to(dtype) for argument in arguments))
        return fine


def fine_to_coarse(kernel: int, scale: int) -> Tensor:
    """[scale, kernel, 2 P + 1] by which a tap of a fine cell, at one of `scale` places in its coarse cell, reads the
    coarse cells from P before to P behind."""
    half = kernel // 2
    fine = torch.arange(scale, dtype=torch.float64)[:, None] + torch.arange(-half, half + 1)
    place = (fine + 0.5) / scale - 0.5  # in coarse cells
    reach = int(place.abs().max().ceil())
    return (1 - (place[..., None] - torch.arange(-reach, reach + 1)).abs()).clamp(min=0)


class _Function(torch.autograd.Function):
    """One convolution for each of the groups along x, y and z, each writing its part of the result."""

    @staticmethod
    def forward(ctx: Any, groups: Groups, volume: Tensor, weight: Tensor, bias: Tensor, taps: Tensor) -> Tensor:
        ctx.save_for_backward(volume, weight, taps)
        ctx.groups = groups
        scale, (batch, _, *shape), out = len(taps), volume.shape, len(weight)
        layout, size = layout_for(volume), (batch, out, *(n * scale for n in shape))
        padded = with_borders([volume], taps.shape[2] // 2, volume.dtype, layout)
        result = torch.empty(size, dtype=volume.dtype, device=volume.device, memory_format=layout)
        fine = result.view(batch, out, shape[0], scale, shape[1], scale, shape[2], scale)
        for places, reads in groups:
            kernel = _coarse_kernel(weight, taps, places, reads)
            window, weights = padded[_window(reads, shape)], kernel.flatten(0, 3)
            found = convolve(window, weights) if _shares(weights) else F.conv3d(window, weights)
            found = found.view(batch, *kernel.shape[:3], out, *shape).permute(0, 4, 5, 1, 6, 2, 7, 3)
            part = fine[:, :, :, places[0], :, places[1], :, places[2]]
            torch.add(found, bias.view(-1, *[1] * 6), out=part)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor, Tensor, Tensor, None]:
        volume, weight, taps = ctx.saved_tensors
        scale, (batch, _, *shape), out = len(taps), volume.shape, len(weight)
        reach, layout = taps.shape[2] // 2, layout_for(volume)
        padded = with_borders([volume], reach, volume.dtype, layout)
        wide = torch.promote_types(weight.dtype, torch.float32)
        into, by_weight = torch.zeros_like(padded), torch.zeros_like(weight, dtype=wide)
        fine = gradients[0].reshape(batch, out, shape[0], scale, shape[1], scale, shape[2], scale)
        for places, reads in ctx.groups:
            kernel, window = _coarse_kernel(weight, taps, places, reads), _window(reads, shape)
            part, weights = fine[:, :, :, places[0], :, places[1], :, places[2]], kernel.flatten(0, 3)
            wanted = _gathered(part, layout)
            if _shares(weights):
                by_window, by_kernel = convolve_backward(padded[window], weights, wanted)
            else:
                by_window, by_kernel, _ = torch.ops.aten.convolution_backward(
                    wanted, padded[window], weights, None, [1] * 3, [0] * 3, [1] * 3, False, [0] * 3, 1,
                    [True, True, False],
                )  # fmt: skip
            into[window] += by_window
            by_weight += _fine_kernel(by_kernel.view(kernel.shape).to(wide), taps, places, reads)
        return None, without_borders(into, reach), by_weight.to(weight.dtype), gradients[0].sum(dim=(0, 2, 3, 4)), None


def _gathered(part: Tensor, layout: torch.memory_format) -> Tensor:
    """[B, places x · y · z · out, X, Y, Z] of [B, out, X, places x, Y, places y, Z, places z], copied once."""
    if layout == torch.channels_last_3d:
        return part.permute(0, 2, 4, 6, 3, 5, 7, 1).flatten(4).movedim(-1, 1)
    return part.permute(0, 3, 5, 7, 1, 2, 4, 6).flatten(1, 4)


def _shares(weights: Tensor) -> bool:
    """Whether products can be shared along x, and it pays."""
    return weights.shape[2] == 3 and worth_sharing(weights.device, weights.dtype)


def _groups(taps: Tensor) -> Groups:
    """Runs of places along x, y and z that read the same coarse cells, and these cells."""
    reads = [row.nonzero()[:, 0] for row in taps.sum(dim=1) > 0]
    spans = [(int(r[0]), int(r[-1]) + 1) for r in reads]
    axis, place = [], 0
    for span, same in itertools.groupby(spans):
        count = len(list(same))
        axis.append((slice(place, place + count), slice(*span)))
        place += count
    return [((x[0], y[0], z[0]), (x[1], y[1], z[1])) for x, y, z in itertools.product(axis, repeat=3)]


def _window(reads: Slices, shape: list[int]) -> tuple[Any, ...]:
    """The part of the padded volume that some places read."""
    return (..., *(slice(r.start, r.stop - 1 + n) for r, n in zip(reads, shape, strict=True)))


def _coarse_kernel(weight: Tensor, taps: Tensor, places: Slices, reads: Slices) -> Tensor:
    """[places x, y, z, out, in, taps x, y, z] kernels of some places on the coarse volume."""
    x, y, z = (taps[place, :, read] for place, read in zip(places, reads, strict=True))
    kernel = torch.einsum("oiabc,rax->roixbc", weight, x)  # axis by axis: far fewer products than all at once
    kernel = torch.einsum("roixbc,sby->rsoixyc", kernel, y)
    return torch.einsum("rsoixyc,tcz->rstoixyz", kernel, z)


def _fine_kernel(by_kernel: Tensor, taps: Tensor, places: Slices, reads: Slices) -> Tensor:
    """[out, in, k, k, k] the gradient of the fine kernel from that of some places' kernels."""
    x, y, z = (taps[place, :, read].to(by_kernel.dtype) for place, read in zip(places, reads, strict=True))
    by = torch.einsum("rstoixyz,tcz->rsoixyc", by_kernel, z)
    by = torch.einsum("rsoixyc,sby->roixbc", by, y)
    return torch.einsum("roixbc,rax->oiabc", by, x)
