"""How gradients become updates: optimiser, schedule, and an average of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

OPTIMISERS = ("adamw", "lamb")
SCHEDULES = ("cosine", "constant")


def make_optimiser(
    name: str, parameters: Iterable[nn.Parameter], learning_rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    """AdamW, or LAMB (You et al. 2020), PerAct's and GNFactor's."""
    if name == "lamb":
        from pytorch_optimizer import Lamb

        lamb: torch.optim.Optimizer = Lamb(parameters, lr=learning_rate, weight_decay=weight_decay)
        return lamb
    return torch.optim.AdamW(parameters, learning_rate, weight_decay=weight_decay, fused=True)


def learning_rate(step: int, steps: int, highest: float, warmup: int, schedule: str) -> float:
    """At a step of so many: linear warm-up, then constant or a cosine down to 2 %."""
    warm = min(1.0, (step + 1) / max(warmup, 1))
    falling = max(0.02, 0.5 * (1 + math.cos(math.pi * step / steps))) if schedule == "cosine" else 1.0
    return highest * warm * falling


class Average:
    """Exponential moving average of a module's weights, which is often better than the last ones.

    Args:
        decay: how much of it stays at every update; early on less, so that it forgets the initial weights. It starts
            as a copy of the weights that the module has now.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module, self.decay = module, decay
        self.weights = {name: p.detach().clone() for name, p in module.named_parameters()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take the module's present weights in, after so many steps."""
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        now: list[Tensor] = [p for _, p in self.module.named_parameters()]
        torch._foreach_lerp_(list(self.weights.values()), now, share)
