"""The agent's network: voxel volumes, words and proprioception in, Q-values for the next key-frame out.

PerAct (Shridhar et al. 2022, section 3.3) is one stage over the whole box. More stages look again, closer, at a crop
around the best cell so far, as in C2F-ARM (James et al. 2022): on few demonstrations that is more precise and cheaper.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from agents.config import AgentConfig, StageConfig
from agents.heads import Heads, Looks
from agents.perceiver import Attention
from agents.stage import Stage
from agents.tensors import Batch, Prediction

PROPRIOCEPTION = {"peract": 4, "pose": 13}
"""Length of what the agent knows of itself, by `AgentConfig.proprioception`."""


class Instruction(nn.Module):
    """One context vector of words and proprioception; proprioception decides which words matter now."""

    def __init__(self, words: int, proprioception: int, context: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(words)
        self.state = nn.Linear(proprioception, 64)
        self.attend = Attention(64, words, heads=4, head_dim=32)
        self.mean = nn.Linear(words, 64)
        self.mix = nn.Sequential(nn.ReLU(), nn.Linear(192, context), nn.ReLU(), nn.Linear(context, context))

    def forward(self, words: Tensor, mask: Tensor, proprioception: Tensor) -> Tensor:
        words, state = self.norm(words), self.state(proprioception)
        read = self.attend(state[:, None], words, mask)[:, 0]
        mean = (words * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
        return self.mix(torch.cat([state, read, self.mean(mean)], dim=1))


class Policy(nn.Module):
    """All stages and the heads for rotation, gripper and collision.

    Args:
        config: sizes. words: channels of a language token.
    """

    def __init__(self, config: AgentConfig, words: int) -> None:
        super().__init__()
        self.config = config
        proprioception = PROPRIOCEPTION[config.proprioception]
        self.register_buffer("low", torch.tensor(config.low, dtype=torch.float32), persistent=False)
        self.register_buffer("high", torch.tensor(config.high, dtype=torch.float32), persistent=False)
        self.instruction = Instruction(words, proprioception, config.context) if config.context else None
        stages = [Stage(s, words, proprioception, config.context) for s in config.stages]
        self.stages = nn.ModuleList(stages)
        pooled = sum(stage.pooled for stage in stages)
        self.heads = Heads(config, pooled + config.context)

    low: Tensor
    high: Tensor

    def forward(
        self, batch: Batch, position: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Prediction:
        """Predict. In training `position` [B, 3] is the target: later stages crop around it (with jitter), and the
        heads read their features there; else both happen at the best position found so far."""
        context = None
        if self.instruction is not None:
            context = self.instruction(batch.words, batch.word_mask, batch.proprioception).float()
        box = (self.low, self.high)
        found = Looks()
        best = position
        for settings, stage in zip(self.config.stages, self.stages, strict=True):
            low, high = self._crop(settings, best, len(batch.words), position is not None, generator)
            q, features, pooled, volume = stage(batch, low, high, context, box)
            best = decode_position(q, low, high, self.config.soft_labels) if position is None else position
            found.add(q, low, high, features, pooled, volume)
        assert best is not None
        rotation, gripper, collision = self.heads(found, best, context, batch.tool_yaw, generator, position is not None)
        return Prediction(found.q, found.low, found.high, rotation, gripper, collision, found.volumes, best)

    def _crop(
        self, stage: StageConfig, best: Tensor | None, batch: int, training: bool, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        if stage.size is None:
            return self.low.expand(batch, 3), self.high.expand(batch, 3)
        assert best is not None
        if training:
            best = best + (torch.rand(batch, 3, generator=generator, device=best.device) * 2 - 1) * stage.jitter
        return best - stage.size / 2, best + stage.size / 2


def decode_position(q: Tensor, low: Tensor, high: Tensor, soft: bool) -> Tensor:
    """[B, 3] world position of the best cell: its centre, or with soft labels the mean over the 3³ cells around it."""
    batch, *shape = q.shape
    sizes = torch.tensor(shape, device=q.device)
    flat = q.flatten(1).argmax(dim=1)
    index = torch.stack([flat // (shape[1] * shape[2]), flat // shape[2] % shape[1], flat % shape[2]], dim=1)
    cell = (high - low) / sizes
    if not soft:
        return low + (index + 0.5) * cell
    steps = torch.arange(-1, 2, device=q.device)
    around = index[:, None] + torch.stack(torch.meshgrid(steps, steps, steps, indexing="ij"), dim=-1).view(1, 27, 3)
    inside = ((around >= 0) & (around < sizes)).all(dim=2)
    around = torch.minimum(around.clamp(min=0), sizes - 1)
    values = q.flatten(1).gather(1, (around[..., 0] * shape[1] + around[..., 1]) * shape[2] + around[..., 2])
    weight = values.masked_fill(~inside, float("-inf")).softmax(dim=1)
    return low + ((around + 0.5) * weight[..., None]).sum(dim=1) * cell
