"""Rotation, gripper and collision, read where the translation was found."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from agents.config import AgentConfig
from agents.polar import PolarHead

POLAR_JITTER = 0.01
"""Metres by which training moves the place that the polar head looks from: a decoded position is off by about this."""


class Looks:
    """What the stages gave, each a list over them."""

    def __init__(self) -> None:
        self.q: list[Tensor] = []
        self.low: list[Tensor] = []
        self.high: list[Tensor] = []
        self.features: list[Tensor] = []
        self.pooled: list[Tensor] = []
        self.volumes: list[Tensor] = []

    def add(self, q: Tensor, low: Tensor, high: Tensor, features: Tensor, pooled: Tensor, volume: Tensor) -> None:
        """Append one stage's."""
        self.q.append(q)
        self.low.append(low)
        self.high.append(high)
        self.features.append(features)
        self.pooled.append(pooled)
        self.volumes.append(volume)


class Heads(nn.Module):
    """A small network on pooled features, words and (optionally) the features at the chosen cell; yaw gets two more
    opinions, one relative to the tool's present yaw and one from what lies around (`agents.polar`).

    Args:
        config: of the agent. pooled: length of the pooled features and the context together.
    """

    def __init__(self, config: AgentConfig, pooled: int) -> None:
        super().__init__()
        self.config = config
        channels = [s.channels for s in config.stages]
        # Yaw seen from the tool: half a circle where half a turn changes nothing.
        self.relative = config.rotation_bins // (2 if config.symmetric_gripper else 1) if config.relative_yaw else 0
        self.mlp = nn.Sequential(
            nn.Linear(pooled + (sum(channels) if config.heads_at_cell else 0), config.hidden[0]),
            nn.ReLU(),
            nn.Linear(*config.hidden),
            nn.ReLU(),
            nn.Linear(config.hidden[1], 3 * config.rotation_bins + 4 + self.relative),
        )
        self.polar = PolarHead(channels, config.context, config.rotation_bins) if config.polar_yaw else None

    def forward(
        self,
        looks: Looks,
        position: Tensor,
        context: Tensor | None,
        tool_yaw: Tensor,
        generator: torch.Generator | None = None,
        training: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of rotation [B, 3, bins], gripper [B, 2] and collision [B, 2] at a position [B, 3]."""
        parts = list(looks.pooled)
        if self.config.heads_at_cell:
            for features, low, high in zip(looks.features, looks.low, looks.high, strict=True):
                parts.append(read_cell(features, position, low, high, training, generator).float())
        if context is not None:
            parts.append(context)
        bins = self.config.rotation_bins
        rotation, binary, relative = (
            self.mlp(torch.cat(parts, dim=1)).float().split((3 * bins, 4, self.relative), dim=1)
        )
        tilt, yaw = rotation[:, : 2 * bins].view(-1, 2, bins), rotation[:, 2 * bins :]
        if self.relative:
            yaw = yaw + turn(relative, tool_yaw, bins)
        if self.polar is not None:
            if training:
                noise = torch.rand(position.shape, generator=generator, device=position.device) * 2 - 1
                position = position + noise * POLAR_JITTER
            yaw = yaw + self.polar(looks.features, looks.low, looks.high, position, context).float()
        return torch.cat([tilt, yaw[:, None]], dim=1), binary[:, :2], binary[:, 2:]


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


def read_cell(
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
