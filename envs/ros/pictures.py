"""Pictures as they cross the bus: raw rows with padding and byte order, JPEG, PNG, compressed depth."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image as Picture
from PIL import UnidentifiedImageError

# encoding → (type of a number, channels, which of them make RGB)
_RAW: dict[str, tuple[str, int, tuple[int, ...] | None]] = {
    "rgb8": ("u1", 3, None),
    "bgr8": ("u1", 3, (2, 1, 0)),
    "rgba8": ("u1", 4, (0, 1, 2)),
    "bgra8": ("u1", 4, (2, 1, 0)),
    "mono8": ("u1", 1, None),
    "8UC1": ("u1", 1, None),
    "16UC1": ("u2", 1, None),
    "mono16": ("u2", 1, None),
    "32FC1": ("f4", 1, None),
}
_SAME = {"bgr8": "rgb8", "rgba8": "rgb8", "bgra8": "rgb8", "mono16": "16UC1", "8UC1": "mono8"}
# compressed_depth_image_transport's ConfigHeader: an enum and two floats before the PNG.
_DEPTH_HEADER = 12
_LARGEST = 4096  # pixels along a side: what is larger is no picture, and would only fill the memory
JPEG_QUALITY = 95


def decode_raw(
    encoding: str, height: int, width: int, step: int, is_big_endian: bool, content: bytes
) -> tuple[str, np.ndarray]:
    """Encoding and array of a sensor_msgs/Image, as `envs.ros.messages.Image` has them. step: bytes per row.

    Raises:
        ValueError: an encoding that is not known, or sizes that do not fit each other.
    """
    if encoding not in _RAW:
        raise ValueError(f"encoding {encoding!r} is none of {', '.join(_RAW)}")
    kind, channels, order = _RAW[encoding]
    number = np.dtype(kind).newbyteorder(">" if is_big_endian else "<")
    row = width * channels * number.itemsize
    if not (0 < height <= _LARGEST and 0 < width <= _LARGEST) or step < row or len(content) != step * height:
        raise ValueError(f"{len(content)} bytes, {step} a row, do not hold {width} x {height} pixels of {encoding}")
    rows = np.frombuffer(content, np.uint8).reshape(height, step)[:, :row]
    array = np.ascontiguousarray(rows).view(number).reshape(height, width, channels)
    array = array.astype(number.newbyteorder("="), copy=False)
    if order is not None:
        array = np.ascontiguousarray(array[..., list(order)])
    return _SAME.get(encoding, encoding), array if array.shape[2] == 3 else array[..., 0]


def decompress(text: str, content: bytes) -> tuple[str, np.ndarray]:
    """Encoding and array of a sensor_msgs/CompressedImage. text: its `format`.

    Raises:
        ValueError: no picture, or one of a kind that is not known.
    """
    if "compressedDepth" in text:
        quantisation = np.frombuffer(content[4:_DEPTH_HEADER], "<f4")
        encoding, array = decompress("png", content[_DEPTH_HEADER:])
        if "32FC1" in text and encoding == "16UC1":  # inverse depth: z = a / (value - b)
            scaled = array.astype(np.float32) - quantisation[1]
            with np.errstate(divide="ignore"):
                return "32FC1", np.where(array > 0, quantisation[0] / scaled, np.nan).astype(np.float32)
        return encoding, array
    try:
        picture = Picture.open(io.BytesIO(content), formats=("JPEG", "PNG"))
        if max(picture.size) > _LARGEST:
            raise ValueError(f"a picture of {picture.size} pixels is too large")
        picture.load()
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"not a readable JPEG or PNG: {error}") from None
    if picture.mode.startswith("I"):
        return "16UC1", np.asarray(picture).astype(np.uint16)
    if picture.mode == "L":
        return "mono8", np.asarray(picture)
    # OpenCV, which the usual publishers compress with, stores RGB order in the file whatever the message's text says.
    return "rgb8", np.asarray(picture.convert("RGB"))


def compress(encoding: str, array: np.ndarray, text: str = "") -> tuple[str, bytes]:
    """Format and content for a sensor_msgs/CompressedImage: JPEG for colour, PNG for 16-bit depth (`text` may ask for
    PNG, or for compressedDepth's header before it)."""
    file = io.BytesIO()
    if encoding == "16UC1":
        Picture.fromarray(np.ascontiguousarray(array, np.uint16)).save(file, "PNG", compress_level=1)
        if "compressedDepth" in text:
            return "16UC1; compressedDepth png", bytes(_DEPTH_HEADER) + file.getvalue()
        return "16UC1; png compressed 16UC1", file.getvalue()
    if encoding not in ("rgb8", "mono8"):
        raise ValueError(f"{encoding} is not sent compressed: turn it into 16UC1 first")
    if "png" in text:
        Picture.fromarray(array).save(file, "PNG", compress_level=1)
        return f"{encoding}; png compressed {encoding}", file.getvalue()
    Picture.fromarray(array).save(file, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return f"{encoding}; jpeg compressed {encoding}", file.getvalue()
