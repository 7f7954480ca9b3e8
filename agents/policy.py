"""The agent's network: voxel volumes, words and proprioception in, Q-values for the next key-frame out.

PerAct (Shridhar et al. 2022, section 3.3) is one stage over the whole box. More stages look again, closer, at a crop
around the best cell so far, as in C2F-ARM (James et al. 2022): on few demonstrations that is more precise and cheaper.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agents.config import AgentConfig, StageConfig
from agents.perceiver import Attention, Perceiver
from agents.polar import PolarHead
from perception.encoder import Block, PointEncoder, UNet
from perception.voxels import GRID_CHANNELS, cell_centres, cell_index, peract_grid, scatter_mean

POINT_FEATURES = 10
"""Per point: rgb, offset in its cell, height in the box, position relative to the tool."""
PLACE_CHANNELS = 5
"""Per cell beside point features: occupancy, nearness of the tool, position in the box."""
PROPRIOCEPTION = {"peract": 4, "pose": 13}
MAX_WORDS = 77
UNKNOWN = -100
"""Class of a label that the data does not have: nothing is learned from it."""


@dataclass
class Batch:
    """Samples side by side. Points of all samples lie one after another; `batch_index` says whose they are.

    points [M, 3] metres; colours [M, 3] in [-1, 1]; batch_index [M]; words [B, T, D] and word_mask [B, T];
    proprioception [B, P]; tool_position [B, 3] metres; tool_yaw [B] in bins (`agents.actions.RotationCode.tool_yaw`).
    """

    points: Tensor
    colours: Tensor
    batch_index: Tensor
    words: Tensor
    word_mask: Tensor
    proprioception: Tensor
    tool_position: Tensor
    tool_yaw: Tensor


@dataclass
class Targets:
    """position [B, 3] metres; rotation [B, 3, bins] label distributions; gripper, collision [B] int64, collision possibly `UNKNOWN`; weight [B]."""

    position: Tensor
    rotation: Tensor
    gripper: Tensor
    collision: Tensor
    weight: Tensor


@dataclass
class Prediction:
    """q: per stage the logits [B, X, Y, Z] over its cells; low, high: per stage the boxes [B, 3] they cover.

    rotation [B, 3, bins], gripper [B, 2], collision [B, 2] logits. volumes: per stage the deep volume.
    position [B, 3]: the decoded translation of the last stage.
    """

    q: list[Tensor]
    low: list[Tensor]
    high: list[Tensor]
    rotation: Tensor
    gripper: Tensor
    collision: Tensor
    volumes: list[Tensor]
    position: Tensor


class Instruction(nn.Module):
    """One context vector of words and proprioception; proprioception decides which words matter now."""

    def __init__(self, words: int, proprioception: int, context: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(words)
        self.state = nn.Linear(proprioception, 64)
        self.attend = Attention(64, words, heads=4, head_dim=32)
        self.mean = nn.Linear(words, 64)
        self.mix = nn.Sequential(nn.ReLU(), nn.Linear(192, context), nn.ReLU(), nn.Linear(context, context))

    def forward(self, words: Tensor, mask: Tensor, proprioception: Tensor) -> Tensor:
        words, state = self.norm(words), self.state(proprioception)
        read = self.attend(state[:, None], words, mask)[:, 0]
        mean = (words * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
        return self.mix(torch.cat([state, read, self.mean(mean)], dim=1))


class Stage(nn.Module):
    """Grid → encoder → Perceiver → Q over the grid's cells, for boxes given per sample."""

    def __init__(self, config: StageConfig, words: int, proprioception: int, context: int) -> None:
        super().__init__()
        self.config = config
        c = config
        if c.points:
            self.point_encoder = PointEncoder(POINT_FEATURES, c.points, context, c.matches)
        self.encoder = UNet(c.points + PLACE_CHANNELS if c.points else GRID_CHANNELS, c.channels, c.widths, context)
        self.pooled = 2 * c.channels
        if c.perceiver is not None:
            p = c.perceiver
            self.tokens_shape = tuple(-(-n // c.patch) for n in c.shape)
            self.patchify = nn.Conv3d(c.channels, p.tokens // 2, c.patch, c.patch)
            self.state = nn.Linear(proprioception, p.tokens // 2)
            self.words = nn.Linear(words, p.tokens)
            count = MAX_WORDS + self.tokens_shape[0] * self.tokens_shape[1] * self.tokens_shape[2]
            self.places = nn.Parameter(0.02 * torch.randn(count, p.tokens))
            self.perceiver = Perceiver(p.tokens, p.latents, p.latent_dim, p.depth, p.heads, p.head_dim, 1, p.dropout)
            self.up = nn.Conv3d(p.tokens, c.channels, 1)
            self.merge = Block(2 * c.channels, c.channels, context)
            self.pooled += p.latent_dim
        else:
            self.merge = Block(c.channels, c.channels, context)
        self.q = nn.Conv3d(c.channels, 1, 1)

    def grid(self, batch: Batch, low: Tensor, high: Tensor, context: Tensor | None, box: tuple[Tensor, Tensor]) -> Tensor:
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
        """Q logits [B, X, Y, Z], features [B, C, X, Y, Z] under them, pooled [B, `pooled`], deep volume [B, C, X, Y, Z]."""
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
            # Words come first; a batch's padding is shorter than MAX_WORDS, places keep their own positions.
            tokens = tokens + torch.cat([self.places[: words.shape[1]], self.places[MAX_WORDS:]])
            mask = torch.cat([batch.word_mask, batch.word_mask.new_ones(patches.shape[:2])], dim=1)
            read, latents = self.perceiver(tokens, mask)
            read = read[:, words.shape[1] :].transpose(1, 2).unflatten(2, self.tokens_shape)
            read = F.interpolate(self.up(read), scale_factor=c.patch, mode="trilinear", align_corners=False)
            merged = torch.cat([volume, read[:, :, : c.shape[0], : c.shape[1], : c.shape[2]]], dim=1)
            pooled.append(latents.mean(dim=1))
        features = self.merge(merged, context)
        pooled += [features.amax(dim=(2, 3, 4)), volume.mean(dim=(2, 3, 4))]
        return self.q(features)[:, 0].float(), features, torch.cat([x.float() for x in pooled], dim=1), volume


class Policy(nn.Module):
    """All stages and the heads for rotation, gripper and collision.

    Args:
        config: sizes. words: channels of a language token.
    """

    def __init__(self, config: AgentConfig, words: int) -> None:
        super().__init__()
        self.config = config
        proprioception = PROPRIOCEPTION[config.proprioception]
        self.register_buffer("low", torch.tensor(config.low, dtype=torch.float32), persistent=False)
        self.register_buffer("high", torch.tensor(config.high, dtype=torch.float32), persistent=False)
        self.instruction = Instruction(words, proprioception, config.context) if config.context else None
        self.stages = nn.ModuleList(Stage(s, words, proprioception, config.context) for s in config.stages)
        width = sum(stage.pooled for stage in self.stages) + config.context
        if config.heads_at_cell:
            width += sum(s.channels for s in config.stages)
        self.heads = nn.Sequential(
            nn.Linear(width, config.hidden),
            nn.ReLU(),
            nn.Linear(config.hidden, config.hidden // 2),
            nn.ReLU(),
            nn.Linear(config.hidden // 2, 3 * config.rotation_bins + 4 + self._relative_bins),
        )
        if config.polar_yaw:
            self.polar = PolarHead([s.channels for s in config.stages], config.context, config.rotation_bins)

    @property
    def _relative_bins(self) -> int:
        """Bins of the yaw seen from the tool: half a circle where half a turn changes nothing."""
        if not self.config.relative_yaw:
            return 0
        return self.config.rotation_bins // (2 if self.config.symmetric_gripper else 1)

    def forward(self, batch: Batch, position: Tensor | None = None, generator: torch.Generator | None = None) -> Prediction:
        """Predict. In training `position` [B, 3] is the target: later stages crop around it (with jitter), and the
        heads read their features there; else both happen at the best position found so far."""
        context = None
        if self.instruction is not None:
            context = self.instruction(batch.words, batch.word_mask, batch.proprioception).float()
        box = (self.low, self.high)
        qs, lows, highs, volumes, seen, pooled, at_cell = [], [], [], [], [], [], []
        best = position
        for stage in self.stages:
            low, high = self._crop(stage.config, best, len(batch.words), position is not None, generator)
            q, features, summary, volume = stage(batch, low, high, context, box)
            best = decode_position(q, low, high, self.config.soft_labels) if position is None else position
            qs, lows, highs, volumes = [*qs, q], [*lows, low], [*highs, high], [*volumes, volume]
            seen.append(features)
            pooled.append(summary)
            if self.config.heads_at_cell:
                at_cell.append(_read(features, best, low, high, position is not None, generator))
        parts = pooled + at_cell + ([context] if context is not None else [])
        out = self.heads(torch.cat([p.float() for p in parts], dim=1)).float()
        bins = self.config.rotation_bins
        rotation = out[:, : 3 * bins].view(-1, 3, bins)
        if self.config.relative_yaw:
            seen_from_tool = turn(out[:, 3 * bins + 4 :], batch.tool_yaw, bins)
            rotation = rotation + F.pad(seen_from_tool[:, None], (0, 0, 2, 0))
        if self.config.polar_yaw:
            place = best
            if position is not None:  # a decoded position will be off by about this much
                place = best + (torch.rand(best.shape, generator=generator, device=best.device) * 2 - 1) * 0.01
            rotation = rotation + F.pad(self.polar(seen, lows, highs, place, context)[:, None], (0, 0, 2, 0))
        return Prediction(
            q=qs,
            low=lows,
            high=highs,
            rotation=rotation,
            gripper=out[:, 3 * bins : 3 * bins + 2],
            collision=out[:, 3 * bins + 2 : 3 * bins + 4],
            volumes=volumes,
            position=best,
        )

    def _crop(
        self, stage: StageConfig, best: Tensor | None, batch: int, training: bool, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        if stage.size is None:
            return self.low.expand(batch, 3), self.high.expand(batch, 3)
        assert best is not None
        if training:
            best = best + (torch.rand(batch, 3, generator=generator, device=best.device) * 2 - 1) * stage.jitter
        return best - stage.size / 2, best + stage.size / 2


def decode_position(q: Tensor, low: Tensor, high: Tensor, soft: bool) -> Tensor:
    """[B, 3] world position of the best cell: its centre, or with soft labels the mean over the 3³ cells around it."""
    batch, *shape = q.shape
    sizes = torch.tensor(shape, device=q.device)
    flat = q.flatten(1).argmax(dim=1)
    index = torch.stack([flat // (shape[1] * shape[2]), flat // shape[2] % shape[1], flat % shape[2]], dim=1)
    cell = (high - low) / sizes
    if not soft:
        return low + (index + 0.5) * cell
    steps = torch.arange(-1, 2, device=q.device)
    around = index[:, None] + torch.stack(torch.meshgrid(steps, steps, steps, indexing="ij"), dim=-1).view(1, 27, 3)
    inside = ((around >= 0) & (around < sizes)).all(dim=2)
    around = torch.minimum(around.clamp(min=0), sizes - 1)
    values = q.flatten(1).gather(1, (around[..., 0] * shape[1] + around[..., 1]) * shape[2] + around[..., 2])
    weight = values.masked_fill(~inside, float("-inf")).softmax(dim=1)
    return low + ((around + 0.5) * weight[..., None]).sum(dim=1) * cell


def turn(logits: Tensor, by: Tensor, bins: int) -> Tensor:
    """[B, bins] logits over a circle (or [B, bins / 2] over half of one, repeated) turned by [B] fractional bins.

    A yaw that is learned relative to the tool becomes one in the world: value at bin b is the logit at b - by.
    """
    period = logits.shape[1]
    place = (torch.arange(bins, device=by.device) - by[:, None]) % period
    lower = place.floor()
    share = place - lower
    first, second = lower.long() % period, (lower.long() + 1) % period
    return logits.gather(1, first) * (1 - share) + logits.gather(1, second) * share


def _read(
    features: Tensor, position: Tensor, low: Tensor, high: Tensor, training: bool, generator: torch.Generator | None
) -> Tensor:
    """[B, C] features at the cell of a position; in training half of the time at a neighbour, as a decoded position
    will be off by that much."""
    sizes = torch.tensor(features.shape[2:], device=features.device)
    index = ((position - low) / ((high - low) / sizes)).floor().long()
    if training:
        step = torch.randint(-1, 2, index.shape, generator=generator, device=index.device)
        index = index + step * (torch.rand(len(index), 1, generator=generator, device=index.device) < 0.5)
    index = torch.minimum(index.clamp(min=0), sizes - 1)
    return features[torch.arange(len(index)), :, index[:, 0], index[:, 1], index[:, 2]]
