"""Fewer channels: the principal components of a teacher's features, fitted on the training set and kept with them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from manifield.errors import InputError
from manifield.files import write_whole

NOTES = "reduction"  # the one key of the metadata: safetensors would write several in any order


@dataclass(frozen=True)
class Reduction:
    """Projects features onto the directions that hold most of them.

    The components are those of the features as they are, not of their deviations from the mean: such a projection keeps
    lengths and angles best, so that a cosine between reduced features is about the one between the teacher's own.

    components: [C, K] orthonormal. scale: such that the K channels have mean square 1 over the pictures of the fit.
    mean: [K] the mean reduced feature, which any prediction has to beat. kept: share of the squared length that the
    components hold. teacher: identity of the one whose features these are.
    """

    components: np.ndarray
    scale: float
    mean: np.ndarray
    kept: float
    teacher: str

    @property
    def channels(self) -> int:
        """K."""
        return int(self.components.shape[1])

    @property
    def identity(self) -> str:
        """Number of components, and a digest of what they are."""
        sha = hashlib.sha256()
        for array in (self.components, np.float32(self.scale)):
            sha.update(np.ascontiguousarray(array, np.float32).tobytes())
        return f"pca={self.channels} {sha.hexdigest()[:12]}"

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """[..., K] float32 of features [..., C].

        Raises:
            InputError: another number of channels.
        """
        if features.shape[-1] != len(self.components):
            raise InputError(
                f"features of {features.shape[-1]} channels, but the PCA is for {len(self.components)}: fit it again"
            )
        return np.asarray(features @ (self.components / np.float32(self.scale)), np.float32)

    def save(self, path: Path) -> None:
        """Write it whole or not at all."""
        arrays = {"components": self.components, "scale": np.array([self.scale], np.float32), "mean": self.mean}
        notes = {"teacher": self.teacher, "kept": self.kept}
        write_whole(path, save(arrays, {NOTES: json.dumps(notes)}))

    @staticmethod
    def load(path: Path) -> Reduction:
        """What `save` has written.

        Raises:
            InputError: no such file, or it is something else.
        """
        try:
            with safe_open(path, framework="numpy") as file:
                notes = json.loads((file.metadata() or {})[NOTES])
                components, scale, mean = (file.get_tensor(name) for name in ("components", "scale", "mean"))
            return Reduction(components, float(scale[0]), mean, notes["kept"], notes["teacher"])
        except FileNotFoundError:
            raise InputError(f"{path}: no such PCA; `manifield features` writes one beside the features") from None
        except (OSError, SafetensorError, KeyError, ValueError):
            raise InputError(f"{path}: not a PCA of features, or damaged; choose another, or fit a new one") from None


def fit(maps: Iterable[np.ndarray], components: int, teacher: str) -> Reduction:
    """Principal components of features [..., C], one array at a time: only sums are kept.

    Raises:
        InputError: more components than channels, or features that are zero everywhere or not finite.
    """
    count, total, squares = 0, np.zeros(0), np.zeros((0, 0))
    for features in maps:
        flat = features.reshape(-1, features.shape[-1]).astype(np.float64)
        if not count:
            total, squares = np.zeros(flat.shape[1]), np.zeros((flat.shape[1], flat.shape[1]))
        count += len(flat)
        total += flat.sum(axis=0)
        squares += flat.T @ flat
    if not 1 <= components <= len(total):
        raise InputError(f"components={components}: the teacher's features have {len(total)} channels")
    if not np.isfinite(squares).all() or not squares.any():
        raise InputError(f"features of {teacher} are {'all zero' if np.isfinite(squares).all() else 'not finite'}")
    energy, directions = np.linalg.eigh(squares / count)
    energy, chosen = energy[::-1].clip(min=0), directions[:, ::-1][:, :components]
    # The sign of a direction is arbitrary; this choice does not depend on the machine.
    chosen = chosen * np.sign(chosen[np.abs(chosen).argmax(axis=0), np.arange(components)])
    scale = np.float32(np.sqrt(energy[:components].mean()))
    return Reduction(
        np.ascontiguousarray(chosen, np.float32),
        float(scale),
        (total / count @ chosen / scale).astype(np.float32),
        float(energy[:components].sum() / energy.sum()),
        teacher,
    )
