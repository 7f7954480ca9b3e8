"""What a rendering should be like (GNFactor, section 3.3): the target's colour and feature, and its measured depth."""

from __future__ import annotations

from torch import Tensor

from perception.field.rays import Rays
from perception.field.rendering import Rendering
from perception.field.views import PixelTargets

OPACITY = 0.1  # metres of depth error that a ray counts for which ends in the box but should not, or the reverse


def field_losses(seen: Rendering, wanted: PixelTargets, rays: Rays) -> dict[str, Tensor]:
    """Losses by kind, not weighted.

    "recon": L_rgb, the squared error of colour, coarse and fine. "feat": L_feat, that of the teacher's feature; only
    if the field renders features and the targets have them. "depth" (not published): metres off the measured depth
    where that lies in the box, and `OPACITY` metres times the part of a ray that ends in the box although its pixel
    shows something behind, or gets past although it shows something within.
    """
    losses = {"recon": (seen.rgb - wanted.rgb).square().mean() + (seen.coarse_rgb - wanted.rgb).square().mean()}
    if seen.feature is not None and wanted.feature is not None:
        losses["feat"] = (seen.feature - wanted.feature).square().mean()
    within = in_box(wanted.depth, rays)
    behind = wanted.depth >= rays.far
    wrong = (1 - seen.opacity) * within + seen.opacity * behind
    losses["depth"] = ((seen.depth - wanted.depth).abs() * within + OPACITY * wrong).mean()
    return losses


def in_box(depth: Tensor, rays: Rays) -> Tensor:
    """[B, R] bool: whether what is measured along a ray lies in its box."""
    return (depth > rays.near) & (depth < rays.far)
