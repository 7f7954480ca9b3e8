"""The Perceiver (Jaegle et al. 2021) that PerAct runs over voxel patches and words.

A few latents read all tokens (cross-attention), think (self-attention), and every token reads the answer back. The cost
grows with tokens × latents instead of tokens².
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from perceiver_pytorch.perceiver_io import FeedForward, PreNorm
from torch import Tensor, nn

from agents.dropping import dropping_attention


class Attention(nn.Module):
    """Multi-head attention on torch's fused kernel.

    Queries [B, Q, query_dim] read a context [B, K, context_dim]; the answer is [B, Q, query_dim].
    Same parameters and function as `perceiver_pytorch`'s, which materialises the [Q, K] matrix.
    """

    def __init__(self, query_dim: int, context_dim: int, heads: int, head_dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.to_q = nn.Linear(query_dim, heads * head_dim, bias=False)
        self.to_kv = nn.Linear(context_dim, 2 * heads * head_dim, bias=False)
        self.to_out = nn.Linear(heads * head_dim, query_dim)

    def forward(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """`mask` [B, K] is True where the context may be read."""
        context = x if context is None else context
        keys, values = self.to_kv(context).chunk(2, dim=-1)
        q, k, v = (self._split(part) for part in (self.to_q(x), keys, values))
        mask = None if mask is None else mask[:, None, None, :]
        dropout = self.dropout if self.training else 0.0
        if dropout and x.device.type == "cpu":
            out = dropping_attention(q, k, v, mask, dropout)
        else:
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        return self.to_out(out.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Perceiver(nn.Module):
    """Tokens → tokens of the same shape, each having read what the latents made of all of them.

    Args:
        dim: channels of a token. latents, latent_dim: the bottleneck. depth: self-attention layers.
        cross_heads, heads, head_dim: of cross- and self-attention. dropout: on the attention weights.
    """

    def __init__(
        self,
        dim: int,
        latents: int,
        latent_dim: int,
        depth: int,
        heads: int = 8,
        head_dim: int = 64,
        cross_heads: int = 1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.latents = nn.Parameter(0.02 * torch.randn(latents, latent_dim))
        self.read = PreNorm(latent_dim, Attention(latent_dim, dim, cross_heads, head_dim, dropout), context_dim=dim)
        self.read_forward = PreNorm(latent_dim, FeedForward(latent_dim))
        self.attend = nn.ModuleList(
            PreNorm(latent_dim, Attention(latent_dim, latent_dim, heads, head_dim, dropout)) for _ in range(depth)
        )
        self.think = nn.ModuleList(PreNorm(latent_dim, FeedForward(latent_dim)) for _ in range(depth))
        self.write = PreNorm(dim, Attention(dim, latent_dim, cross_heads, head_dim), context_dim=latent_dim)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Tokens [B, N, dim], mask [B, N] True where a token is → tokens [B, N, dim] and latents [B, L, latent_dim]."""
        latents = self.latents.expand(len(tokens), -1, -1)
        latents = latents + self.read(latents, context=tokens, mask=mask)
        latents = latents + self.read_forward(latents)
        for attend, think in zip(self.attend, self.think, strict=True):
            latents = latents + attend(latents)
            latents = latents + think(latents)
        return self.write(tokens, context=latents), latents
