"""The pictures that the field should explain, and pixels drawn from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from envs.interface import CameraView
from manifield.errors import InputError


@dataclass(frozen=True)
class TargetView:
    """A calibrated picture and, if a teacher has looked at it, its feature map.

    picture: with its own intrinsics and pose. feature: [h, w, F] float, covering the picture evenly; or None.
    name: for messages.
    """

    picture: CameraView
    feature: np.ndarray | None = None
    name: str = "view"

    def check(self, channels: int = 0) -> None:
        """Raises InputError if something is missing or not a number. channels: that a feature map should have."""
        picture = self.picture
        if picture.T_world_camera is None or not np.isfinite(picture.T_world_camera).all():
            raise InputError(f"{self.name}: it has no pose; a view can be rendered only from where its camera stands")
        if not np.isfinite(picture.depth).all():
            row, column = np.argwhere(~np.isfinite(picture.depth))[0]
            raise InputError(f"{self.name}: depth is {picture.depth[row, column]} at row {row}, column {column}")
        if channels and (self.feature is None or self.feature.ndim != 3 or self.feature.shape[2] != channels):
            got = "none" if self.feature is None else f"{list(self.feature.shape)}"
            raise InputError(f"{self.name}: features must be [h, w, {channels}], not {got}: extract them again")


@dataclass
class PixelTargets:
    """What R pixels of each of B samples show. pixels [B, R, 2]; intrinsics [B, R, 3, 3], T_world_camera [B, R, 4, 4]
    of each pixel's own camera; rgb [B, R, 3] in [0, 1]; depth [B, R] metres; feature [B, R, F] or None."""

    pixels: Tensor
    intrinsics: Tensor
    T_world_camera: Tensor
    rgb: Tensor
    depth: Tensor
    feature: Tensor | None


def draw_pixels(
    samples: Sequence[Sequence[TargetView]], count: int, rng: np.random.Generator, at_once: int | None = None
) -> PixelTargets:
    """`count` pixels for each sample, drawn evenly from its views, or from `at_once` of them, drawn before."""
    columns: dict[str, list[np.ndarray]] = {}
    for every in samples:
        views = every
        if at_once is not None and at_once < len(every):
            views = [every[int(k)] for k in rng.choice(len(every), at_once, replace=False)]
        owner = np.sort(rng.integers(len(views), size=count))
        parts = [_gather(view, int((owner == k).sum()), rng) for k, view in enumerate(views)]
        for key in parts[0]:
            columns.setdefault(key, []).append(np.concatenate([part[key] for part in parts]))
    return _targets({key: np.stack(rows) for key, rows in columns.items()})


def whole_view(view: TargetView) -> PixelTargets:
    """Every pixel of one view, row by row, as one sample."""
    height, width = view.picture.depth.shape
    rows, columns = (grid.ravel() for grid in np.mgrid[:height, :width])
    return _targets({key: values[None] for key, values in _at(view, rows, columns).items()})


def _targets(arrays: dict[str, np.ndarray]) -> PixelTargets:
    tensors: dict[str, Tensor | None] = {key: torch.from_numpy(x.astype(np.float32)) for key, x in arrays.items()}
    return PixelTargets(**{"feature": None, **tensors})  # type: ignore[arg-type]  # only `feature` may be None


def _gather(view: TargetView, count: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    height, width = view.picture.depth.shape
    return _at(view, rng.integers(height, size=count), rng.integers(width, size=count))


def _at(view: TargetView, rows: np.ndarray, columns: np.ndarray) -> dict[str, np.ndarray]:
    picture = view.picture
    found = {
        "pixels": np.stack([columns, rows], axis=1),
        "intrinsics": np.broadcast_to(picture.intrinsics, (len(rows), 3, 3)),
        "T_world_camera": np.broadcast_to(picture.T_world_camera, (len(rows), 4, 4)),
        "rgb": picture.rgb[rows, columns] / 255.0,
        "depth": picture.depth[rows, columns],
    }
    if view.feature is not None:
        found["feature"] = _bilinear(view.feature, rows, columns, picture.depth.shape)
    return found


def _bilinear(feature: np.ndarray, rows: np.ndarray, columns: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """[N, F] a feature map that covers a picture of `shape` evenly, read at its pixels."""
    result: np.ndarray | float = 0.0
    size = feature.shape[:2]
    place = [((x + 0.5) * n / m - 0.5).clip(0, n - 1) for x, n, m in zip((rows, columns), size, shape, strict=True)]
    corner = [np.minimum(x.astype(int), max(n - 2, 0)) for x, n in zip(place, size, strict=True)]
    for down in (0, 1):
        for right in (0, 1):
            row, column = (np.minimum(c + s, n - 1) for c, s, n in zip(corner, (down, right), size, strict=True))
            share = [x - c if s else 1 - (x - c) for x, c, s in zip(place, corner, (down, right), strict=True)]
            result = result + feature[row, column].astype(np.float32) * (share[0] * share[1])[:, None]
    return np.asarray(result)
