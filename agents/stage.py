"""One look at the scene: grid → encoder → Perceiver → Q-values over the grid's cells."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agents.config import StageConfig
from agents.perceiver import Perceiver
from agents.tensors import Batch
from perception.encoder import Block, PointEncoder, UNet
from perception.language import MAX_TOKENS
from perception.voxels import GRID_CHANNELS, cell_centres, cell_index, peract_grid, scatter_mean

POINT_FEATURES = 10
"""Per point: rgb, offset in its cell, height in the box, position relative to the tool."""
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
        channels = c.points + PLACE_CHANNELS if c.points else GRID_CHANNELS
        self.encoder = UNet(channels, c.channels, c.widths, context, c.skips)
        self.pooled = 2 * c.channels
        if c.perceiver is not None:
            p = c.perceiver
            self.tokens_shape = tuple(-(-n // c.patch) for n in c.shape)
            self.patchify = nn.Conv3d(c.channels, p.tokens // 2, c.patch, c.patch)
            self.state = nn.Linear(proprioception, p.tokens // 2)
            self.words = nn.Linear(words, p.tokens)
            count = MAX_TOKENS + self.tokens_shape[0] * self.tokens_shape[1] * self.tokens_shape[2]
            self.places = nn.Parameter(0.02 * torch.randn(count, p.tokens))
            self.perceiver = Perceiver(p.tokens, p.latents, p.latent_dim, p.depth, p.heads, p.head_dim, 1, p.dropout)
            self.up = nn.Conv3d(p.tokens, c.channels, 1)
            self.pooled += p.latent_dim
        self.merge = Block(c.channels, c.channels, context)
        self.q = nn.Conv3d(c.channels, 1, 1)

    def grid(
        self, batch: Batch, low: Tensor, high: Tensor, context: Tensor | None, box: tuple[Tensor, Tensor]
    ) -> Tensor:
        """[B, C, X, Y, Z] voxel grid of the boxes [low, high]; `box` is the whole box, for absolute positions."""
        c = self.config
        if not c.points:
            return peract_grid(batch.points, (batch.colours + 1) * 127.5, batch.batch_index, low, high, c.shape)
        index, inside = cell_index(batch.points, batch.batch_index, low, high, c.shape)
        points, colours, owner = batch.points[inside], batch.colours[inside], batch.batch_index[inside]
        cell = (high - low) / torch.tensor(c.shape, device=low.device)
        offset = (points - low[owner]) / cell[owner] - index[inside] - 0.5
        height = (points[:, 2:] - box[0][2]) / (box[1][2] - box[0][2]) * 2 - 1
        to_tool = (points - batch.tool_position[owner]) * 3
        features = torch.cat([colours, offset, height, to_tool], dim=1)
        mean, count = scatter_mean(
            points, self.point_encoder(features, colours, owner, context), owner, low, high, c.shape
        )
        centres = cell_centres(low, high, c.shape)
        near = torch.exp(-((centres - batch.tool_position[:, :, None, None, None]) ** 2).sum(1, keepdim=True) / 0.005)
        middle = ((box[0] + box[1]) / 2)[None, :, None, None, None]
        return torch.cat([mean, (count > 0).to(mean.dtype), near, (centres - middle) * 2], dim=1)

    def forward(
        self, batch: Batch, low: Tensor, high: Tensor, context: Tensor | None, box: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Q logits [B, X, Y, Z], the features [B, C, X, Y, Z] they come from, pooled [B, `pooled`], and the deep volume
        [B, C, X, Y, Z] of the encoder."""
        c = self.config
        volume = self.encoder(self.grid(batch, low, high, context, box), context)
        pooled = []
        merged = volume
        if c.perceiver is not None:
            padding = [n * c.patch - size for n, size in zip(self.tokens_shape, c.shape, strict=True)]
            padded = F.pad(volume, (0, padding[2], 0, padding[1], 0, padding[0]))
            patches = self.patchify(padded).flatten(2).transpose(1, 2)
            state = self.state(batch.proprioception)[:, None].expand(-1, patches.shape[1], -1)
            words = self.words(batch.words)
            tokens = torch.cat([words, torch.cat([patches, state.to(patches.dtype)], dim=2)], dim=1)
            # Words come first; a batch's padding is shorter than MAX_TOKENS, places keep their own positions.
            tokens = tokens + torch.cat([self.places[: words.shape[1]], self.places[MAX_TOKENS:]])
            mask = torch.cat([batch.word_mask, batch.word_mask.new_ones(patches.shape[:2])], dim=1)
            read, latents = self.perceiver(tokens, mask)
            read = read[:, words.shape[1] :].transpose(1, 2).unflatten(2, self.tokens_shape)
            read = F.interpolate(self.up(read), scale_factor=c.patch, mode="trilinear", align_corners=False)
            merged = volume + read[:, :, : c.shape[0], : c.shape[1], : c.shape[2]]
            pooled.append(latents.mean(dim=1))
        features = self.merge(merged, context)
        pooled += [features.amax(dim=(2, 3, 4)), volume.mean(dim=(2, 3, 4))]
        return self.q(features)[:, 0].float(), features, torch.cat([x.float() for x in pooled], dim=1), volume
