"""From the deep volume and what the Perceiver read back to Q-values for translation, and to features for the heads."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
        self.final = nn.Conv3d(2 * channels, channels, 3, padding=1, padding_mode="replicate")
        self.q = nn.Conv3d(channels, 1, 3, padding=1, padding_mode="replicate")

    def forward(
        self, volume: Tensor, read: Tensor | None, latents: Tensor | None, context: Tensor | None
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """As `LightDecoder`."""
        assert read is not None
        x, y, z = volume.shape[2:]
        fine = F.relu(self.second(F.relu(self.first(read))), inplace=True)[:, :, :x, :y, :z]
        features = F.relu(self.final(torch.cat([volume, fine], dim=1)), inplace=True)
        pooled = [f(v) for v in (volume, read, features) for f in (expected_place, lambda v: v.amax(dim=(2, 3, 4)))]
        return self.q(features), features, pooled


def expected_place(volume: Tensor) -> Tensor:
    """[B, 3 C] where each channel of [B, C, X, Y, Z] has its mass: the mean place, -1 to 1 along x, y and z, under a
    softmax over cells (Levine et al. 2016; PerAct's temperature)."""
    return _ExpectedPlace.apply(volume)  # type: ignore[no-any-return]


class _ExpectedPlace(torch.autograd.Function):
    """Channel by channel, so that no softmax of the whole volume is kept (512 MB of 100³ cells and 128 channels)."""

    @staticmethod
    def forward(ctx: Any, volume: Tensor) -> Tensor:
        places = _places(volume)
        mean = torch.stack([_softmax(channel) @ places for channel in volume.flatten(2).flatten(0, 1)])
        ctx.save_for_backward(volume, mean)
        return mean.view(len(volume), -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        volume, mean = ctx.saved_tensors
        places, rows = _places(volume), volume.flatten(2).flatten(0, 1)
        by_rows = torch.empty(rows.shape, dtype=rows.dtype, device=rows.device)
        for number, by in enumerate(gradients[0].reshape(-1, 3)):
            by_rows[number] = _softmax(rows[number]) * (places @ by - mean[number] @ by) / TEMPERATURE
        return by_rows.view(volume.shape)


def _softmax(channel: Tensor) -> Tensor:
    return (channel.float() / TEMPERATURE).softmax(dim=0)


def _places(volume: Tensor) -> Tensor:
    """[X * Y * Z, 3]."""
    axes = [torch.linspace(-1, 1, n, device=volume.device) for n in volume.shape[2:]]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).view(-1, 3)
