"""One look at the scene: grid → encoder → Perceiver → Q-values over the grid's cells."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from agents.config import StageConfig
from agents.decoders import LightDecoder, PublishedDecoder
from agents.tensors import Batch
from agents.tokens import TokenMixer
from perception.encoder import PointEncoder, UNet
from perception.named_colours import likeness
from perception.voxels import GRID_CHANNELS, cell_centres, cell_index, peract_grid, scatter_mean

POINT_FEATURES = 10
"""Per point: rgb, offset in its cell, height in the box, position relative to the tool."""
LEAST = 1024
"""When acting, points are looked at in multiples of so many, or more."""
PLACE_CHANNELS = 5
"""Per cell beside point features: occupancy, nearness of the tool, position in the box."""


class Stage(nn.Module):
    """Grid → encoder → Perceiver → Q over the grid's cells, for boxes given per sample."""

    def __init__(self, config: StageConfig, words: int, proprioception: int, context: int) -> None:
        super().__init__()
        self.config = config
        c = config
        if c.points:
            self.point_encoder = PointEncoder(POINT_FEATURES, c.points, context, c.matches)
        channels = c.points + c.named + PLACE_CHANNELS if c.points else GRID_CHANNELS
        self.encoder = UNet(channels, c.channels, c.widths, context, c.skips)
        published, self.mixer = c.decoder == "published", None
        read = latents = 0
        if c.perceiver is not None:
            read, latents = c.perceiver.tokens, c.perceiver.latent_dim
            self.mixer = TokenMixer(c.perceiver, c.channels, c.shape, c.patch, words, proprioception, published)
        self.decoder: LightDecoder | PublishedDecoder
        if published:
            self.decoder = PublishedDecoder(c.channels, read, c.patch)
        else:
            self.decoder = LightDecoder(c.channels, read, latents, context, c.patch)
        self.pooled = self.decoder.pooled

    def grid(
        self, batch: Batch, low: Tensor, high: Tensor, context: Tensor | None, box: tuple[Tensor, Tensor]
    ) -> Tensor:
        """[B, C, X, Y, Z] voxel grid of the boxes [low, high]; `box` is the whole box, for absolute positions."""
        c = self.config
        if not c.points:
            return peract_grid(batch.points, (batch.colours + 1) * 127.5, batch.batch_index, low, high, c.shape)
        points, colours, owner = batch.points, batch.colours, batch.batch_index
        if not self.training:  # there is then enough outside to round up with
            nowhere = low.new_full((_portion(len(points)), 3), 1e3)
            points, colours = torch.cat([points, nowhere]), torch.cat([colours, torch.zeros_like(nowhere)])
            owner = torch.cat([owner, owner.new_zeros(len(nowhere))])
        index, inside = cell_index(points, owner, low, high, c.shape)
        chosen = inside if self.training else _rounded_up(inside)
        points, colours, owner = points[chosen], colours[chosen], owner[chosen]
        cell = (high - low) / torch.tensor(c.shape, device=low.device)
        offset = (points - low[owner]) / cell[owner] - index[chosen] - 0.5
        height = (points[:, 2:] - box[0][2]) / (box[1][2] - box[0][2]) * 2 - 1
        to_tool = (points - batch.tool_position[owner]) * 3
        features = torch.cat([colours, offset, height, to_tool], dim=1)
        written = self.point_encoder(features, colours, owner, context)
        if c.named:
            named = likeness((colours + 1) / 2, batch.named[owner, : c.named])
            written = torch.cat([written, named], dim=1)
        mean, count = scatter_mean(points, written, owner, low, high, c.shape)
        centres = cell_centres(low, high, c.shape)
        near = torch.exp(-((centres - batch.tool_position[:, :, None, None, None]) ** 2).sum(1, keepdim=True) / 0.005)
        middle = ((box[0] + box[1]) / 2)[None, :, None, None, None]
        return torch.cat([mean, (count > 0).to(mean.dtype), near, (centres - middle) * 2], dim=1)

    def forward(
        self, batch: Batch, low: Tensor, high: Tensor, context: Tensor | None, box: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Q logits [B, X, Y, Z], the features [B, C, X, Y, Z] they come from, pooled [B, `pooled`], and the deep volume
        [B, C, X, Y, Z] of the encoder."""
        volume = self.encoder(self.grid(batch, low, high, context, box), context)
        read, latents = (None, None) if self.mixer is None else self.mixer(volume, batch)
        q, features, pooled = self.decoder(volume, read, latents, context)
        return q[:, 0].float(), features, torch.cat([x.float() for x in pooled], dim=1), volume


def _rounded_up(inside: Tensor) -> Tensor:
    """[N] places of what is true in a mask [M], then of others, until they are a round number.

    On a CPU PyTorch keeps a plan for every number of points that it has met, a thousand of them: an agent that acts
    grew by a gigabyte. What lies outside is left out again where points are put into cells.
    """
    count = int(inside.sum())
    portion = _portion(count)
    return inside.int().argsort(descending=True, stable=True)[: -(-count // portion) * portion]


def _portion(count: int) -> int:
    """Numbers about this large are rounded up to a multiple of that: by an eighth at most, if there are many."""
    return max(LEAST, 1 << max(count.bit_length() - 4, 0))
