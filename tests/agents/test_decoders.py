"""The published decoder against a plain one, and its spatial softmax against its definition."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agents.decoders import TEMPERATURE, PublishedDecoder, place_and_peak


def plain_place(volume: Tensor) -> Tensor:
    share = (volume.flatten(2) / TEMPERATURE).softmax(dim=2).view(volume.shape)
    axes = [torch.linspace(-1, 1, n, dtype=volume.dtype) for n in volume.shape[2:]]
    x = (share.sum(dim=(3, 4)) * axes[0]).sum(2)
    y = (share.sum(dim=(2, 4)) * axes[1]).sum(2)
    z = (share.sum(dim=(2, 3)) * axes[2]).sum(2)
    return torch.stack([x, y, z], dim=2).flatten(1)


def plain_pool(volume: Tensor) -> list[Tensor]:
    return [plain_place(volume), volume.amax(dim=(2, 3, 4))]


def test_where_a_channel_has_its_mass():
    volume = torch.zeros(1, 2, 5, 3, 9)
    volume[0, 0, 4, 0, 4], volume[0, 1, 0, 2, 8] = 1.0, 2.0
    place, peak = place_and_peak(volume)
    assert place[0].tolist() == pytest.approx([1, -1, 0, -1, 1, 1], abs=1e-5)
    assert peak[0].tolist() == [1.0, 2.0]


@pytest.mark.parametrize("at_once", [1, 2, 64])  # a CPU's and a GPU's
@pytest.mark.parametrize("channels_last", [False, True])
def test_places_and_their_gradients(monkeypatch, channels_last, at_once):
    monkeypatch.setattr("agents.decoders._at_once", lambda _: at_once)
    torch.manual_seed(0)
    values = 0.02 * torch.randn(2, 3, 4, 5, 6)
    if channels_last:
        values = values.contiguous(memory_format=torch.channels_last_3d)
    results = []
    for function in (place_and_peak, plain_pool):
        volume = values.clone().requires_grad_()
        place = torch.cat(list(function(volume)), dim=1)
        (place * torch.linspace(-1, 1, place.numel()).view(place.shape)).sum().backward()
        results.append((place.detach(), volume.grad))
    for ours, reference in zip(*results, strict=True):
        torch.testing.assert_close(ours, reference, atol=1e-5, rtol=1e-4)


def test_places_keep_their_digits_in_half_precision():
    torch.manual_seed(0)
    volume = (0.02 * torch.randn(1, 2, 20, 20, 20)).bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        place, peak = place_and_peak(volume)
    torch.testing.assert_close(place, plain_place(volume.detach().float()), atol=1e-5, rtol=1e-4)
    (place.sum() + peak.sum()).backward()
    assert volume.grad.dtype == torch.bfloat16 and volume.grad.isfinite().all()


def plain_decoder(decoder: PublishedDecoder, volume: Tensor, read: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The layers as published: one after the other, upsampling made."""
    patch = len(decoder.second.taps)
    second = nn.Conv3d(*reversed(decoder.second.weight.shape[:2]), 5, padding=2, padding_mode="replicate")
    second.weight, second.bias = decoder.second.weight, decoder.second.bias
    fine = nn.Upsample(scale_factor=patch, mode="trilinear", align_corners=False)(F.relu(decoder.first(read)))
    features = F.relu(plain_convolution(decoder.final, torch.cat([volume, F.relu(second(fine))], dim=1)))
    pooled = [x for v in (volume, read, features) for x in plain_pool(v)]
    return plain_convolution(decoder.q, features), features, torch.cat(pooled, dim=1)


def plain_convolution(layer: nn.Conv3d, volume: Tensor) -> Tensor:
    return F.conv3d(F.pad(volume, [1] * 6, mode="replicate"), layer.weight, layer.bias)


def test_the_published_decoder_is_the_plain_one():
    torch.manual_seed(0)
    decoder = PublishedDecoder(channels=4, read=6, patch=5)
    results = []
    for function in (decoder, lambda v, r, *_: plain_decoder(decoder, v, r)):
        volume = (0.1 * torch.randn(2, 4, 10, 15, 5, generator=torch.Generator().manual_seed(1))).requires_grad_()
        read = (0.1 * torch.randn(2, 6, 2, 3, 1, generator=torch.Generator().manual_seed(2))).requires_grad_()
        decoder.zero_grad()
        q, features, pooled = function(volume, read, None, None)
        pooled = torch.cat(pooled, dim=1) if isinstance(pooled, list) else pooled
        assert pooled.shape[1] == decoder.pooled
        (q.square().mean() + features.mean() + 0.01 * pooled.square().mean()).backward()
        weights = [p.grad.clone() for p in decoder.parameters()]
        results.append([q.detach(), features.detach(), pooled.detach(), volume.grad, read.grad, *weights])
    for ours, reference in zip(*results, strict=True):
        torch.testing.assert_close(ours, reference, atol=1e-4, rtol=1e-3)
