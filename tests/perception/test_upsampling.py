"""The fused upsampling and convolution against the two of them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from perception.upsampling import UpsampledConvolution, fine_to_coarse


def plain(fused: UpsampledConvolution, volume: torch.Tensor) -> torch.Tensor:
    scale, kernel = fused.taps.shape[:2]
    fine = F.interpolate(volume, scale_factor=scale, mode="trilinear", align_corners=False)
    return F.conv3d(F.pad(fine, [kernel // 2] * 6, mode="replicate"), fused.weight, fused.bias)


@pytest.mark.parametrize(("kernel", "scale"), [(5, 5), (3, 2), (5, 2), (3, 5), (1, 3), (7, 3)])
@pytest.mark.parametrize("shape", [(4, 3, 5), (1, 2, 6)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])  # a CPU's and a GPU's
def test_it_is_the_same_function_with_the_same_gradients(monkeypatch, layout, kernel, scale, shape, dtype):
    monkeypatch.setattr("perception.upsampling.layout_for", lambda _: layout)
    torch.manual_seed(0)
    fused = UpsampledConvolution(3, 4, kernel, scale).to(dtype)
    fused.taps = fine_to_coarse(kernel, scale).to(dtype)
    torch.nn.init.normal_(fused.bias)
    results = []
    for function in (fused, lambda x: plain(fused, x)):
        volume = torch.randn(2, 3, *shape, dtype=dtype, generator=torch.Generator().manual_seed(1))
        volume.requires_grad_()
        fused.zero_grad()
        fine = function(volume)
        (fine * torch.linspace(-1, 1, fine.numel(), dtype=dtype).view(fine.shape)).sum().backward()
        results.append([fine.detach(), volume.grad, fused.weight.grad.clone(), fused.bias.grad.clone()])
    assert results[0][0].shape[2:] == tuple(scale * n for n in shape)
    limit = 1e-5 if dtype == torch.float32 else 1e-9  # of the largest value: sums of many terms
    for ours, reference in zip(*results, strict=True):
        assert (ours - reference).abs().max() <= limit * reference.abs().max()


def test_taps_are_shares():
    taps = fine_to_coarse(5, 5)
    assert taps.shape == (5, 5, 3)
    torch.testing.assert_close(taps.sum(dim=2), torch.ones(5, 5, dtype=taps.dtype))
    assert taps[2, 2].tolist() == [0, 1, 0]  # the middle of a coarse cell is its own value


def test_half_precision_goes_both_ways():
    torch.manual_seed(0)
    fused, volume = UpsampledConvolution(8, 8, 5, 5), torch.randn(1, 8, 3, 3, 3, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        fine = fused(volume)
    assert fine.dtype == torch.bfloat16
    fine.float().square().mean().backward()
    assert volume.grad.dtype == torch.float32 and fused.weight.grad.dtype == torch.float32
    torch.testing.assert_close(fine.float(), plain(fused, volume), atol=0.05, rtol=0.05)
