"""Behaviour-cloning losses: cross-entropy of every head against the demonstrated key-frame (PerAct, section 3.4).

With soft labels a position spreads over the eight cells around it (trilinear weights, decoded by the mean around the
best cell); the published labels are one-hot. Labels of angles come from `agents.actions.RotationCode`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from agents.tensors import UNKNOWN, Prediction, Targets


def policy_losses(prediction: Prediction, targets: Targets, soft: bool) -> dict[str, Tensor]:
    """Mean losses by head: "translation_0", "translation_1", …, "rotation", "gripper", "collision".

    Samples count by `targets.weight`; a stage whose crop does not hold the target does not train on that sample.
    """
    weight = targets.weight / targets.weight.sum()
    losses = {}
    for number, (q, low, high) in enumerate(zip(prediction.q, prediction.low, prediction.high, strict=True)):
        index, share = position_labels(targets.position, low, high, q.shape[1:], soft)
        log_probability = F.log_softmax(q.flatten(1), dim=1).gather(1, index)
        losses[f"translation_{number}"] = -((log_probability * share).sum(dim=1) * weight).sum()
    per_axis = -(targets.rotation * F.log_softmax(prediction.rotation, dim=-1)).sum(dim=-1)
    losses["rotation"] = (per_axis.sum(dim=1) * weight).sum()
    losses["gripper"] = (F.cross_entropy(prediction.gripper, targets.gripper, reduction="none") * weight).sum()
    collision = F.cross_entropy(prediction.collision, targets.collision, reduction="none", ignore_index=UNKNOWN)
    losses["collision"] = (collision * weight).sum()
    return losses


def position_labels(
    position: Tensor, low: Tensor, high: Tensor, shape: torch.Size | tuple[int, ...], soft: bool
) -> tuple[Tensor, Tensor]:
    """Flat cell indices [B, K] and their shares [B, K] of the label of a position [B, 3]: K = 8 soft, 1 hard."""
    sizes = torch.tensor(shape, device=position.device)
    where = (position - low) / ((high - low) / sizes)
    inside = ((where >= 0) & (where <= sizes)).all(dim=1, keepdim=True).float()
    if not soft:
        index = torch.minimum(where.floor().long().clamp(min=0), sizes - 1)[:, None]
        return _flat(index, shape), inside
    corner = (where - 0.5).floor()
    fraction = (where - 0.5 - corner)[:, None]
    steps = torch.tensor([0, 1], device=position.device)
    offset = torch.stack(torch.meshgrid(steps, steps, steps, indexing="ij"), dim=-1).view(1, 8, 3)
    index = torch.minimum((corner[:, None].long() + offset).clamp(min=0), sizes - 1)
    share = (offset * fraction + (1 - offset) * (1 - fraction)).prod(dim=2)
    return _flat(index, shape), share * inside


def _flat(index: Tensor, shape: torch.Size | tuple[int, ...]) -> Tensor:
    return (index[..., 0] * shape[1] + index[..., 1]) * shape[2] + index[..., 2]
