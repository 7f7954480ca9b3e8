"""How volumes lie in memory: on a GPU with the channels of a cell side by side, which its matrix units read as they are
(a layout of channel after channel is turned around for every convolution); on a CPU as they come."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def layout_for(tensor: Tensor) -> torch.memory_format:
    """Of new volumes on a tensor's device."""
    return torch.channels_last_3d if tensor.is_cuda else torch.contiguous_format


def laid_out(volume: Tensor) -> Tensor:
    """A volume [B, C, X, Y, Z] as its device likes it."""
    return volume.contiguous(memory_format=torch.channels_last_3d) if volume.is_cuda else volume


def with_borders(
    volumes: Sequence[Tensor], reach: int, dtype: torch.dtype, layout: torch.memory_format = torch.contiguous_format
) -> Tensor:
    """[B, in, X + 2 reach, …] volumes side by side within replicated borders, copied once. (PyTorch's own padding has
    no gradient on a GPU that is both fast and the same every time.)"""
    batch, _, *shape = volumes[0].shape
    wide = (batch, sum(volume.shape[1] for volume in volumes), *(n + 2 * reach for n in shape))
    found = torch.empty(wide, dtype=dtype, device=volumes[0].device, memory_format=layout)
    inner, first = found[:, :, reach:-reach, reach:-reach, reach:-reach], 0
    for volume in volumes:
        inner[:, first : first + volume.shape[1]].copy_(volume)
        first += volume.shape[1]
    for axis in (4, 3, 2):  # what is copied of borders that are not there yet is overwritten by those of the next axis
        n = found.shape[axis]
        found.narrow(axis, 0, reach).copy_(found.narrow(axis, reach, 1))
        found.narrow(axis, n - reach, reach).copy_(found.narrow(axis, n - reach - 1, 1))
    return found


def without_borders(gradient: Tensor, reach: int) -> Tensor:
    """The gradient of what lies within borders, from that of all, which is overwritten; a part of it."""
    for axis in (2, 3, 4):
        n = gradient.shape[axis]
        for outer, inner in ((0, reach), (n - reach, n - reach - 1)):
            gradient.narrow(axis, inner, 1).add_(gradient.narrow(axis, outer, reach).sum(dim=axis, keepdim=True))
    return gradient[:, :, reach:-reach, reach:-reach, reach:-reach]
