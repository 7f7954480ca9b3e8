"""Patterns that the unseen settings put on the table, the floor and on things."""

from __future__ import annotations

from functools import cache
from io import BytesIO

import mujoco
import numpy as np
from PIL import Image

PATTERNS = ("bricks", "checks", "dots", "granite", "stripes", "wood")
_SIZE = 64  # pixels along a side


def add_textures(spec: mujoco.MjSpec) -> None:
    """Add two materials of each pattern: `<pattern>_flat` repeats it evenly on large faces, `<pattern>_round` wraps
    something small in it, one picture to each of its six sides.

    All patterns, whichever will be shown: what is uploaded to an environment's graphics context must be the same in all
    of its scenes, see `rendering.Renderer`.
    """
    spec.assets = {f"{name}.png": _picture(name) for name in PATTERNS}
    for name in PATTERNS:
        for suffix, kind in (("flat", mujoco.mjtTexture.mjTEXTURE_2D), ("round", mujoco.mjtTexture.mjTEXTURE_CUBE)):
            spec.add_texture(name=f"{name}_{suffix}", type=kind, file=f"{name}.png", gridsize=[1, 1])
            material = spec.add_material(name=f"{name}_{suffix}", texuniform=suffix == "flat", texrepeat=[3, 3])
            material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = f"{name}_{suffix}"


@cache
def _picture(name: str) -> bytes:
    """The pattern as a PNG file that can be laid side by side with itself."""
    picture = BytesIO()
    Image.fromarray((_PAINTERS[name]() * 255).astype(np.uint8)).save(picture, "png")
    return picture.getvalue()


def _blend(share: np.ndarray, first: tuple[float, float, float], second: tuple[float, float, float]) -> np.ndarray:
    """[H, W, 3] from `first` where the share [H, W] is 0 to `second` where it is 1."""
    return np.asarray(first) + share[..., None] * (np.asarray(second) - np.asarray(first))


def _bricks() -> np.ndarray:
    row, column = np.indices((_SIZE, _SIZE))
    joint = (row % 16 < 2) | ((column + 16 * (row // 16 % 2)) % 32 < 2)
    return _blend(joint.astype(float), (0.62, 0.27, 0.2), (0.8, 0.78, 0.74))


def _checks() -> np.ndarray:
    row, column = np.indices((_SIZE, _SIZE)) // (_SIZE // 4)
    return _blend((row + column) % 2.0, (0.9, 0.9, 0.86), (0.2, 0.3, 0.36))


def _dots() -> np.ndarray:
    row, column = np.indices((_SIZE, _SIZE)) % (_SIZE // 2) - _SIZE // 4 + 0.5
    return _blend((np.hypot(row, column) < _SIZE / 8).astype(float), (0.86, 0.8, 0.62), (0.36, 0.2, 0.44))


def _granite() -> np.ndarray:
    grain = 8  # pixels: a finer one is just grey in a small picture
    share = np.random.default_rng(0).uniform(size=(_SIZE // grain, _SIZE // grain))
    return _blend(share.repeat(grain, axis=0).repeat(grain, axis=1) ** 2, (0.85, 0.85, 0.87), (0.1, 0.1, 0.14))


def _stripes() -> np.ndarray:
    column = np.indices((_SIZE, _SIZE))[1]
    return _blend((column // (_SIZE // 8)) % 2.0, (0.3, 0.48, 0.44), (0.87, 0.86, 0.78))


def _wood() -> np.ndarray:
    row, column = np.indices((_SIZE, _SIZE)) * (2 * np.pi / _SIZE)
    grain = 0.5 + 0.5 * np.sin(6 * column + 1.3 * np.sin(row) + 0.8 * np.sin(2 * row + 2 * column))
    return _blend(grain, (0.42, 0.26, 0.14), (0.7, 0.5, 0.3))


_PAINTERS = {
    "bricks": _bricks,
    "checks": _checks,
    "dots": _dots,
    "granite": _granite,
    "stripes": _stripes,
    "wood": _wood,
}
