"""Pictures as RLBench keeps them: PNG files of colour, of 24-bit depth and of 24-bit ids.

    depth   d = (R * 65536 + G * 256 + B) / (2^24 - 1); metres = near + d * (far - near)
    mask    id = R + G * 256 + B * 65536

Compression level 5 with zlib's default strategy; `tests/benchmarks/benchmark_storage.py` measures the alternatives:
level 6 makes files 2 to 5 % smaller and takes 1.4 times as long, level 9 makes them 8 to 12 % smaller and takes seven
to nine times as long. PNG's filters are left to Pillow, which chooses one per row: no fixed one does better.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
from PIL import Image

from manifield.errors import InputError
from manifield.files import read_whole

COMPRESSION = {"compress_level": 5, "compress_type": 0}
DEPTH_STEPS = 2**24 - 1
MENDING = "restore it from its source or delete the episode"
SIGNATURE = b"\x89PNG\r\n\x1a\n"
LARGEST = 4096
"""Pixels along a side: what declares to be larger is refused before anything is unpacked."""
LARGEST_FILE = 64 * 1024**2
"""Bytes, a fifth more than noise of the largest size takes."""


def encode_rgb(rgb: np.ndarray) -> bytes:
    """PNG of a picture.

    Args:
        rgb: [H, W, 3] uint8.

    Raises:
        InputError: another shape or type.
    """
    rgb = np.asarray(rgb)
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or rgb.size == 0:
        raise InputError(f"a picture must be [H, W, 3] uint8, not {list(rgb.shape)} {rgb.dtype}")
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "PNG", **COMPRESSION)
    return buffer.getvalue()


def encode_depth(depth: np.ndarray, near: float, far: float, bits: int = 24) -> bytes:
    """PNG of a depth picture, exact to (far - near) / 2^(bits + 1) m; what is nearer or farther is cut off.

    Args:
        depth: [H, W] metres.
        near, far: metres.
        bits: 24, or fewer: the lowest bits of a depth are noise to a compressor, and most of the file.

    Raises:
        InputError: a value that is not finite, another shape, or near and far that span no range.
    """
    depth = np.asarray(depth, np.float64)
    if depth.ndim != 2:
        raise InputError(f"depth must be [H, W] metres, not {list(depth.shape)}")
    if not (np.isfinite([near, far]).all() and near < far):
        raise InputError(f"depth range must have near < far, not {near} and {far}")
    if not np.isfinite(depth).all():
        row, column = np.argwhere(~np.isfinite(depth))[0]
        raise InputError(f"depth is {depth[row, column]} at row {row}, column {column}; give such pixels the far limit")
    coarse = 1 << (24 - bits)
    steps = np.rint((depth - near) / (far - near) * DEPTH_STEPS / coarse) * coarse
    steps = np.clip(steps, 0, DEPTH_STEPS).astype(np.uint32)
    return encode_rgb(np.stack([steps >> 16, steps >> 8 & 255, steps & 255], axis=-1).astype(np.uint8))


def encode_mask(mask: np.ndarray) -> bytes:
    """PNG of ids.

    Args:
        mask: [H, W] integers from 0 to 2^24 - 1.

    Raises:
        InputError: other shapes, types or values.
    """
    mask = np.asarray(mask)
    if mask.ndim != 2 or mask.dtype.kind not in "iu" or mask.size == 0:
        raise InputError(f"a mask must be [H, W] integers, not {list(mask.shape)} {mask.dtype}")
    if mask.min() < 0 or mask.max() > DEPTH_STEPS:
        raise InputError(f"a mask's ids must lie in 0..{DEPTH_STEPS}, not {mask.min()}..{mask.max()}")
    return encode_rgb(np.stack([mask & 255, mask >> 8 & 255, mask >> 16], axis=-1).astype(np.uint8))


def read_rgb(path: Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """[H, W, 3] uint8.

    Args:
        path: a PNG file.
        size: (H, W) that the picture must have; None takes any up to `LARGEST`.

    Raises:
        InputError: no such file, truncated or no PNG, not 8-bit RGB, another size.
    """
    try:
        data = read_whole(path, LARGEST_FILE, MENDING)
        declared = _declared(data)
        wanted = size or declared
        _check_side(path, wanted)
        if b"IEND" not in data[-32:]:  # Pillow does not miss the end mark, nor the checksum before it
            raise ValueError("it has no end")
        if declared == wanted:
            with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
                mode = image.mode if data[24] == 8 or image.mode != "RGB" else f"RGB with {data[24]} bits"
                if mode == "RGB":
                    return np.array(image)
            raise InputError(f"{path}: picture of mode {mode}, not 8-bit RGB; convert it to RGB without scaling")
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such picture; {MENDING}") from None
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, zlib.error... for damaged files
        detail = " ".join(str(error).replace(str(path), "it").split()) or type(error).__name__
        raise InputError(f"{path}: truncated or not a PNG picture ({detail}); {MENDING}") from None
    (height, width), (rows, columns) = declared, wanted
    raise InputError(
        f"{path}: picture of {height}x{width}, but the episode's are {rows}x{columns} (height x width); {MENDING}"
    )


def read_size(path: Path) -> tuple[int, int]:
    """(H, W) of a PNG file, from its header alone.

    Raises:
        InputError: no such file, no PNG, or one larger than `LARGEST`.
    """
    try:
        declared = _declared(read_whole(path, LARGEST_FILE, MENDING))
    except (OSError, ValueError):
        raise InputError(f"{path}: missing, truncated or not a PNG picture; {MENDING}") from None
    _check_side(path, declared)
    return declared


def _declared(data: bytes) -> tuple[int, int]:
    """(H, W) that the header of a PNG promises: a few bytes can promise gigabytes."""
    if len(data) < 33 or not data.startswith(SIGNATURE) or data[12:16] != b"IHDR":
        raise ValueError("it has no PNG header")
    width, height = struct.unpack(">II", data[16:24])
    return height, width


def _check_side(path: Path, size: tuple[int, int]) -> None:
    if not 1 <= min(size) <= max(size) <= LARGEST:
        raise InputError(
            f"{path}: refused, the header promises {size[0]}x{size[1]} pixels, more than {LARGEST} along a side (or "
            f"none); {MENDING}"
        )


def check_centre(path: Path, intrinsics: np.ndarray, size: tuple[int, int]) -> None:
    """Check that a picture [H, W] = `size` has the size that its camera's `intrinsics` [3, 3] are for.

    Raises:
        InputError: its principal point is far from its middle.
    """
    centre = intrinsics[:2, 2] / size[::-1]
    if (centre < 0.25).any() or (centre > 0.75).any():
        raise InputError(
            f"{path}: {size[0]}x{size[1]} pictures, but the camera's centre is at "
            f"({intrinsics[0, 2]:g}, {intrinsics[1, 2]:g}): resized after recording; restore the originals"
        )


def read_depth(path: Path, near: float, far: float, size: tuple[int, int] | None = None) -> np.ndarray:
    """[H, W] float64 metres, since 24 bits of a range do not fit a float32 (and points on the face between two voxels
    would change sides); arguments and errors as for `read_rgb`."""
    rgb = read_rgb(path, size)
    words = np.zeros((*rgb.shape[:2], 4), np.uint8)
    words[..., 1:] = rgb
    return near + words.view(">u4")[..., 0] / DEPTH_STEPS * (far - near)


def read_mask(path: Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """[H, W] int32 ids; arguments and errors as for `read_rgb`."""
    low, middle, high = np.moveaxis(read_rgb(path, size).astype(np.int32), -1, 0)
    return low | middle << 8 | high << 16
