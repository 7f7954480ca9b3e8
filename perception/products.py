"""Winograd's F(4, 3) along one axis: four neighbouring sums of three products each from six products instead of twelve
(Lavin & Gray 2016, section 4.1). The same function up to rounding in float32.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

INTO = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
TAPS = ((6, 0, 0), (-4, -4, -4), (-4, 4, -4), (1, 2, 4), (1, -2, 4), (0, 0, 24))
OUT = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))
READ, SUMS = len(INTO), len(OUT)
"""Neighbours that are read at once, and sums that they give."""
Matrix = Sequence[Sequence[int]]


def working_dtype(weight: Tensor) -> torch.dtype:
    """What arithmetic with a weight is made in: autocast's type inside autocast, else its own."""
    kind = weight.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype


def worth_sharing(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether sharing products pays: where float32 arithmetic is the limit, not memory."""
    return device.type == "cpu" and dtype == torch.float32


class Products:
    """Convolution (no borders) with weights [out, in, 3, y, z], of slabs of slices along x.

    It keeps its buffers from slab to slab, and sums up the gradient of the weights.
    """

    def __init__(self, weight: Tensor) -> None:
        self.kernels = torch.einsum("oixyz,kx->koiyz", weight, weight.new_tensor(TAPS) / 24).contiguous()
        self._by_kernels: Tensor | None = None
        self._buffers: dict[str, Tensor] = {}

    def sums(self, slab: Tensor) -> Tensor:
        """[6, N, in, Y, Z] → [4, N, out, Y', Z']."""
        values = self._mix(INTO, slab, "values")
        for number, (value, kernel) in enumerate(zip(values, self.kernels, strict=True)):
            product = F.conv2d(value, kernel)
            self._buffer("products", (READ, *product.shape), slab)[number] = product
        return self._mix(OUT, self._buffers["products"], "sums")

    def gradient(self, slab: Tensor, by_sums: Tensor) -> Tensor:
        """[6, N, in, Y, Z] from the gradient of the sums [4, N, out, Y', Z']; overwrites the slab."""
        values = self._mix(INTO, slab, "values")
        by_products = self._mix(_turned(OUT), by_sums, "products")
        if self._by_kernels is None:
            self._by_kernels = torch.zeros_like(self.kernels)
        for by_product, value, kernel, by_kernel in zip(
            by_products, values, self.kernels, self._by_kernels, strict=True
        ):
            by_value, more, _ = torch.ops.aten.convolution_backward(
                by_product, value, kernel, None, [1] * 2, [0] * 2, [1] * 2, False, [0] * 2, 1, [True, True, False]
            )
            value.copy_(by_value)
            by_kernel += more
        torch.mm(slab.new_tensor(_turned(INTO)), values.flatten(1), out=slab.flatten(1))
        return slab

    def by_weight(self) -> Tensor:
        """[out, in, 3, y, z] the gradient of the weights, of all slabs so far."""
        assert self._by_kernels is not None
        return torch.einsum("koiyz,kx->oixyz", self._by_kernels, self.kernels.new_tensor(TAPS) / 24)

    def _mix(self, by: Matrix, slices: Tensor, name: str) -> Tensor:
        """Sums [M, …] of slices [N, …] by a matrix [M, N], in a buffer."""
        into = self._buffer(name, (len(by), *slices.shape[1:]), slices)
        torch.mm(slices.new_tensor(by), slices.flatten(1), out=into.flatten(1))
        return into

    def _buffer(self, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        if name not in self._buffers or self._buffers[name].shape != shape:
            self._buffers[name] = like.new_empty(shape)
        return self._buffers[name]


def _turned(matrix: Matrix) -> Matrix:
    return tuple(zip(*matrix, strict=True))


def convolve(volume: Tensor, weight: Tensor) -> Tensor:
    """As `conv3d` without borders, for weights of three taps along x."""
    slabs, shape = _slabs(volume)
    sums = Products(weight).sums(slabs)
    found = sums.unflatten(1, shape).permute(1, 3, 2, 0, 4, 5).flatten(2, 3)
    return found[:, :, : volume.shape[2] - 2]


def convolve_backward(volume: Tensor, weight: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of `convolve`'s volume and weights, from that of its result."""
    slabs, shape = _slabs(volume)
    wanted = F.pad(wanted, [0, 0, 0, 0, 0, shape[1] * SUMS - wanted.shape[2]])
    by_sums = wanted.unflatten(2, (shape[1], SUMS)).permute(3, 0, 2, 1, 4, 5).flatten(1, 2)
    products = Products(weight)
    by_slabs = products.gradient(slabs, by_sums).unflatten(1, shape).transpose(2, 3)
    by_volume = volume.new_zeros(*volume.shape[:2], shape[1] * SUMS + 2, *volume.shape[3:])
    for number, part in enumerate(by_slabs):
        by_volume[:, :, number : number + shape[1] * SUMS : SUMS] += part
    return by_volume[:, :, : volume.shape[2]], products.by_weight()


def _slabs(volume: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """[6, B * T, C, Y, Z] what T slabs along x read of a volume [B, C, X, Y, Z], and (B, T)."""
    count = -(-(volume.shape[2] - 2) // SUMS)
    padded = F.pad(volume, [0, 0, 0, 0, 0, count * SUMS + 2 - volume.shape[2]])
    slabs = padded.unfold(2, READ, SUMS).permute(5, 0, 2, 1, 3, 4)
    return slabs.flatten(1, 2).contiguous(), (len(volume), count)
