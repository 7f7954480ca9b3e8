"""The generalizable neural feature field (GNFactor, section 3.3): colour, depth and features along any ray, from the
deep volume that the agent acts on.

Density and colour at a point depend on the volume's trilinear feature there, on the position in the box and on the
viewing direction. What lies outside the box is a background that all scenes share.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perception.field.network import FieldNetwork, positional_encoding
from perception.field.rays import Rays, take
from perception.field.rendering import Rendering, composite, ray_weights
from perception.field.sampling import around_depth, edges, importance, stratified
from perception.voxels import sample_volume

Volume = tuple[Tensor, Tensor, Tensor]
"""A volume [B, C, X, Y, Z] and the corners low, high [B, 3] of the box that it fills, world metres."""
Told = tuple[Sequence[Volume], Tensor, Tensor, Tensor | None]
Asked = tuple[Tensor, Tensor, Tensor]
STRETCH = 8
"""Samples along a ray that are asked for before it is decided whether to go on."""


@dataclass(frozen=True)
class FieldConfig:
    """Sizes and switches of the field.

    width, blocks, injections: of the network. frequencies, base: of the positional encoding. coarse, fine: samples a
    ray; guided: how many of the fine ones training puts around the measured depth, scattered by `spread` metres.
    background: "learned" (from the ray) or "constant". stop: without gradients, a ray ends where no more than this part
    of it gets past; 0 for never.
    """

    width: int = 512
    blocks: int = 5
    injections: int = 3
    frequencies: int = 6
    base: float = 1.5
    coarse: int = 64
    fine: int = 32
    guided: int = 16
    spread: float = 0.02
    stop: float = 5e-4
    background: str = "learned"


class NeuralField(nn.Module):
    """Renders rays through volumes.

    Args:
        config: sizes. channels: of all volumes and the context together that `forward` is given. features: channels of
            the teacher, 0 for none.
    """

    def __init__(self, config: FieldConfig, channels: int, features: int = 0) -> None:
        super().__init__()
        self.config = config
        c = config
        self.network = FieldNetwork(channels, c.width, c.blocks, c.injections, c.frequencies, c.base)
        self.feature = nn.Linear(c.width, features) if features else None
        self.background = Background(features, c.background == "learned")

    def forward(
        self,
        volumes: Sequence[Volume],
        rays: Rays,
        low: Tensor,
        high: Tensor,
        generator: torch.Generator | None = None,
        measured: Tensor | None = None,
        context: Tensor | None = None,
    ) -> Rendering:
        """Render rays through the boxes [low, high] ([B, 3]).

        Args:
            context: [B, K] what all points of a sample are told beside the volumes.
            measured: [B, R] depth that was measured along each ray, which guides sampling in training. With gradients
                off, samples are placed without chance, and a ray ends where (nearly) nothing gets past: `stop`.
        """
        # Rays that hit come first; those that miss cost nothing but their background.
        order = rays.hits.int().argsort(dim=1, descending=True, stable=True)
        chosen = order[:, : int(rays.hits.sum(dim=1).max())]
        behind_rgb, behind_feature = self.background(rays.unmoved, low[:, 2])
        nothing = torch.zeros_like(rays.near)
        missed = Rendering(behind_rgb, behind_rgb, nothing, nothing, behind_feature)
        if not chosen.shape[1]:
            return missed
        some = rays.take(chosen)
        guide = None if measured is None else measured.gather(1, chosen)
        hit = self._march(volumes, some, low, high, missed.take(chosen), generator, guide, context)
        return missed.put(chosen, hit)

    def _march(
        self,
        volumes: Sequence[Volume],
        rays: Rays,
        low: Tensor,
        high: Tensor,
        behind: Rendering,
        generator: torch.Generator | None,
        measured: Tensor | None,
        context: Tensor | None,
    ) -> Rendering:
        """What rays show that hit their box, in front of a background."""
        c, training = self.config, torch.is_grad_enabled()
        far = torch.maximum(rays.far, rays.near)  # a ray that misses, among others that hit, has no length
        lengths = rays.lengths()
        depths = stratified(rays.near, far, c.coarse, generator, training)
        borders = edges(depths, rays.near, far)
        told = (volumes, low, high, context)
        thrifty = c.stop > 0 and not training
        ask_in_order = self._ask_front_to_back if thrifty else self._ask
        density, colour, trunk = ask_in_order(rays, depths, told)
        weights = ray_weights(density, borders, lengths)
        coarse_rgb = composite(weights, colour) + (1 - weights.sum(dim=-1, keepdim=True)) * behind.rgb
        if c.fine:
            extra = importance(borders, weights, c.fine, generator, training)
            if measured is not None and c.guided:
                guided = around_depth(measured, c.spread, c.guided, generator)
                known = ((measured > rays.near) & (measured < far))[..., None]
                extra = torch.cat([extra[..., c.guided :], torch.where(known, guided, extra[..., : c.guided])], dim=-1)
            extra = torch.minimum(torch.maximum(extra, rays.near[..., None]), far[..., None])
            # One network serves both passes, so what it said at the coarse depths is used again.
            wanted = None
            if thrifty:  # not behind what the first pass has found to be opaque
                gone = torch.cat([torch.zeros_like(weights[..., :1]), weights.cumsum(dim=-1)], dim=-1)
                before = torch.searchsorted(borders.contiguous(), extra.contiguous()).sub(1).clamp(min=0)
                wanted = gone.gather(-1, before) < 1 - c.stop
            for_fine = self._ask(rays, extra, told, wanted)
            density, colour, trunk = (
                torch.cat(pair, dim=2) for pair in zip((density, colour, trunk), for_fine, strict=True)
            )
            depths, place = torch.cat([depths, extra], dim=-1).sort(dim=-1)
            sorted_weights = ray_weights(density.gather(-1, place), edges(depths, rays.near, far), lengths)
            # Colours and trunks stay where they are; only weights and depths, one number each, are put in order.
            weights = torch.zeros_like(sorted_weights).scatter(-1, place, sorted_weights)
            depths = torch.zeros_like(depths).scatter(-1, place, depths)
        opacity = weights.sum(dim=-1)
        depth = (weights * depths).sum(dim=-1) / opacity.clamp(min=1e-6)
        past = (1 - opacity)[..., None]
        feature = None
        if self.feature is not None and behind.feature is not None:
            # The head is linear: applied to the composited trunk it gives the composited features.
            feature = F.linear(composite(weights, trunk), self.feature.weight).float()
            feature = feature + opacity[..., None] * self.feature.bias + past * behind.feature
        return Rendering(composite(weights, colour) + past * behind.rgb, coarse_rgb, depth, opacity, feature)

    def _ask(self, rays: Rays, depths: Tensor, told: Told, wanted: Tensor | None = None) -> Asked:
        """Density [B, R, S], colour [B, R, S, 3] and trunk [B, R, S, width] at depths [B, R, S].

        Args:
            told: volumes, low, high, context. wanted: [B, R, S] bool, None for all; elsewhere the density is 0.
        """
        points = rays.points(depths)
        shape = points.shape[:-1]
        unit = F.normalize(rays.directions, dim=-1)[:, :, None].expand_as(points).flatten(1, 2)
        points = points.flatten(1, 2)
        chosen = None
        if wanted is not None and not wanted.all():
            # For each sample of the batch its own, as many as the one that wants most; those beyond are true as well.
            most = max(1, int(wanted.flatten(1).sum(dim=1).max()))
            chosen = wanted.flatten(1).int().argsort(dim=1, descending=True, stable=True)[:, :most]
            points, unit = take(points, chosen), take(unit, chosen)
        density, colour, trunk = self._query(points, unit, told)
        if chosen is not None:
            count = shape[1] * shape[2]
            density, colour, trunk = (_scatter(answer, chosen, count) for answer in (density, colour, trunk))
        return density.view(shape), colour.view(*shape, 3), trunk.view(*shape, -1)

    def _query(self, points: Tensor, unit: Tensor, told: Told) -> Asked:
        """The network's answers at points [B, N, 3] seen along unit directions [B, N, 3]."""
        volumes, low, high, context = told
        condition = [sample_volume(volume.float(), points, a, b) for volume, a, b in volumes]
        if context is not None:
            condition.append(context[:, :, None].expand(-1, -1, points.shape[1]))
        inside = (points - low[:, None]) / (high - low)[:, None] * 2 - 1
        return self.network(inside, unit, torch.cat(condition, dim=1).transpose(1, 2))

    def features_at(self, points: Tensor, told: Told) -> Tensor:
        """[B, N, F] the teacher's feature at points [B, N, 3], as seen from above; without a teacher what the network
        makes of them, [B, N, width]."""
        down = torch.tensor([0.0, 0.0, -1.0], device=points.device).expand_as(points)
        trunk = self._query(points, down, told)[2]
        return (trunk if self.feature is None else self.feature(trunk)).float()

    def _ask_front_to_back(self, rays: Rays, depths: Tensor, told: Told) -> Asked:
        """As `_ask`, but of rays that nothing gets past any more no further."""
        borders = edges(depths, rays.near, torch.maximum(rays.far, rays.near))
        parts: list[Asked] = []
        passed = torch.zeros_like(rays.near)  # optical length so far
        for first in range(0, depths.shape[-1], STRETCH):
            some = depths[..., first : first + STRETCH]
            wanted = (passed < -math.log(self.config.stop))[..., None].expand_as(some)
            parts.append(self._ask(rays, some, told, wanted))
            steps = borders[..., first : first + some.shape[-1] + 1].diff(dim=-1)
            passed = passed + (parts[-1][0] * steps).sum(dim=-1) * rays.lengths()
        density, colour, trunk = (torch.cat(answer, dim=2) for answer in zip(*parts, strict=True))
        return density, colour, trunk


def _scatter(values: Tensor, chosen: Tensor, count: int) -> Tensor:
    """[B, count, ...] with the values [B, N, ...] at the places `chosen` [B, N] and 0 elsewhere."""
    index = chosen.view(*chosen.shape, *[1] * (values.dim() - 2)).expand_as(values)
    return values.new_zeros(len(values), count, *values.shape[2:]).scatter(1, index, values)


class Background(nn.Module):
    """What a ray shows that ends nowhere in the box: the same for all scenes, so it holds floor, walls and sky.

    Args:
        features: channels of the teacher. learned: a small network on where the ray comes from and where it meets the
            floor and the plane of the box's bottom; false for one colour and one feature.
    """

    WIDTH, FREQUENCIES = 128, 6

    def __init__(self, features: int, learned: bool) -> None:
        super().__init__()
        self.features = features
        self.constant = nn.Parameter(torch.zeros(3 + features))
        self.network = (
            nn.Sequential(
                nn.Linear(3 + 3 * 3 * (1 + 2 * self.FREQUENCIES), self.WIDTH),
                nn.ReLU(),
                nn.Linear(self.WIDTH, self.WIDTH),
                nn.ReLU(),
                nn.Linear(self.WIDTH, 3 + features),
            )
            if learned
            else None
        )

    def forward(self, unmoved: Tensor, bottom: Tensor) -> tuple[Tensor, Tensor | None]:
        """Colour [B, R, 3] and feature [B, R, F] of rays given as origin and direction [B, R, 6] in the world. bottom:
        [B] heights of the boxes' bottoms."""
        out = self.constant.expand(*unmoved.shape[:-1], -1)
        if self.network is not None:
            origin, direction = unmoved[..., :3], F.normalize(unmoved[..., 3:], dim=-1)
            encoded = [origin, positional_encoding(direction, self.FREQUENCIES, 1.5)]
            # Where the ray meets the floor (z = 0) and a table's height: there is the edge of either, wherever the
            # camera stands.
            for height in (torch.zeros_like(bottom), bottom):
                way = (origin[..., 2] - height[:, None]) / (-direction[..., 2]).clamp(min=1e-3)
                met = origin + way[..., None] * direction
                met = met / (1 + met.norm(dim=-1, keepdim=True))  # drawn into a ball: the horizon stays finite
                encoded.append(positional_encoding(met, self.FREQUENCIES, 1.5))
            out = out + self.network(torch.cat(encoded, dim=-1)).float()
        return out[..., :3].sigmoid(), out[..., 3:] if self.features else None
