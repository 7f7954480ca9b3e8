"""The captures of a calibration, kept in a folder so that solving can be repeated: NNN.png and NNN.json each."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from envs.ros.calibration.board import Board, Corners, Lens
from envs.ros.calibration.hand_eye import Sighting
from envs.ros.messages import CameraInfo
from manifield.errors import InputError
from manifield.files import write_whole

MODELS = ("plumb_bob", "rational_polynomial", "")
LENGTHS = (0, 4, 5, 8, 12, 14)


@dataclass(frozen=True)
class Capture:
    """One moment. rgb: [H, W, 3] uint8. T_base_hand: [4, 4], where the arm says its hand was. stamp: nanoseconds.

    base, hand, optical: names of the frames, the last of the camera.
    """

    rgb: np.ndarray
    lens: Lens
    T_base_hand: np.ndarray
    stamp: int
    base: str
    hand: str
    optical: str


def lens_of(info: CameraInfo) -> Lens:
    """What CameraInfo says of a camera.

    Raises:
        InputError: a lens of another model (fisheye), or numbers that are no lens.
    """
    where = f"camera_info of {info.frame_id}"
    if info.distortion_model not in MODELS or len(info.distortion) not in LENGTHS:
        raise InputError(
            f"{where}: distortion model '{info.distortion_model}' with {len(info.distortion)} numbers is not known; "
            "rectify the pictures (image_proc) and give the topics of those"
        )
    K = info.intrinsics
    if not (np.isfinite(K).all() and np.isfinite(info.distortion).all() and K[0, 0] > 0 and K[1, 1] > 0):
        raise InputError(f"{where}: {K.ravel().tolist()} are no intrinsics; calibrate the camera (camera_calibration)")
    return Lens(K, info.distortion)


def save_capture(folder: Path, number: int, capture: Capture) -> None:
    """Write a capture; it counts once its JSON is there, which comes last."""
    picture = io.BytesIO()
    Image.fromarray(capture.rgb).save(picture, "PNG", compress_level=3)
    facts = {
        "T_base_hand": capture.T_base_hand.tolist(),
        "intrinsics": capture.lens.intrinsics.tolist(),
        "distortion": capture.lens.distortion.tolist(),
        "stamp": capture.stamp,
        "base": capture.base,
        "hand": capture.hand,
        "optical": capture.optical,
    }
    write_whole(folder / f"{number:03d}.png", picture.getvalue())
    write_whole(folder / f"{number:03d}.json", json.dumps(facts, indent=1))


def load_captures(folder: Path) -> dict[str, Capture]:
    """Captures by name.

    Raises:
        InputError: a file is damaged, or two captures are of different cameras or frames.
    """
    found: dict[str, Capture] = {}
    for path in sorted(folder.glob("[0-9]*.json")):
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
            capture = Capture(
                np.asarray(Image.open(path.with_suffix(".png")).convert("RGB")),
                Lens(_array(facts["intrinsics"], (3, 3)), _array(facts["distortion"], None)),
                _array(facts["T_base_hand"], (4, 4)),
                int(facts["stamp"]),
                *(str(facts[name]) for name in ("base", "hand", "optical")),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: not a capture ({error}); delete it and its picture") from None
        first = next(iter(found.values()), capture)
        alike = all(getattr(first, name) == getattr(capture, name) for name in ("base", "hand", "optical"))
        if not alike or not np.array_equal(first.lens.intrinsics, capture.lens.intrinsics):
            raise InputError(
                f"{path}: of other frames or another lens than the first; capture into another folder, out=…"
            )
        found[path.stem] = capture
    return found


def find_boards(captures: dict[str, Capture], board: Board) -> list[Sighting]:
    """What those captures say in which the board is found."""
    found: list[tuple[str, Capture, Corners | None]] = [
        (name, capture, board.find(capture.rgb)) for name, capture in captures.items()
    ]
    return [Sighting(c.T_base_hand, corners, name) for name, c, corners in found if corners is not None]


def _array(values: Sequence, shape: tuple[int, ...] | None) -> np.ndarray:
    array = np.array(values, float)
    if (shape is not None and array.shape != shape) or not np.isfinite(array).all():
        raise ValueError(f"{values} are not {shape or 'all'} finite numbers")
    return array
