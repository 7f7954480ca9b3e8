"""The field's network: what is at a point, seen from a direction, given the volume's features there."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perception.field.pictures import REACHES, colours_of

DENSITY_SCALE = 50.0  # per metre: a network output of 1 makes 2 cm about 63 % opaque


def positional_encoding(points: Tensor, frequencies: int, base: float) -> Tensor:
    """[..., D] → [..., D · (1 + 2 · frequencies)]: the coordinates, and sine and cosine of base · 2^k times them."""
    if not frequencies:
        return points
    scale = base * 2.0 ** torch.arange(frequencies, device=points.device, dtype=points.dtype)
    angles = points[..., None, :] * scale[:, None]
    return torch.cat([points, torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(-2)], dim=-1)


class FieldNetwork(nn.Module):
    """Conditional ResNet MLP (pixelNeRF's, which GNFactor takes): residual blocks on encoded position and direction;
    the volume's feature is added in front of the first few.

    Args:
        condition: channels of the conditioning feature. width, blocks: of the trunk. injections: blocks in front of
            which the condition is added. frequencies, base: of the positional encoding. pictures: whether the condition
            begins with what pictures show (`perception.field.pictures`), whose colours may then be taken over (IBRNet,
            Wang et al. 2021, section 3.3).
    """

    def __init__(
        self,
        condition: int,
        width: int,
        blocks: int,
        injections: int,
        frequencies: int,
        base: float,
        pictures: bool = False,
    ) -> None:
        super().__init__()
        self.frequencies, self.base, self.width = frequencies, base, width
        self.entry = nn.Linear(3 * (1 + 2 * frequencies) + 3, width)
        self.inject = nn.ModuleList(nn.Linear(condition, width) for _ in range(injections))
        self.blocks = nn.ModuleList(ResidualBlock(width) for _ in range(blocks))
        self.density = nn.Linear(width, 1)
        self.colour = nn.Linear(width, 3)
        self.blend = nn.Linear(width, 1 + len(REACHES)) if pictures else None

    def forward(self, points: Tensor, directions: Tensor, condition: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Density [...] per metre, colour [..., 3] in [0, 1] and trunk [..., width].

        Args:
            points: [..., 3] in the box's own coordinates, -1 to 1. directions: [..., 3] of unit length. condition:
                [..., C].
        """
        hidden = self.entry(torch.cat([positional_encoding(points, self.frequencies, self.base), directions], dim=-1))
        told = condition.to(hidden.dtype)  # once, not for every layer
        for number, block in enumerate(self.blocks):
            if number < len(self.inject):
                hidden = self.inject[number](told).add_(hidden)
            hidden = block(hidden)
        hidden = F.relu_(hidden)
        # Softplus in float32: in bfloat16 a nearly opaque stretch would lose its digits.
        density = F.softplus(self.density(hidden).float()[..., 0] - 1.0) * DENSITY_SCALE
        colour = self.colour(hidden).float().sigmoid()
        if self.blend is not None:
            own, *shares = self.blend(hidden).float().softmax(dim=-1).split(1, dim=-1)
            colour = own * colour + sum(share * seen for share, seen in zip(shares, colours_of(condition), strict=True))
        return density, colour, hidden


class ResidualBlock(nn.Module):
    """x + W2 relu(W1 relu(x)), starting as the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.second(F.relu_(self.first(F.relu(hidden)))).add_(hidden)
