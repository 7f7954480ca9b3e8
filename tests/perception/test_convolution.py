"""The convolution with shared products against the plain one."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from perception.convolution import Convolution


@pytest.mark.parametrize("shape", [(8, 5, 6), (7, 3, 4), (1, 1, 1), (2, 9, 3)])
@pytest.mark.parametrize(("channels", "out"), [((5,), 4), ((3, 4), 4), ((5,), 1)])
@pytest.mark.parametrize("on_gpu", [False, True])
def test_it_is_the_same_function_with_the_same_gradients(monkeypatch, on_gpu, channels, out, shape):
    monkeypatch.setattr("perception.convolution.layout_for", lambda _: torch.channels_last_3d)
    torch.manual_seed(0)
    convolution = Convolution(sum(channels), out)
    results = []
    for function in (
        convolution.plain if on_gpu else convolution,
        lambda *v: F.conv3d(F.pad(torch.cat(v, 1), [1] * 6, "replicate"), convolution.weight, convolution.bias),
    ):
        draw = torch.Generator().manual_seed(1)
        volumes = [torch.randn(2, c, *shape, generator=draw).requires_grad_() for c in channels]
        convolution.zero_grad()
        found = function(*volumes)
        (found * torch.linspace(-1, 1, found.numel()).view(found.shape)).sum().backward()
        gradients = [v.grad for v in volumes]
        results.append([found.detach(), *gradients, convolution.weight.grad.clone(), convolution.bias.grad.clone()])
    for ours, reference in zip(*results, strict=True):
        torch.testing.assert_close(ours, reference, atol=1e-4, rtol=1e-4)


def test_half_precision_goes_both_ways():
    torch.manual_seed(0)
    convolution, volume = Convolution(8, 8), torch.randn(1, 8, 3, 3, 3, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        found = convolution(volume)
    assert found.dtype == torch.bfloat16
    found.float().square().mean().backward()
    assert volume.grad.dtype == torch.float32
    torch.testing.assert_close(found.float(), convolution(volume), atol=0.05, rtol=0.05)
