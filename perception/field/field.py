"""The generalizable neural feature field (GNFactor, section 3.3): colour, depth and features along any ray, from the
deep volume that the agent acts on.

Density and colour at a point depend on the volume's trilinear feature there, on the position in the box and on the
viewing direction. What lies outside the box is a background that all scenes share.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perception.field.answers import Answers
from perception.field.empty import EmptySpace, survey_points
from perception.field.network import FieldNetwork, positional_encoding
from perception.field.rays import Rays, take
from perception.field.rendering import Rendering, ray_weights
from perception.field.sampling import around_depth, edges, importance, stratified
from perception.field.told import Told

SURVEYED = 16384  # points at once
IN_FRONT = 0.03
"""Metres in front of what was measured up to which nothing is said to be: about a soft surface's depth."""
STRETCH = 4
"""Samples along a ray that are asked for before it is decided whether to go on."""


@dataclass(frozen=True)
class FieldConfig:
    """Sizes and switches of the field.

    width, blocks, injections: of the network. frequencies, base: of the positional encoding. coarse, fine: samples a
    ray; guided: how many of the fine ones training puts around the measured depth, scattered by `spread` metres.
    sift: whether training looks first, without gradients, which samples hold something (on a CPU only). pictures:
    whether it is told pictures too. background: "learned" (from the ray) or "constant". stop: a ray ends where no more
    than this part of it gets past; 0 for never. empty: density (per metre) up to which training takes a
    sample for nothing.
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
    sift: bool = True
    stop: float = 3e-3
    empty: float = 0.002
    background: str = "learned"
    pictures: bool = False


class NeuralField(nn.Module):
    """Renders rays through volumes.

    Args:
        config: sizes. channels: of all together that it is told about a point (`Told.at`). features: channels of the
            teacher, 0 for none.
    """

    def __init__(self, config: FieldConfig, channels: int, features: int = 0) -> None:
        super().__init__()
        self.config = config
        c = config
        self.network = FieldNetwork(channels, c.width, c.blocks, c.injections, c.frequencies, c.base, c.pictures)
        self.feature = nn.Linear(c.width, features) if features else None
        self.background = Background(features, c.background == "learned")

    def forward(
        self,
        told: Told,
        rays: Rays,
        generator: torch.Generator | None = None,
        measured: Tensor | None = None,
    ) -> Rendering:
        """Render rays through scenes.

        Args:
            told: what is known of them. rays: clipped to its box.
            measured: [B, R] depth that was measured along each ray, which guides sampling in training. With gradients
                off, samples are placed without chance.
        """
        # Rays that hit come first; those that miss cost nothing but their background.
        order = rays.hits.int().argsort(dim=1, descending=True, stable=True)
        chosen = order[:, : int(rays.hits.sum(dim=1).max())]
        behind_rgb, behind_feature = self.background(rays.unmoved, told.low[:, 2])
        nothing = torch.zeros_like(rays.near)
        missed = Rendering(behind_rgb, behind_rgb, nothing, nothing, behind_feature)
        if not chosen.shape[1]:
            return missed
        some = rays.take(chosen)
        guide = None if measured is None else measured.gather(1, chosen)
        hit = self._march(told, some, missed.take(chosen), generator, guide)
        return missed.put(chosen, hit)

    def _march(
        self,
        told: Told,
        rays: Rays,
        behind: Rendering,
        generator: torch.Generator | None,
        measured: Tensor | None,
    ) -> Rendering:
        """What rays show that hit their box, in front of a background."""
        c, training = self.config, torch.is_grad_enabled()
        far = torch.maximum(rays.far, rays.near)  # a ray that misses, among others that hit, has no length
        lengths = rays.lengths()
        depths = stratified(rays.near, far, c.coarse, generator, training)
        borders = edges(depths, rays.near, far)
        answers = Answers((*rays.near.shape, c.coarse + c.fine))
        self._ask_in_order(told, rays, depths, 0, answers)
        none = depths.new_zeros(*depths.shape[:2], c.fine)
        density = answers.density()
        weights = ray_weights(density[..., : c.coarse], borders, lengths)
        coarse_rgb = answers.colour(torch.cat([weights, none], dim=-1))
        coarse_rgb = coarse_rgb + (1 - weights.sum(dim=-1, keepdim=True)) * behind.rgb
        if c.fine:
            extra = importance(borders, weights, c.fine, generator, training)
            if measured is not None and c.guided:
                guided = around_depth(measured, c.spread, c.guided, generator)
                known = ((measured > rays.near) & (measured < far))[..., None]
                extra = torch.cat([extra[..., c.guided :], torch.where(known, guided, extra[..., : c.guided])], dim=-1)
            extra = torch.minimum(torch.maximum(extra, rays.near[..., None]), far[..., None])
            extra = extra.sort(dim=-1).values
            # One network serves both passes, so what it said at the coarse depths is used again.
            self._ask_in_order(told, rays, extra, c.coarse, answers)
            depths, order = torch.cat([depths, extra], dim=-1).sort(dim=-1)
            density = answers.density().gather(-1, order)
            weights = ray_weights(density, edges(depths, rays.near, far), lengths)
            # Colours and trunks stay where they are; only weights and depths, one number each, are put in order.
            depths = torch.zeros_like(depths).scatter(-1, order, depths)
            weights = torch.zeros_like(weights).scatter(-1, order, weights)
        opacity = weights.sum(dim=-1)
        depth = (weights * depths).sum(dim=-1) / opacity.clamp(min=1e-6)
        past = (1 - opacity)[..., None]
        feature = None
        if self.feature is not None and behind.feature is not None:
            # The head is linear: applied to the composited trunk it gives the composited features.
            feature = F.linear(answers.trunk(weights), self.feature.weight).float()
            feature = feature + opacity[..., None] * self.feature.bias + past * behind.feature
        return Rendering(answers.colour(weights) + past * behind.rgb, coarse_rgb, depth, opacity, feature)

    def _ask_in_order(self, told: Told, rays: Rays, depths: Tensor, first: int, answers: Answers) -> None:
        """Ask the network at depths [B, R, S], front to back; of rays that nothing gets past any more, no further."""
        if not self.config.stop or (torch.is_grad_enabled() and not self._sifts(depths)):
            self._ask(told, rays, depths, first, torch.ones_like(depths, dtype=torch.bool), answers)
            return
        length, lengths, most = torch.zeros_like(rays.near), rays.lengths(), -math.log(self.config.stop)
        last = depths.new_zeros(*depths.shape[:2], 0)
        for start in range(0, depths.shape[-1], STRETCH):
            some = depths[..., start : start + STRETCH]
            going_on = (length < most)[..., None].expand_as(some)
            density = torch.cat([last, self._ask(told, rays, some, first + start, going_on, answers)], dim=-1)
            # A single sample may have met something thin: only between two that are opaque is it sure to be so.
            between = torch.minimum(density[..., 1:], density[..., :-1])
            place = depths[..., start - last.shape[-1] : start + STRETCH]
            length = length + (between * place.diff(dim=-1)).sum(dim=-1) * lengths
            last = density[..., -1:]

    def _ask(self, told: Told, rays: Rays, depths: Tensor, first: int, wanted: Tensor, answers: Answers) -> Tensor:
        """Ask the network at depths [B, R, S] where `wanted` [B, R, S] says so and space is not known to be empty.

        Args:
            first: number of the first of these samples along its ray. answers: take what the network says.

        Returns:
            [B, R, S] the densities, without gradient.
        """
        samples = depths.shape[-1]
        points = rays.points(depths).flatten(1, 2)
        wanted = wanted.flatten(1)
        if told.empty is not None:
            wanted = wanted & told.empty.may_hold(points)
        # For each scene its own, as many as the one that wants most; what it asks beyond that is true as well.
        chosen = _first_true(wanted)
        unit = take(F.normalize(rays.directions, dim=-1), chosen // samples)
        points = take(points, chosen)
        inside, condition = told.inside(points), told.at(points)
        if self._sifts(points) and first < self.config.coarse and torch.is_grad_enabled():
            # Where density is nearly 0, so is its gradient, and what the sample adds to its ray. (The fine samples lie
            # where there is something, or should be.)
            with torch.no_grad():
                found = self.network(inside, unit, condition)[0]
            kept = _first_true(found > self.config.empty)
            inside, unit, condition, chosen_too = (take(x, kept) for x in (inside, unit, condition, chosen))
            density, colour, trunk = self.network(inside, unit, condition)
        else:
            density, colour, trunk = self.network(inside, unit, condition)
            found, chosen_too = density.detach(), chosen
        place = chosen_too // samples * answers.shape[2] + first + chosen_too % samples
        answers.add(place, density, colour, trunk)
        return found.new_zeros(wanted.shape).scatter(1, chosen, found).view(depths.shape)

    def _sifts(self, tensor: Tensor) -> bool:
        """Whether training looks before it asks: on a GPU waiting for an answer takes longer than asking everywhere."""
        return self.config.sift and not tensor.is_cuda

    def _query(self, points: Tensor, unit: Tensor, told: Told) -> tuple[Tensor, Tensor, Tensor]:
        """The network's answers at points [B, N, 3] seen along unit directions [B, N, 3]."""
        return self.network(told.inside(points), unit, told.at(points))

    def haze(self, told: Told, rays: Rays, measured: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
        """The mean over rays of how much of each ends in front of the depth [B, R] that was measured along it, where
        there is nothing (the line-of-sight loss of Rematas et al. 2022, section 4). By `count` samples a ray."""
        end = torch.maximum(torch.minimum(rays.far, measured - IN_FRONT), rays.near)
        depths = stratified(rays.near, end, count, generator, True)
        points = rays.points(depths).flatten(1, 2)
        unit = F.normalize(rays.directions, dim=-1).repeat_interleave(count, dim=1)
        density = self._query(points, unit, told)[0].view(depths.shape).mean(dim=-1)
        return -torch.expm1(-density * (end - rays.near) * rays.lengths()).mean()

    @torch.no_grad()
    def survey(self, told: Told, points: Tensor | None = None, batch_index: Tensor | None = None) -> EmptySpace:
        """Where scenes are empty, to ask nothing there (`Told.empty`). points: see `EmptySpace`."""
        centres = survey_points(told.low, told.high)
        down = torch.tensor([0.0, 0.0, -1.0], device=centres.device)
        parts = [self._query(some, down.expand_as(some), told)[0] for some in centres.split(SURVEYED, dim=1)]
        return EmptySpace(told.low, told.high, torch.cat(parts, dim=1), points, batch_index)

    def features_at(self, points: Tensor, told: Told) -> Tensor:
        """[B, N, F] the teacher's feature at points [B, N, 3], as seen from above; without a teacher what the network
        makes of them, [B, N, width]."""
        down = torch.tensor([0.0, 0.0, -1.0], device=points.device).expand_as(points)
        trunk = self._query(points, down, told)[2]
        return (trunk if self.feature is None else self.feature(trunk)).float()


def _first_true(mask: Tensor) -> Tensor:
    """[B, N] places of what is true in [B, M], for each row as many as in the row that has most (and at least one);
    where a row has fewer, places that are not true fill it."""
    most = max(1, int(mask.sum(dim=1).max()))
    return mask.int().argsort(dim=1, descending=True, stable=True)[:, :most]


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
