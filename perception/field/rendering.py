"""Volume rendering: from densities along rays to weights, and from weights to what a pixel shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from perception.field.rays import take


@dataclass
class Rendering:
    """What R rays of B samples show.

    rgb, coarse_rgb: [B, R, 3] in [0, 1], from all samples along a ray and from the evenly spread ones alone.
    depth: [B, R] metres along the camera's z, mean over what is in the box. opacity: [B, R], how much of the ray ends
    in the box. feature: [B, R, F] the teacher's feature, or None.
    """

    rgb: Tensor
    coarse_rgb: Tensor
    depth: Tensor
    opacity: Tensor
    feature: Tensor | None

    def take(self, chosen: Tensor) -> Rendering:
        """The rays whose numbers `chosen` [B, N] gives."""
        return self._map(lambda values, _: take(values, chosen), self)

    def put(self, chosen: Tensor, rays: Rendering) -> Rendering:
        """A copy in which the rays that `chosen` names are those of another rendering."""
        return self._map(lambda values, new: _put(values, chosen, new), rays)

    def _map(self, change: Callable[[Tensor, Tensor], Tensor], other: Rendering) -> Rendering:
        pairs = {f.name: (getattr(self, f.name), getattr(other, f.name)) for f in fields(self)}
        changed: dict[str, Any] = {k: None if own is None else change(own, new) for k, (own, new) in pairs.items()}
        return Rendering(**changed)


def _put(into: Tensor, chosen: Tensor, values: Tensor) -> Tensor:
    index = chosen.view(*chosen.shape, *[1] * (into.dim() - 2)).expand(-1, -1, *into.shape[2:])
    return into.scatter(1, index, values.to(into.dtype))


def ray_weights(density: Tensor, borders: Tensor, lengths: Tensor) -> Tensor:
    """[..., S] how much each stretch of a ray contributes to its pixel: its own opacity times how much gets past all
    stretches in front of it.

    Args:
        density: [..., S] per metre. borders: [..., S + 1] depths. lengths: [...] metres of way per metre of depth.
    """
    optical = density * (borders[..., 1:] - borders[..., :-1]).clamp(min=0) * lengths[..., None]
    before = torch.cat([torch.zeros_like(optical[..., :1]), optical.cumsum(dim=-1)[..., :-1]], dim=-1)
    return -torch.expm1(-optical) * torch.exp(-before)
