"""Attention that drops weights: the plain one, but for those that were dropped."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from agents.dropping import ROWS, dropping_attention
from agents.perceiver import Attention


def parts(queries: int, keys: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    q, k, v = (torch.randn(2, 3, n, keys, dtype=dtype) for n in (queries, keys, keys))
    return q.requires_grad_(), k.requires_grad_(), v.requires_grad_()


def kept(q: Tensor, k: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    """Which weights the next call with seed 7 keeps: with the unit matrix for values, the answer is the weights."""
    torch.manual_seed(7)
    return dropping_attention(q, k, torch.eye(k.shape[2], dtype=q.dtype).expand(*k.shape), mask, dropout) != 0


def plain(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, keep: Tensor, dropout: float) -> Tensor:
    scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return (scores.softmax(dim=-1) * keep / (1 - dropout)) @ v


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("queries", [5, ROWS + 3])
def test_values_and_gradients_are_those_of_plain_attention(queries: int, masked: bool) -> None:
    q, k, v = parts(queries, 24)
    mask = torch.rand(2, 1, 1, 24, generator=torch.manual_seed(2)) > 0.3 if masked else None
    keep = kept(q, k, mask, 0.25)
    torch.manual_seed(7)
    ours, theirs = dropping_attention(q, k, v, mask, 0.25), plain(q, k, v, mask, keep, 0.25)
    torch.testing.assert_close(ours, theirs)
    weight = torch.randn(ours.shape, dtype=ours.dtype)
    for a, b in zip(
        torch.autograd.grad((ours * weight).sum(), (q, k, v)),
        torch.autograd.grad((theirs * weight).sum(), (q, k, v)),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("dropout", [0.1, 0.5])
def test_a_share_of_the_weights_is_dropped_anew_each_time(dropout: float) -> None:
    q, k, _ = parts(200, 128)
    first, second = kept(q, k, None, dropout), kept(q, k, None, dropout)
    assert bool((first == second).all())  # the same seed
    other = dropping_attention(q, k, torch.eye(128, dtype=q.dtype).expand(*k.shape), None, dropout) != 0
    for mask in (first, other):
        assert abs(mask.double().mean().item() - (1 - dropout)) < 5e-3  # 150 000 weights: 5 standard deviations
    both = (first & other).double().mean().item()
    assert abs(both - (1 - dropout) ** 2) < 5e-3
    by_head = first.double().mean(dim=(0, 2, 3))
    assert (by_head - (1 - dropout)).abs().max() < 1e-2


def test_attention_drops_in_training_only() -> None:
    torch.manual_seed(0)
    layer, x = Attention(16, 16, heads=2, head_dim=8, dropout=0.5), torch.randn(1, 40, 16)
    assert not torch.equal(layer(x), layer(x))
    assert torch.equal(layer.eval()(x), layer(x))


def test_half_precision_stays_so() -> None:
    layer, x = Attention(16, 16, heads=2, head_dim=8, dropout=0.5), torch.randn(1, 40, 16)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x)
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert torch.isfinite(layer.to_q.weight.grad).all()  # type: ignore[arg-type]
