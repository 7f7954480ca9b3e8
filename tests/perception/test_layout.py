"""Borders around volumes against PyTorch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from perception.layout import with_borders, without_borders


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize("reach", [1, 2])
@pytest.mark.parametrize("shape", [(4, 3, 5), (1, 2, 1)])
def test_borders_and_their_gradient_are_those_of_replicate(shape, reach, layout):
    torch.manual_seed(0)
    volumes = [torch.randn(2, 3, *shape, requires_grad=True), torch.randn(2, 1, *shape, requires_grad=True)]
    wanted = F.pad(torch.cat(volumes, dim=1), [reach] * 6, mode="replicate")
    found = with_borders([volume.detach() for volume in volumes], reach, torch.float32, layout)
    assert torch.equal(found, wanted) and found.is_contiguous(memory_format=layout)
    gradient = torch.randn(found.shape).contiguous(memory_format=layout)
    expected = torch.autograd.grad(wanted, volumes, gradient.clone())
    for ours, reference in zip(without_borders(gradient, reach).split([3, 1], dim=1), expected, strict=True):
        torch.testing.assert_close(ours, reference)
