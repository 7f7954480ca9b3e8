"""Where along its rays the field is asked: evenly, where the density is, and around a measured depth."""

from __future__ import annotations

import torch
from torch import Tensor


def stratified(near: Tensor, far: Tensor, count: int, generator: torch.Generator | None, jitter: bool) -> Tensor:
    """[..., count] depths in order: one in each of `count` equal parts of [near, far], at random or in the middle."""
    place = torch.arange(count, device=near.device, dtype=near.dtype)
    shift = torch.rand(*near.shape, count, generator=generator, device=near.device) if jitter else 0.5
    return near[..., None] + (far - near)[..., None] * (place + shift) / count


def edges(depths: Tensor, near: Tensor, far: Tensor) -> Tensor:
    """[..., S + 1] borders of the stretch that each of the depths [..., S] stands for: half-way between neighbours."""
    between = (depths[..., 1:] + depths[..., :-1]) / 2
    return torch.cat([near[..., None], between, far[..., None]], dim=-1)


@torch.no_grad()
def importance(borders: Tensor, weights: Tensor, count: int, generator: torch.Generator | None, jitter: bool) -> Tensor:
    """[..., count] depths drawn in proportion to weights [..., S] over stretches with borders [..., S + 1] (Mildenhall
    et al. 2020, section 5.2), in order.

    Weights are spread to their neighbours first (mip-NeRF, Barron et al. 2021, section 3.1): a surface may lie anywhere
    between the last sample in front of it and the first one behind, so also in the stretch before.
    """
    wide = torch.cat([weights[..., :1], weights, weights[..., -1:]], dim=-1)
    wide = torch.maximum(wide[..., 1:], wide[..., :-1])
    weights = (wide[..., 1:] + wide[..., :-1]) / 2 + 1e-5  # a ray that meets nothing is sampled evenly
    total = torch.cat([torch.zeros_like(weights[..., :1]), weights.cumsum(dim=-1)], dim=-1)
    total = total / total[..., -1:]
    wanted = stratified(torch.zeros_like(total[..., 0]), torch.ones_like(total[..., 0]), count, generator, jitter)
    after = torch.searchsorted(total.contiguous(), wanted.contiguous(), right=True).clamp(1, weights.shape[-1])
    low, high = total.gather(-1, after - 1), total.gather(-1, after)
    start, end = borders.gather(-1, after - 1), borders.gather(-1, after)
    return start + (end - start) * ((wanted - low) / (high - low).clamp(min=1e-9)).clamp(0, 1)


@torch.no_grad()
def around_depth(depth: Tensor, spread: float, count: int, generator: torch.Generator | None) -> Tensor:
    """[..., count] depths scattered normally (`spread`, metres) around a measured depth [...] (GNFactor's depth-guided
    sampling)."""
    noise = torch.randn(*depth.shape, count, generator=generator, device=depth.device)
    return depth[..., None] + spread * noise
