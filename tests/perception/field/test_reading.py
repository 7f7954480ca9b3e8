"""Reading a volume: the same values and gradients as `grid_sample`, in one piece."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from perception.field.reading import VolumeReader
from perception.voxels import sample_volume

LOW, HIGH = torch.tensor([[-0.3, -0.5, 0.6], [0.0, 0.1, 0.2]]), torch.tensor([[0.7, 0.5, 1.3], [0.4, 0.9, 1.4]])


def points(seed: int, count: int) -> torch.Tensor:
    """Some of them outside the boxes."""
    torch.manual_seed(seed)
    return LOW[:, None] + (HIGH - LOW)[:, None] * (torch.rand(2, count, 3) * 1.4 - 0.2)


@pytest.mark.parametrize("channels_last", [False, True])
def test_values_and_gradients_of_several_readings(channels_last):
    torch.manual_seed(0)
    volume = torch.randn(2, 5, 6, 7, 4)
    if channels_last:
        volume = volume.contiguous(memory_format=torch.channels_last_3d)
    volume.requires_grad_()
    ours = (volume * 1.0) if channels_last else volume  # a leaf and what comes out of a layer
    reader, places = VolumeReader(ours, LOW, HIGH), [points(1, 50), points(2, 9)]
    read = [reader.at(p) for p in places]
    plain = [sample_volume(volume, p, LOW, HIGH).transpose(1, 2) for p in places]
    weights = [torch.randn_like(r) for r in read]
    for a, b in zip(read, plain, strict=True):
        assert torch.equal(a, b)
    for _ in range(2):  # a second time, from the same graph
        (found,) = torch.autograd.grad(
            [(a * w).sum() for a, w in zip(read, weights, strict=True)], volume, retain_graph=True
        )
        (expected,) = torch.autograd.grad(
            [(a * w).sum() for a, w in zip(plain, weights, strict=True)], volume, retain_graph=True
        )
        torch.testing.assert_close(found, expected)
    (alone,) = torch.autograd.grad(read[1].sum(), volume)  # of one reading only
    torch.testing.assert_close(alone, torch.autograd.grad(plain[1].sum(), volume)[0])
    assert not reader._readings.waiting


def test_without_gradients_nothing_waits():
    volume = torch.randn(2, 5, 6, 7, 4)
    assert not VolumeReader(volume, LOW, HIGH).at(points(1, 3)).requires_grad
    reader = VolumeReader(volume.requires_grad_(), LOW, HIGH)
    with torch.no_grad():
        assert not reader.at(points(1, 3)).requires_grad
    assert reader.at(points(1, 3)).requires_grad


def test_no_circle_keeps_a_volume_in_memory():
    volume = torch.randn(2, 5, 6, 7, 4, requires_grad=True) * 1.0
    reader = VolumeReader(volume, LOW, HIGH)
    reader.at(points(1, 3)).sum().backward()
    alive = weakref.ref(volume)
    gc.disable()
    try:
        del volume, reader
        assert alive() is None
    finally:
        gc.enable()
