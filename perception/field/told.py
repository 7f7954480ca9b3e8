"""What the field is told about scenes: deep volumes, the given pictures, words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from perception.field.empty import EmptySpace
from perception.field.pictures import Pictures
from perception.field.reading import VolumeReader

Volume = tuple[Tensor, Tensor, Tensor]
"""A volume [B, C, X, Y, Z] and the corners low, high [B, 3] of the box that it fills, world metres."""


@dataclass(frozen=True)
class Told:
    """Of B scenes: the volumes, the corners low, high [B, 3] of the box to render, pictures to look into (None for
    none), and a context [B, K] that all points of a scene are told (None for none). `empty`: where there is nothing
    (`NeuralField.survey`), None to ask everywhere."""

    volumes: Sequence[Volume]
    low: Tensor
    high: Tensor
    pictures: Pictures | None = None
    context: Tensor | None = None
    empty: EmptySpace | None = None

    def at(self, points: Tensor) -> Tensor:
        """[B, N, C] all of it at world points [B, N, 3]; first what the pictures show."""
        known = [] if self.pictures is None else [self.pictures.at(points)]
        known += [reader.at(points) for reader in self._readers]
        if self.context is not None:
            known.append(self.context[:, None].expand(-1, points.shape[1], -1))
        return torch.cat(known, dim=2)

    @cached_property
    def _readers(self) -> list[VolumeReader]:
        return [VolumeReader(volume.float(), low, high) for volume, low, high in self.volumes]

    def inside(self, points: Tensor) -> Tensor:
        """[B, N, 3] world points in the box's own coordinates, -1 to 1."""
        return (points - self.low[:, None]) / (self.high - self.low)[:, None] * 2 - 1
