"""What a perfect rendering loses, and what is wrong with others."""

from __future__ import annotations

import pytest
import torch

from perception.field.losses import OPACITY, field_losses
from perception.field.rays import Rays
from perception.field.rendering import Rendering
from perception.field.views import PixelTargets


def rays() -> Rays:
    """Three: one whose pixel shows something in the box (0.5 to 2 m), one behind it, one before it."""
    zeros = torch.zeros(1, 3, 3)
    near, far = torch.full((1, 3), 0.5), torch.full((1, 3), 2.0)
    return Rays(zeros, zeros, near, far, torch.zeros(1, 3, 6))


def wanted() -> PixelTargets:
    eye = torch.eye(4).expand(1, 3, 4, 4)
    colour = torch.tensor([[[0.1, 0.2, 0.3], [0.4, 0.5, 0.6], [0.7, 0.8, 0.9]]])
    depth = torch.tensor([[1.2, 3.0, 0.3]])
    return PixelTargets(torch.zeros(1, 3, 2), eye[..., :3, :3], eye, colour, depth, colour.repeat(1, 1, 2))


def perfect() -> Rendering:
    aim = wanted()
    return Rendering(aim.rgb, aim.rgb, torch.tensor([[1.2, 0.0, 0.0]]), torch.tensor([[1.0, 0.0, 0.4]]), aim.feature)


def test_a_perfect_rendering_loses_nothing():
    losses = field_losses(perfect(), wanted(), rays())
    assert set(losses) == {"recon", "feat", "depth"}
    assert all(loss.item() == pytest.approx(0.0, abs=1e-7) for loss in losses.values())


def test_colour_counts_coarse_and_fine():
    seen = perfect()
    seen.coarse_rgb = seen.rgb + 0.1
    assert field_losses(seen, wanted(), rays())["recon"].item() == pytest.approx(0.01, rel=1e-4)
    seen.rgb = seen.coarse_rgb
    assert field_losses(seen, wanted(), rays())["recon"].item() == pytest.approx(0.02, rel=1e-4)


def test_depth_counts_only_in_the_box_and_opacity_where_it_is_known():
    seen = perfect()
    seen.depth = torch.tensor([[1.5, 1.0, 1.0]])
    assert field_losses(seen, wanted(), rays())["depth"].item() == pytest.approx(0.3 / 3, rel=1e-4)
    seen = perfect()
    seen.opacity = torch.tensor([[0.25, 0.5, 0.9]])  # of the third nothing is known: something stands before the box
    assert field_losses(seen, wanted(), rays())["depth"].item() == pytest.approx(OPACITY * (0.75 + 0.5) / 3, rel=1e-4)


def test_no_teacher_no_feature_loss():
    seen = perfect()
    seen.feature = None
    assert "feat" not in field_losses(seen, wanted(), rays())
