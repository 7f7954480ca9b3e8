"""From the deep volume and what the Perceiver read back to Q-values for translation, and to features for the heads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perception.convolution import Convolution
from perception.encoder import Block
from perception.upsampling import UpsampledConvolution

TEMPERATURE = 0.01
"""Of the spatial softmax, as published."""


class LightDecoder(nn.Module):
    """The Perceiver's answer enlarged and added to the volume; one convolution, and one value per cell.

    Args:
        channels: of the volume. read, latents: channels of the Perceiver's answer and of its latents, 0 without one.
        context: length of the FiLM context, 0 for none. patch: cells along the edge of a token.
    """

    def __init__(self, channels: int, read: int, latents: int, context: int, patch: int) -> None:
        super().__init__()
        self.patch, self.pooled = patch, 2 * channels + latents
        if read:
            self.up = nn.Conv3d(read, channels, 1)
        self.merge = Block(channels, channels, context)
        self.q = nn.Conv3d(channels, 1, 1)

    def forward(
        self, volume: Tensor, read: Tensor | None, latents: Tensor | None, context: Tensor | None
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Q logits [B, 1, X, Y, Z], the features [B, C, X, Y, Z] they come from, and pooled ones [B, …]."""
        merged, pooled = volume, []
        if read is not None and latents is not None:
            fine = F.interpolate(self.up(read), scale_factor=self.patch, mode="trilinear", align_corners=False)
            x, y, z = volume.shape[2:]
            merged = volume + fine[:, :, :x, :y, :z]
            pooled.append(latents.mean(dim=1))
        features = self.merge(merged, context)
        pooled += [features.amax(dim=(2, 3, 4)), volume.mean(dim=(2, 3, 4))]
        return self.q(features), features, pooled


class PublishedDecoder(nn.Module):
    """PerAct's: convolution, upsampling, convolution; beside the volume through a third; Q from a fourth. The heads get
    spatial softmax and maximum of the volume, of what the Perceiver read, and of the last features.

    Args:
        channels: of the volume. read: channels of the Perceiver's answer. patch: cells along the edge of a token.
    """

    def __init__(self, channels: int, read: int, patch: int) -> None:
        super().__init__()
        self.pooled = 4 * (channels + read + channels)
        self.first = nn.Conv3d(read, channels, 5, padding=2, padding_mode="replicate")
        self.second = UpsampledConvolution(channels, channels, 5, patch)
        self.final = Convolution(2 * channels, channels)
        self.q = Convolution(channels, 1)

    def forward(
        self, volume: Tensor, read: Tensor | None, latents: Tensor | None, context: Tensor | None
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """As `LightDecoder`."""
        assert read is not None
        x, y, z = volume.shape[2:]
        fine = F.relu(self.second(F.relu(self.first(read))), inplace=True)[:, :, :x, :y, :z]
        features = F.relu(self.final(volume, fine), inplace=True)
        pooled = [x for v in (volume, read, features) for x in place_and_peak(v)]
        return self.q(features), features, pooled


def place_and_peak(volume: Tensor) -> tuple[Tensor, Tensor]:
    """Of each channel of [B, C, X, Y, Z]: [B, 3 C] where it has its mass, the mean place, -1 to 1 along x, y and z,
    under a softmax over cells (Levine et al. 2016; PerAct's temperature), and [B, C] its maximum."""
    with torch.autocast(volume.device.type, enabled=False):  # a place has more digits than bfloat16
        place, peak = _PlaceAndPeak.apply(volume)
    return place, peak


class _PlaceAndPeak(torch.autograd.Function):
    """A few channels at a time, so that no softmax of the whole volume is kept (512 MB of 100³ cells and 128 channels):
    one on a CPU, as many on a GPU as give it something to do."""

    @staticmethod
    def forward(ctx: Any, volume: Tensor) -> tuple[Tensor, Tensor]:
        rows, places = volume.flatten(2), _places(volume)
        peaks, at = rows.max(dim=2)
        mass = places.new_empty(_at_once(volume), rows.shape[2])
        sums = torch.stack(
            [
                torch.cat([_mass(mass, some, peak) @ places for some, peak in _some(len(mass), row, peaks[number])])
                for number, row in enumerate(rows)
            ]
        )
        mean = sums[..., :3] / sums[..., 3:]
        ctx.save_for_backward(volume, peaks, at, mean, sums[..., 3])
        return mean.flatten(1), peaks

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        volume, peaks, at, mean, totals = ctx.saved_tensors
        rows, places = volume.flatten(2), _places(volume)
        by_volume = torch.empty_like(volume)
        by_rows, mass = by_volume.flatten(2), places.new_empty(_at_once(volume), rows.shape[2])
        share = gradients[0].reshape(mean.shape) / (totals[..., None] * TEMPERATURE)
        by = torch.cat([share, -(share * mean).sum(dim=2, keepdim=True)], dim=2)
        for number, row in enumerate(rows):
            parts = _some(len(mass), row, peaks[number], by[number], by_rows[number])
            for some, peak, by_some, into in parts:
                into.copy_(_mass(mass, some, peak).mul_(by_some @ places.T))
        sample, channel = (torch.arange(n, device=rows.device) for n in rows.shape[:2])
        by_rows[sample[:, None], channel, at] += gradients[1].to(rows.dtype)
        return by_volume


def _at_once(volume: Tensor) -> int:
    """Channels."""
    return 64 if volume.is_cuda else 1


def _some(count: int, *rows: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """So many rows at a time of each."""
    return zip(*(row.split(count) for row in rows), strict=True)


def _mass(into: Tensor, rows: Tensor, peaks: Tensor) -> Tensor:
    """The softmax of rows, but for the sums. (Where it is as good as 0 it must not become a subnormal number: slow.)"""
    into = into[: len(rows)]
    highest = peaks[:, None].float() / -TEMPERATURE
    return torch.add(highest, rows, alpha=1 / TEMPERATURE, out=into).clamp_(min=-80.0).exp_()


def _places(volume: Tensor) -> Tensor:
    """[X * Y * Z, 4] where the cells lie, and 1."""
    axes = [torch.linspace(-1, 1, n, device=volume.device) for n in volume.shape[2:]]
    x, y, z = torch.meshgrid(*axes, indexing="ij")
    return torch.stack([x, y, z, torch.ones_like(x)], dim=-1).view(-1, 4)
