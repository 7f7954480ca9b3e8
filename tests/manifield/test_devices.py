"""Where tensors live."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from manifield.devices import find_device, moved
from manifield.errors import InputError


def test_a_gpu_that_is_not_there_is_one_line(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_device("auto") == find_device("cpu") == torch.device("cpu")
    with pytest.raises(InputError, match="device=cuda.* 2 process.* 0 GPU"):
        find_device("cuda", 2)
    with pytest.raises(InputError, match="unknown device 'gpu'"):
        find_device("gpu")


def test_every_process_needs_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert find_device("auto") == find_device("cuda") == torch.device("cuda")
    assert find_device("auto", 2) == find_device("cpu") == torch.device("cpu")


@dataclass(frozen=True)
class Pair:
    first: torch.Tensor
    others: list[torch.Tensor]
    name: str
    missing: torch.Tensor | None = None


def test_tensors_move_wherever_they_lie():
    pair = Pair(torch.ones(2), [torch.zeros(3)], "pair")
    there = moved({"pair": (pair, 1)}, "meta")["pair"][0]
    assert (there.first.device.type, there.others[0].device.type, there.name) == ("meta", "meta", "pair")
    assert there.missing is None and pair.first.device.type == "cpu"
    assert moved(pair, "cpu").first is pair.first
