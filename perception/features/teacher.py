"""What all feature teachers share: pictures in, one feature a patch out, and an identity that tells them apart.

A teacher is never trained. Whoever keeps its features keeps its identity with them, and refuses those of another.
"""

from __future__ import annotations

import hashlib
import os
import socket
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit
from urllib.request import getproxies

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manifield.configuration import make
from manifield.errors import InputError

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
Normalisation = tuple[tuple[float, ...], tuple[float, ...]]


class Teacher(ABC):
    """Dense features of pictures.

    name: the teacher's word. channels: of a feature. side: pictures are resized to side x side pixels before the
    network sees them. stride: of these pixels from one feature to the next. normalisation: mean and standard deviation
    of colours in [0, 1] that the network expects. prompt: what it is told beside the picture, "{instruction}" in it
    standing for the episode's; None if it is told nothing.
    identity: one line that names everything that decides the features; equal lines, equal features.
    """

    name: str
    channels: int
    side: int
    stride: int
    normalisation: Normalisation
    prompt: str | None = None
    identity: str
    device = torch.device("cpu")

    def to(self, device: torch.device) -> Self:
        """Move its networks to a device and look at pictures there."""
        for part in vars(self).values():
            if isinstance(part, nn.Module):
                part.to(device)
        self.device = device
        return self

    def __call__(self, pictures: np.ndarray, instruction: str = "") -> np.ndarray:
        """Features [N, h, w, channels] float32 that cover each picture evenly; h = w = side / stride.

        Args:
            pictures: [N, H, W, 3] uint8.
            instruction: the task in words, for teachers with a prompt.

        Raises:
            InputError: pictures of another shape or type.
        """
        pictures = np.asarray(pictures)
        if pictures.ndim != 4 or pictures.shape[3] != 3 or pictures.dtype != np.uint8 or pictures.size == 0:
            raise InputError(
                f"{self.name}: pictures must be [N, H, W, 3] uint8, not {list(pictures.shape)} {pictures.dtype}"
            )
        pixels = torch.from_numpy(pictures).to(self.device).permute(0, 3, 1, 2).float() / 255
        if pixels.shape[2:] != (self.side, self.side):
            pixels = F.interpolate(pixels, (self.side, self.side), mode="bilinear", antialias=True)
        mean, deviation = (pixels.new_tensor(values).view(1, 3, 1, 1) for values in self.normalisation)
        with torch.inference_mode():
            features = self._features((pixels - mean) / deviation, (self.prompt or "").format(instruction=instruction))
        expected = (len(pictures), self.channels, self.side // self.stride, self.side // self.stride)
        if features.shape != expected:
            raise InputError(f"{self.identity}: gave features {list(features.shape)} instead of {list(expected)}")
        return np.ascontiguousarray(features.float().permute(0, 2, 3, 1).cpu().numpy())

    @abstractmethod
    def _features(self, pixels: Tensor, prompt: str) -> Tensor:
        """[N, channels, h, w] of normalised pixels [N, 3, side, side]."""

    def _identify(self, *modules: nn.Module, **settings: object) -> str:
        """The line that tells this teacher from others: its settings, and a digest of the weights that it uses.

        Weights are told apart by what they are, not by where they came from.
        """
        mean, deviation = self.normalisation
        settings |= {"side": self.side, "mean": _numbers(mean), "std": _numbers(deviation)}
        if self.prompt is not None:
            settings["prompt"] = repr(self.prompt)
        settings["weights"] = digest(*modules)
        return " ".join([self.name, *(f"{key}={value}" for key, value in settings.items())])


def make_teacher(config: Mapping[str, Any]) -> Teacher:
    """The teacher that a config of group `teacher` describes.

    Raises:
        InputError: a wrong setting, weights that are missing or not the right ones, a package that is not installed.
    """
    teacher: Teacher = make(config)
    return teacher


def digest(*modules: nn.Module) -> str:
    """Twelve hexadecimal digits that stand for all names and values of the modules' weights."""
    sha = hashlib.sha256()
    for module in modules:
        for name, value in sorted(module.state_dict().items()):
            sha.update(f"{name} {value.dtype} {list(value.shape)} ".encode())
            sha.update(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy())
    return sha.hexdigest()[:12]


def input_of(module: nn.Module, run: Callable[[], object]) -> Tensor:
    """The first argument of `module` when `run` comes to it. What would come after is not computed."""

    class Reached(Exception):
        pass

    def stop(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        raise Reached(arguments[0])

    hook = module.register_forward_pre_hook(stop)
    try:
        run()
    except Reached as reached:
        tensor: Tensor = reached.args[0]
        return tensor
    finally:
        hook.remove()
    raise RuntimeError(f"{type(module).__name__} was not used")


def need(package: str, extra: str, teacher: str) -> Any:
    """Import a package that is heavy, or only in an extra.

    Raises:
        InputError: it is not installed.
    """
    stay_local_without_network()
    mend_torchvision()
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        wanted = f"'.[{extra}]'" if extra else "."
        raise InputError(f"teacher={teacher} needs {package}: pip install -e {wanted}") from None


def mend_torchvision() -> None:
    """Make torchvision importable where it was built for another PyTorch than the one installed.

    pip pairs the CPU build of PyTorch with torchvision's CUDA build. That one finds its compiled operators missing,
    fails at the first of them, and takes open_clip, diffusers and parts of transformers along. Nothing here calls these
    operators, so it is enough that they are declared.
    """
    if "torchvision" in sys.modules or find_spec("torchvision") is None:
        return
    try:
        import_module("torchvision")
    except RuntimeError as error:
        if "does not exist" not in str(error):
            raise
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        for operator in ("nms", "qnms"):
            _OPERATORS.append(torch.library.Library("torchvision", "FRAGMENT"))
            _OPERATORS[-1].define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import_module("torchvision")


_OPERATORS: list[torch.library.Library] = []  # a declaration lasts as long as its object


def stay_local_without_network() -> None:
    """Where the hub's name is not even known, let its client look for local copies at once, not after its retries."""
    if "huggingface_hub" in sys.modules or "https" in getproxies():  # too late, or the proxy knows the name
        return
    host = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co")).hostname
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")


def unavailable(teacher: str, weights: str, error: Exception) -> InputError:
    """The one line for weights that cannot be loaded from a folder or from the Hugging Face hub."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = (lines[0] if lines else type(error).__name__)[:200]
    if Path(weights).is_dir():
        return InputError(
            f"teacher={teacher}: {weights} does not hold its weights ({reason}): give teacher.weights=FOLDER"
        )
    return InputError(
        f"teacher={teacher}: weights '{weights}' are no folder, nor to be had from the Hugging Face hub ({reason}): "
        "download them where there is a network, and give teacher.weights=FOLDER"
    )


def _numbers(values: tuple[float, ...]) -> str:
    return ",".join(f"{value:g}" for value in values)
