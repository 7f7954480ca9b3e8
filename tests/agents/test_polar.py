"""The polar head turns its answer with the scene."""

import torch

from agents.polar import PolarHead


def test_turning_the_scene_turns_the_answer():
    torch.manual_seed(0)
    head = PolarHead([6, 4], context=5, bins=72)
    low, high = [-torch.ones(1, 3), -0.5 * torch.ones(1, 3)], [torch.ones(1, 3), 0.5 * torch.ones(1, 3)]
    features = [torch.randn(1, 6, 9, 9, 5), torch.randn(1, 4, 11, 11, 5)]
    context, middle = torch.randn(1, 5), torch.zeros(1, 3)
    before = head(features, low, high, middle, context)
    turned = [volume.rot90(1, dims=(2, 3)) for volume in features]  # 90° from x to y, about the box's middle
    after = head(turned, low, high, middle, context)
    assert before.std() > 1e-3
    assert torch.allclose(after, before.roll(18, dims=1), atol=1e-4)


def test_words_and_place_matter():
    torch.manual_seed(0)
    head = PolarHead([6], context=5, bins=72)
    low, high, features = [-torch.ones(1, 3)], [torch.ones(1, 3)], [torch.randn(1, 6, 9, 9, 9)]
    here = head(features, low, high, torch.zeros(1, 3), torch.zeros(1, 5))
    assert not torch.allclose(here, head(features, low, high, torch.full((1, 3), 0.3), torch.zeros(1, 5)))
    assert not torch.allclose(here, head(features, low, high, torch.zeros(1, 3), torch.ones(1, 5)))
