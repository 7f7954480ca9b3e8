"""Voxel patches, proprioception and words as tokens that a Perceiver lets read each other (PerAct, section 3.3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agents.config import PerceiverConfig
from agents.perceiver import Perceiver
from agents.tensors import Batch
from perception.language import MAX_TOKENS


class TokenMixer(nn.Module):
    """Deep volume, words and proprioception → what the Perceiver makes of every patch.

    Args:
        config: of the Perceiver. channels, shape: of the volume. patch: cells along the edge of a token. words,
            proprioception: their channels. activation: a ReLU behind the patches and behind the proprioception, as
            published.
    """

    def __init__(
        self,
        config: PerceiverConfig,
        channels: int,
        shape: tuple[int, int, int],
        patch: int,
        words: int,
        proprioception: int,
        activation: bool = False,
    ) -> None:
        super().__init__()
        p = config
        self.patch, self.shape, self.activation = patch, tuple(-(-n // patch) for n in shape), activation
        self.patchify = nn.Conv3d(channels, p.tokens // 2, patch, patch)
        self.state = nn.Linear(proprioception, p.tokens // 2)
        self.words = nn.Linear(words, p.tokens)
        count = MAX_TOKENS + self.shape[0] * self.shape[1] * self.shape[2]
        self.places = nn.Parameter(0.02 * torch.randn(count, p.tokens))
        self.perceiver = Perceiver(p.tokens, p.latents, p.latent_dim, p.depth, p.heads, p.head_dim, 1, p.dropout)

    def forward(self, volume: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Volume [B, C, X, Y, Z] → what was read at every patch [B, tokens, X / patch, Y / patch, Z / patch] (rounded
        up), and the latents [B, L, D]."""
        x, y, z = (n * self.patch - size for n, size in zip(self.shape, volume.shape[2:], strict=True))
        patches = self.patchify(F.pad(volume, (0, z, 0, y, 0, x)) if x or y or z else volume)
        patches, state = patches.flatten(2).transpose(1, 2), self.state(batch.proprioception)
        if self.activation:
            patches, state = F.relu(patches), F.relu(state)
        state = state[:, None].expand(-1, patches.shape[1], -1)
        words = self.words(batch.words)
        tokens = torch.cat([words, torch.cat([patches, state.to(patches.dtype)], dim=2)], dim=1)
        # Words come first; a batch's padding is shorter than MAX_TOKENS, places keep their own positions.
        tokens = tokens + torch.cat([self.places[: words.shape[1]], self.places[MAX_TOKENS:]])
        mask = torch.cat([batch.word_mask, batch.word_mask.new_ones(patches.shape[:2])], dim=1)
        read, latents = self.perceiver(tokens, mask)
        return read[:, words.shape[1] :].transpose(1, 2).unflatten(2, self.shape), latents
