"""How good a rendered picture is, and what a guess that renders nothing would reach."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from envs.interface import CameraView
from perception.cameras import back_project, project
from perception.field.rays import Rays
from perception.field.views import PixelTargets

NEAREST = 0.01  # metres before a camera from which on it sees a point


@dataclass(frozen=True)
class RenderedView:
    """rgb [H, W, 3] in [0, 1]; depth [H, W] metres; opacity [H, W]; feature [H, W, F] or None. All float32."""

    rgb: np.ndarray
    depth: np.ndarray
    opacity: np.ndarray
    feature: np.ndarray | None


def psnr(seen: np.ndarray, wanted: np.ndarray) -> float:
    """Peak signal-to-noise ratio (dB) of colours in [0, 1]."""
    return float(-10 * np.log10(max(np.square(seen - wanted).mean(), 1e-10)))


def ssim(seen: np.ndarray, wanted: np.ndarray) -> float:
    """Structural similarity (Wang et al. 2004) of pictures [H, W, 3] in [0, 1]."""
    from torchmetrics.functional.image import structural_similarity_index_measure  # takes a second to import

    first, second = (torch.from_numpy(np.asarray(x, np.float32)).permute(2, 0, 1)[None] for x in (seen, wanted))
    return float(structural_similarity_index_measure(first, second, data_range=1.0))  # type: ignore[arg-type]


def depth_error(seen: np.ndarray, wanted: PixelTargets, rays: Rays) -> float:
    """Median metres between rendered and measured depth, where the latter lies in the box; NaN if nowhere."""
    measured, near, far = (x[0].cpu().numpy() for x in (wanted.depth, rays.near, rays.far))
    inside = (measured > near) & (measured < far)
    return float(np.median(np.abs(seen.reshape(-1) - measured)[inside])) if inside.any() else float("nan")


def cosine(seen: np.ndarray, wanted: np.ndarray) -> float:
    """Mean cosine between features [..., F]."""
    norms = np.linalg.norm(seen, axis=-1) * np.linalg.norm(wanted, axis=-1)
    return float(((seen * wanted).sum(axis=-1) / np.maximum(norms, 1e-8)).mean())


def reproject(given: Iterable[CameraView], view: CameraView, holes: np.ndarray) -> np.ndarray:
    """[H, W, 3] in [0, 1]: the pixels of given pictures carried into a view's camera by their depth, the nearest in
    front, and `holes` ([H, W, 3] or one colour) where none arrives."""
    pictures = list(given)
    points = np.concatenate([back_project(v.depth, v.intrinsics, v.T_world_camera).reshape(-1, 3) for v in pictures])
    colours = np.concatenate([v.rgb.reshape(-1, 3) for v in pictures]) / 255.0
    height, width = view.depth.shape
    place, depth = project(points, view.intrinsics, view.T_world_camera)
    place = np.rint(place)
    seen = (depth > NEAREST) & (place >= 0).all(axis=1) & (place < (width, height)).all(axis=1)
    column, row = place[seen].astype(int).T
    order = np.argsort(-depth[seen], kind="stable")
    picture = np.broadcast_to(holes, (height, width, 3)).astype(np.float32)
    picture[row[order], column[order]] = colours[seen][order]
    return picture
