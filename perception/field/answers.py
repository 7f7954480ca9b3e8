"""What the field's network said of samples along rays, kept for those alone that it was asked for: most samples of a
scene lie in empty space or behind a surface."""

from __future__ import annotations

import torch
from torch import Tensor


class Answers:
    """Answers to some of the S samples along each of R rays of B scenes; the others hold nothing.

    Args:
        shape: (B, R, S).
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.shape = shape
        self._parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def add(self, place: Tensor, density: Tensor, colour: Tensor, trunk: Tensor) -> None:
        """Of samples given by their place [B, N] in R * S: density [B, N], colour [B, N, 3], trunk [B, N, W]."""
        self._parts.append((place, density, colour, trunk))

    def density(self) -> Tensor:
        """[B, R, S], 0 where nothing was asked."""
        batch, rays, samples = self.shape
        place, density = (torch.cat([part[k] for part in self._parts], dim=1) for k in (0, 1))
        return density.new_zeros(batch, rays * samples).scatter(1, place, density).view(self.shape)

    def colour(self, weights: Tensor) -> Tensor:
        """[B, R, 3] sum of the colours along rays by weights [B, R, S]."""
        return self._sum(weights, 2)

    def trunk(self, weights: Tensor) -> Tensor:
        """[B, R, W] sum of the trunks along rays by weights [B, R, S]."""
        return self._sum(weights, 3)

    def _sum(self, weights: Tensor, kind: int) -> Tensor:
        batch, rays, samples = self.shape
        flat, total = weights.flatten(1), None
        owner = torch.arange(batch, device=weights.device)[:, None] * rays
        for part in self._parts:
            place, values = part[0], part[kind]
            weighted = (flat.gather(1, place)[..., None] * values.float()).flatten(0, 1)
            if total is None:
                total = weighted.new_zeros(batch * rays, values.shape[-1])
            total = total.index_add(0, (owner + place // samples).flatten(), weighted)
        assert total is not None
        return total.view(batch, rays, -1)
