"""Attention with dropout on a CPU, for which PyTorch has no fused kernel: there it spends more time on drawing a number
for each weight, and on fresh memory, than on products."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

WAYS = 2**16
"""A weight is dropped by 16 bits of its own."""
ROWS = 128
"""Queries at a time."""


def dropping_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    """As `torch.nn.functional.scaled_dot_product_attention`, in the queries' type.

    Args:
        q, k, v: [B, H, Q, D], [B, H, K, D], [B, H, K, D]. mask: [B, 1, 1, K], True where the context may be read.
        dropout: part of the weights that is dropped, to 1/65536.
    """
    with torch.autocast(q.device.type, enabled=False):
        out: Tensor = _Attention.apply(q, k.to(q.dtype), v.to(q.dtype), mask, dropout)
    return out


class _Attention(torch.autograd.Function):
    """Some queries of one head at a time, whose weights stay in the processor's cache. They are kept for the way back,
    negative where they were dropped."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
        ctx.scale, ctx.keep = q.shape[-1] ** -0.5, 1 - dropout
        out, kept = torch.empty_like(q), q.new_empty(*q.shape[:3], k.shape[2])
        bits, limit = _bits(), round(dropout * WAYS)
        for b, h, rows in _parts(q):
            scores = (q[b, h, rows] * ctx.scale) @ k[b, h].T
            if mask is not None:
                scores.masked_fill_(~mask[b, 0], -torch.inf)
            weights = torch.softmax(scores, dim=1, out=scores)
            drawn = bits.random_raw(-(-weights.numel() // 4)).view(np.uint16)[: weights.numel()]
            dropped = torch.from_numpy(drawn < limit).view(weights.shape)
            kept[b, h, rows] = torch.where(dropped, -weights, weights)
            out[b, h, rows] = weights.masked_fill_(dropped, 0) @ v[b, h]
        ctx.save_for_backward(q, k, v, kept)
        return out.div_(ctx.keep)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, kept = ctx.saved_tensors
        by_q, by_k, by_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        by_out = gradients[0] / ctx.keep
        for b, h, rows in _parts(q):
            signed, wanted = kept[b, h, rows], by_out[b, h, rows]
            by_v[b, h].addmm_(signed.clamp(min=0).T, wanted)
            weights = signed.abs()
            by_scores = (wanted @ v[b, h].T).masked_fill_(signed.signbit(), 0).mul_(weights)
            by_scores.addcmul_(weights, by_scores.sum(dim=1, keepdim=True), value=-1)
            by_q[b, h, rows] = (by_scores @ k[b, h]).mul_(ctx.scale)
            by_k[b, h].addmm_(by_scores.T, q[b, h, rows], alpha=ctx.scale)
        return by_q, by_k, by_v, None, None


def _parts(q: Tensor) -> Iterator[tuple[int, int, slice]]:
    for b, h in itertools.product(range(q.shape[0]), range(q.shape[1])):
        for start in range(0, q.shape[2], ROWS):
            yield b, h, slice(start, start + ROWS)


def _bits() -> np.random.SFC64:
    """Random bits, ten times as fast as PyTorch's, from whose generator they come."""
    return np.random.SFC64(int(torch.randint(2**62, ())))
