"""A rendered view beside its target, in pictures: colour, depth, features."""

from __future__ import annotations

import numpy as np

from agents.report.pictures import film_strip, upscale

LEGEND = (
    "Depth: near is light. Features: the three strongest principal components of the target's as red, green and blue, "
    "the same for the rendered ones."
)


def view_strip(
    rgb: np.ndarray,
    depth: np.ndarray,
    feature: np.ndarray | None,
    seen_rgb: np.ndarray,
    seen_depth: np.ndarray,
    seen_feature: np.ndarray | None,
    reprojected: np.ndarray | None = None,
    factor: int = 1,
) -> np.ndarray:
    """[H, W', 3] uint8: target and rendering of one view side by side, captions below.

    Args:
        rgb, seen_rgb, reprojected: [H, W, 3] in [0, 1]. depth, seen_depth: [H, W] metres; 0 where nothing was met.
        feature, seen_feature: [H, W, F]; None leaves them out. factor: how much larger than the target's pixels.
    """
    frames, captions = [colour(rgb), colour(seen_rgb)], ["target", "rendered"]
    if reprojected is not None:
        frames, captions = [*frames, colour(reprojected)], [*captions, "given views, carried over"]
    met = seen_depth > 0  # one scale for both, of what was rendered
    near, far = (float(x) for x in np.percentile(seen_depth[met], [1, 99])) if met.any() else (0.0, 1.0)
    frames += [grey(depth, near, far), grey(seen_depth, near, far)]
    captions += ["depth, target", "depth, rendered"]
    if feature is not None and seen_feature is not None:
        both = principal_colours(feature, seen_feature)
        frames, captions = [*frames, *both], [*captions, "features, target", "features, rendered"]
    return film_strip([upscale(frame, factor) for frame in frames], captions)


def colour(rgb: np.ndarray) -> np.ndarray:
    """[H, W, 3] uint8 of colours in [0, 1]."""
    return np.rint(np.clip(rgb, 0, 1) * 255).astype(np.uint8)


def grey(depth: np.ndarray, near: float, far: float) -> np.ndarray:
    """[H, W, 3] uint8: white at `near` metres, dark at `far` and behind, black where nothing was met (0)."""
    share = np.clip((far - depth) / max(far - near, 1e-6), 0, 1) * 0.9 + 0.1
    return colour(np.repeat(np.where(depth > 0, share, 0.0)[..., None], 3, axis=2))


def principal_colours(feature: np.ndarray, *others: np.ndarray) -> list[np.ndarray]:
    """Features [H, W, F] as pictures [H, W, 3] uint8: all of them by the principal components of the first."""
    flat = feature.reshape(-1, feature.shape[-1]).astype(np.float64)
    mean = flat.mean(axis=0)
    _, directions = np.linalg.eigh(np.cov((flat - mean).T) if flat.shape[1] > 1 else np.ones((1, 1)))
    strongest = directions[:, ::-1][:, :3]
    low, high = np.percentile((flat - mean) @ strongest, [1, 99], axis=0)
    pictures = []
    for one in (feature, *others):
        found = (one.reshape(-1, one.shape[-1]) - mean) @ strongest
        found = ((found - low) / np.maximum(high - low, 1e-9)).reshape(*one.shape[:2], -1)
        pictures.append(colour(np.pad(found, ((0, 0), (0, 0), (0, 3 - found.shape[2])), constant_values=0.5)))
    return pictures
