"""The tensors that pass between data, network and losses."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

UNKNOWN = -100
"""Class of a label that the data does not have: nothing is learned from it."""


@dataclass
class Batch:
    """Samples side by side. Points of all samples lie one after another; `batch_index` says whose they are.

    points [M, 3] metres; colours [M, 3] in [-1, 1]; batch_index [M]; words [B, T, D] and word_mask [B, T];
    named [B, K, 3] colours that the words name (`perception.named_colours`); proprioception [B, P];
    tool_position [B, 3] metres; tool_yaw [B] in bins (`agents.actions.RotationCode.tool_yaw`).
    """

    points: Tensor
    colours: Tensor
    batch_index: Tensor
    words: Tensor
    word_mask: Tensor
    named: Tensor
    proprioception: Tensor
    tool_position: Tensor
    tool_yaw: Tensor


@dataclass
class Targets:
    """What a batch should be answered with.

    position [B, 3] metres; rotation [B, 3, bins] label distributions; gripper and collision [B] int64, collision
    possibly `UNKNOWN`; weight [B].
    """

    position: Tensor
    rotation: Tensor
    gripper: Tensor
    collision: Tensor
    weight: Tensor


@dataclass
class Prediction:
    """q: per stage the logits [B, X, Y, Z] over its cells; low, high: per stage the boxes [B, 3] they cover.

    rotation [B, 3, bins], gripper [B, 2], collision [B, 2] logits. volumes: per stage the deep volume.
    position [B, 3]: the decoded translation of the last stage.
    """

    q: list[Tensor]
    low: list[Tensor]
    high: list[Tensor]
    rotation: Tensor
    gripper: Tensor
    collision: Tensor
    volumes: list[Tensor]
    position: Tensor
