"""Where tensors live: this machine's CPU, or a GPU."""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import torch

from manifield.errors import InputError, choose

DEVICES = ("auto", "cpu", "cuda")
T = TypeVar("T")


def find_device(name: str, processes: int = 1) -> torch.device:
    """The device that a config's word means: auto is a GPU where there is one for each process.

    Raises:
        InputError: an unknown word, or GPUs that are not there.
    """
    choose(name, DEVICES, "device")
    there = torch.cuda.device_count() if name != "cpu" and torch.cuda.is_available() else 0
    if name == "cuda" and there < processes:
        raise InputError(
            f"device=cuda with {processes} process(es), but PyTorch sees {there} GPU(s): device=cpu, or auto"
        )
    if name == "cpu" or there < processes:
        return torch.device("cpu")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is not deterministic without
    return torch.device("cuda")


def moved(value: T, device: torch.device | str) -> T:
    """Tensors on a device, also those in dataclasses, lists and mappings; what is there already is not copied."""
    found: Any = value
    if isinstance(value, torch.Tensor):
        found = value.to(device)
    elif is_dataclass(value) and not isinstance(value, type):
        found = replace(value, **{f.name: moved(getattr(value, f.name), device) for f in fields(value)})
    elif isinstance(value, list | tuple):
        found = type(value)(moved(part, device) for part in value)
    elif isinstance(value, Mapping):
        found = {key: moved(part, device) for key, part in value.items()}
    return found


def peak_memory(device: torch.device | str = "cpu") -> float:
    """The most memory that this process has had so far, GiB: on a GPU that of its tensors there, else its resident
    memory."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux tells it in KiB
