"""Pictures on disk: nothing is lost, and nothing damaged is taken for a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from demos import images
from manifield.errors import InputError

few = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
shapes = array_shapes(min_dims=2, max_dims=2, max_side=9)
RNG = np.random.default_rng(0)


@few
@given(arrays(np.uint8, shapes.map(lambda shape: (*shape, 3))))
def test_rgb_is_lossless(tmp_path: Path, rgb: np.ndarray) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(images.encode_rgb(rgb))
    np.testing.assert_array_equal(images.read_rgb(path, rgb.shape[:2]), rgb)
    assert images.read_size(path) == rgb.shape[:2]


@few
@given(arrays(np.int32, shapes, elements=st.integers(0, 2**24 - 1)))
def test_mask_is_lossless(tmp_path: Path, mask: np.ndarray) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(images.encode_mask(mask))
    read = images.read_mask(path)
    assert read.dtype == np.int32
    np.testing.assert_array_equal(read, mask)


@few
@given(arrays(np.float32, shapes, elements=st.floats(0.0, 1.0, width=32)), st.floats(0.001, 0.1), st.floats(1.0, 10.0))
def test_depth_is_kept_within_half_a_step(tmp_path: Path, share: np.ndarray, near: float, far: float) -> None:
    path = tmp_path / "picture.png"
    depth = np.clip(near + share * (far - near), near, far).astype(np.float32)
    path.write_bytes(images.encode_depth(depth, near, far))
    half_step = 0.5 * (far - near) / (2**24 - 1)
    rounding = np.spacing(np.float32(far))  # of the float32 that is returned, and of near and far themselves
    np.testing.assert_allclose(images.read_depth(path, near, far), depth, rtol=0, atol=half_step + rounding)


@few
@given(arrays(np.float32, shapes, elements=st.floats(0.03125, 4.5, width=32)), st.integers(12, 24))
def test_depth_of_fewer_bits(tmp_path: Path, depth: np.ndarray, bits: int) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(images.encode_depth(depth, 0.01, 4.5, bits))
    # Half a step, or a whole one at the far end, where the last step is cut off.
    step = 4.49 / (2**24 - 1) * 2 ** (24 - bits)
    error = np.abs(images.read_depth(path, 0.01, 4.5) - depth)
    assert (error <= np.where(depth > 4.5 - step, 1.0, 0.5) * step + np.spacing(np.float32(4.5))).all()
    steps = images.read_rgb(path).astype(int) @ [65536, 256, 1]
    assert ((steps % 2 ** (24 - bits) == 0) | (steps == 2**24 - 1)).all()


def test_stored_depth_is_a_fixed_point(tmp_path: Path) -> None:
    first, second = tmp_path / "first.png", tmp_path / "second.png"
    first.write_bytes(images.encode_rgb(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)))
    second.write_bytes(images.encode_depth(images.read_depth(first, 0.01, 4.5), 0.01, 4.5))
    assert (
        np.abs(images.read_rgb(first).astype(int) @ [65536, 256, 1] - images.read_rgb(second) @ [65536, 256, 1]).max()
        <= 1
    )


def test_depth_formula(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(images.encode_rgb(np.array([[[1, 2, 3]]], np.uint8)))
    expected = 0.01 + (65536 + 2 * 256 + 3) / (2**24 - 1) * (4.5 - 0.01)
    assert images.read_depth(path, 0.01, 4.5)[0, 0] == pytest.approx(expected, rel=1e-12)


def test_mask_formula(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(images.encode_rgb(np.array([[[1, 2, 3]]], np.uint8)))
    assert images.read_mask(path)[0, 0] == 1 + 2 * 256 + 3 * 65536


def test_depth_outside_the_range_goes_to_its_limits(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(images.encode_depth(np.array([[-1.0, 0.0, 99.0]]), 0.01, 4.5))
    np.testing.assert_allclose(images.read_depth(path, 0.01, 4.5), [[0.01, 0.01, 4.5]], rtol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_depth_that_is_not_finite_is_refused(value: float) -> None:
    depth = np.ones((4, 4), np.float32)
    depth[2, 3] = value
    with pytest.raises(InputError, match=r"depth is .* at row 2, column 3"):
        images.encode_depth(depth, 0.01, 4.5)


@pytest.mark.parametrize(
    "encode",
    [
        lambda: images.encode_rgb(np.zeros((4, 4), np.uint8)),
        lambda: images.encode_rgb(np.zeros((4, 4, 3), np.float32)),
        lambda: images.encode_rgb(np.zeros((0, 4, 3), np.uint8)),
        lambda: images.encode_depth(np.zeros((4, 4, 1)), 0.01, 4.5),
        lambda: images.encode_depth(np.zeros((4, 4)), 4.5, 4.5),
        lambda: images.encode_depth(np.zeros((4, 4)), 0.01, np.nan),
        lambda: images.encode_mask(np.full((4, 4), -1)),
        lambda: images.encode_mask(np.full((4, 4), 2**24)),
        lambda: images.encode_mask(np.zeros((4, 4))),
    ],
)
def test_what_is_no_picture_is_not_encoded(encode) -> None:
    with pytest.raises(InputError):
        encode()


@few
@given(st.floats(0.0, 0.999))
def test_a_truncated_file_is_refused(tmp_path: Path, share: float) -> None:
    data = images.encode_rgb(RNG.integers(0, 256, (16, 16, 3), dtype=np.uint8))
    path = tmp_path / "cut.png"
    path.write_bytes(data[: int((len(data) - 4) * share)])  # the last 4 bytes are the checksum of an empty chunk
    with pytest.raises(InputError) as caught:
        images.read_rgb(path)
    assert "cut.png" in str(caught.value) and "\n" not in str(caught.value)


@few
@given(st.integers(0, 500), st.binary(min_size=1, max_size=4))
def test_a_damaged_file_gives_a_picture_or_an_input_error(tmp_path: Path, place: int, junk: bytes) -> None:
    data = images.encode_rgb(np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3))
    path = tmp_path / "damaged.png"
    path.write_bytes(data[:place] + junk + data[place + len(junk) :])
    try:
        assert images.read_rgb(path, (16, 16)).shape == (16, 16, 3)
    except InputError as error:
        assert "damaged.png" in str(error) and "\n" not in str(error)


@pytest.mark.parametrize("mode", ["L", "RGBA", "I;16", "P", "1"])
def test_another_mode_is_refused(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "mode.png"
    Image.new(mode, (8, 8)).save(path)
    with pytest.raises(InputError, match=r"mode\.png: picture of mode"):
        images.read_rgb(path)


def test_another_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "size.png"
    path.write_bytes(images.encode_rgb(np.zeros((4, 6, 3), np.uint8)))
    with pytest.raises(InputError, match=r"size\.png: picture of 4x6, but the episode's are 8x8"):
        images.read_rgb(path, (8, 8))


def test_other_files_are_refused(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.jpg")
    (tmp_path / "photo.jpg").rename(tmp_path / "photo.png")
    (tmp_path / "folder.png").mkdir()
    for name in ("photo.png", "folder.png", "absent.png"):
        for read in (images.read_rgb, images.read_size):
            with pytest.raises(InputError, match=name):
                read(tmp_path / name)
