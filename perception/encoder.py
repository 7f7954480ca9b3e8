"""3D encoders: from a voxel grid to one deep volume of the same resolution.

`UNet` is GNFactor's encoder (a 3D U-Net with added skips), for any grid size, optionally modulated by a context vector
(FiLM, Perez et al. 2018) so that an instruction can decide early which colours and shapes matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perception.layout import laid_out


class Block(nn.Module):
    """Convolution, group norm, optional FiLM, activation: [B, in, X, Y, Z] → [B, out, X/s, Y/s, Z/s] (rounded up)."""

    def __init__(self, channels_in: int, channels_out: int, context: int = 0, stride: int = 1) -> None:
        super().__init__()
        self.convolution = nn.Conv3d(channels_in, channels_out, 3, stride, 1)
        self.norm = nn.GroupNorm(8 if channels_out % 8 == 0 else 1, channels_out)
        self.film = nn.Linear(context, 2 * channels_out) if context else None
        if self.film is not None:  # starts close to the identity: the context fades in
            nn.init.zeros_(self.film.bias)
            self.film.weight.data.mul_(0.3)

    def forward(self, volume: Tensor, context: Tensor | None = None) -> Tensor:
        volume = self.norm(self.convolution(volume))
        if self.film is not None:
            scale, shift = self.film(context).to(volume.dtype)[:, :, None, None, None].chunk(2, dim=1)
            volume = volume * (1 + scale) + shift
        return F.relu(volume)


class UNet(nn.Module):
    """3D U-Net: [B, in, X, Y, Z] → [B, out, X, Y, Z].

    Args:
        channels_in: channels of the grid. channels_out: channels of the deep volume.
        widths: channels per level; every level after the first halves the resolution (rounded up, so that any size
            goes: the published encoder takes only sizes ≡ 4 mod 8). None: each cell by itself, as in PerAct.
        context: length of the FiLM context, 0 for none.
        skips: add the encoder's levels to the decoder's (GNFactor's ablation "no skip connection" turns it off).
    """

    def __init__(
        self, channels_in: int, channels_out: int, widths: Sequence[int], context: int = 0, skips: bool = True
    ) -> None:
        super().__init__()
        self.skips = skips
        self.entry: nn.Module
        if not widths:
            self.entry = nn.Sequential(nn.Conv3d(channels_in, channels_out, 1), nn.ReLU())
            return
        self.entry = Block(channels_in, widths[0], context)
        pairs = list(pairwise(widths))
        self.down = nn.ModuleList(Block(a, b, context, stride=2) for a, b in pairs)
        self.deep = nn.ModuleList(Block(b, b, context) for _, b in pairs)
        self.up = nn.ModuleList(nn.Conv3d(b, a, 1) for a, b in reversed(pairs))
        self.merge = nn.ModuleList(Block(a, a, context) for a, _ in reversed(pairs))
        self.exit = nn.Conv3d(widths[0], channels_out, 1) if channels_out != widths[0] else nn.Identity()

    def forward(self, volume: Tensor, context: Tensor | None = None) -> Tensor:
        if isinstance(self.entry, nn.Sequential):
            return self.entry(laid_out(volume))  # type: ignore[no-any-return]
        volume = self.entry(volume, context)
        levels = [volume]
        for down, deep in zip(self.down, self.deep, strict=True):
            levels.append(deep(down(levels[-1], context), context))
        volume = levels.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            skip = levels.pop()
            volume = F.interpolate(up(volume), size=skip.shape[2:], mode="trilinear", align_corners=False)
            volume = merge(volume + skip if self.skips else volume, context)
        return self.exit(laid_out(volume))


class PointEncoder(nn.Module):
    """A small network on each point before the points of a cell are averaged, as in VoxelNet's feature encoding.

    A coarse cell then keeps what its points look like instead of their mean colour.

    Args:
        features: channels per point. channels: output channels. context: length of the FiLM context, 0 for none.
        matches: how many of the output channels are products of a colour embedding and a context embedding: "is this
            point of the colour that the words ask for" is then one step away from the input.
    """

    MATCH_WIDTH = 16

    def __init__(self, features: int, channels: int, context: int = 0, matches: int = 0) -> None:
        super().__init__()
        self.matches = matches
        self.first = nn.Linear(features, 32)
        self.film = nn.Linear(context, 64) if context else None
        self.second = nn.Linear(32, channels - matches)
        if matches:
            self.colour = nn.Sequential(nn.Linear(3, 32), nn.ReLU(), nn.Linear(32, self.MATCH_WIDTH * matches))
            self.word = nn.Linear(context, self.MATCH_WIDTH * matches)

    def forward(self, features: Tensor, colours: Tensor, batch_index: Tensor, context: Tensor | None) -> Tensor:
        """[M, features], colours [M, 3] in [-1, 1], context [B, context] → [M, channels] float32."""
        hidden = self.first(features)
        if self.film is not None and context is not None:
            scale, shift = self.film(context).chunk(2, dim=1)
            hidden = hidden * (1 + scale.index_select(0, batch_index)) + shift.index_select(0, batch_index)
        out = F.relu(self.second(F.relu(hidden))).float()
        if self.matches and context is not None:
            shape = (-1, self.matches, self.MATCH_WIDTH)
            asked = self.word(context).view(shape).index_select(0, batch_index)
            match = (self.colour(colours).view(shape) * asked).sum(dim=2).float() / self.MATCH_WIDTH**0.5
            out = torch.cat([out, match], dim=1)
        return out
