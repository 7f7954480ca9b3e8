"""Principal components of features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from manifield.errors import InputError
from perception.features.reduction import Reduction, fit


def maps(count: int = 3, channels: int = 6, rank: int = 2, seed: int = 0) -> list[np.ndarray]:
    """Features that fill `rank` directions only."""
    rng = np.random.default_rng(seed)
    basis = rng.normal(size=(rank, channels))
    return [(rng.normal(size=(4, 5, rank)) @ basis + basis[0]).astype(np.float32) for _ in range(count)]


def cosines(features: np.ndarray) -> np.ndarray:
    flat = features.reshape(-1, features.shape[-1])
    flat = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    return flat @ flat.T


def test_as_many_components_as_directions_keep_every_angle():
    reduction = fit(maps(), 2, "a")
    assert reduction.kept == pytest.approx(1) and reduction.channels == 2
    reduced = reduction(np.stack(maps()))
    assert reduced.shape == (3, 4, 5, 2) and reduced.dtype == np.float32
    assert np.allclose(cosines(reduced), cosines(np.stack(maps())), atol=1e-4)
    assert np.square(reduced).mean() == pytest.approx(1, rel=1e-4)
    assert np.allclose(reduced.reshape(-1, 2).mean(axis=0), reduction.mean, atol=1e-5)


def test_the_components_are_those_that_hold_most():
    features = np.zeros((1, 100, 4), np.float32)
    features[..., 2] = np.random.default_rng(0).normal(size=100) * 9
    features[..., 1] = np.random.default_rng(1).normal(size=100)
    reduction = fit([features], 1, "a")
    assert np.allclose(np.abs(reduction.components[:, 0]), [0, 0, 1, 0], atol=0.02) and 0.95 < reduction.kept < 1
    assert reduction.components[2, 0] > 0  # the sign is settled


def test_a_saved_reduction_is_the_same(tmp_path: Path):
    reduction = fit(maps(), 2, "a teacher")
    reduction.save(tmp_path / "r.safetensors")
    loaded = Reduction.load(tmp_path / "r.safetensors")
    assert (loaded.identity, loaded.teacher, loaded.kept) == (reduction.identity, "a teacher", reduction.kept)
    assert np.array_equal(loaded(maps()[0]), reduction(maps()[0]))
    assert [path.name for path in tmp_path.iterdir()] == ["r.safetensors"]
    assert reduction.identity.startswith("pca=2 ")
    assert len({fit(maps(seed=s), k, "a").identity for s in (0, 1) for k in (1, 2)}) == 4


def test_bad_input(tmp_path: Path):
    with pytest.raises(InputError, match="components=7: the teacher's features have 6 channels"):
        fit(maps(), 7, "a")
    with pytest.raises(InputError, match="features of a are all zero"):
        fit([np.zeros((2, 2, 3), np.float32)], 1, "a")
    with pytest.raises(InputError, match="features of a are not finite"):
        fit([np.full((2, 2, 3), np.nan, np.float32)], 1, "a")
    with pytest.raises(InputError, match="features of 5 channels, but the PCA is for 6"):
        fit(maps(), 2, "a")(np.zeros((1, 5), np.float32))
    with pytest.raises(InputError, match="no such PCA"):
        Reduction.load(tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"garbage")
    with pytest.raises(InputError, match="not a PCA of features, or damaged"):
        Reduction.load(tmp_path / "bad.safetensors")
