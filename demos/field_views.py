"""Extra calibrated pictures of single frames, for a neural field to learn from, in GNFactor's layout.

    EPISODE/nerf_data/T/images/V.png    colour of view V of frame T
    EPISODE/nerf_data/T/depths/V.png    depth, 0.01 to 10 m
    EPISODE/nerf_data/T/poses/V.txt     camera to world, 4 rows; an empty line; intrinsics, 3 rows; RLBench's axes

Depth is written with 15 of its 24 bits, exact to 0.15 mm: the other 9 would more than double its size.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from demos import images
from envs.interface import CameraView
from envs.rlbench.axes import flip_axes, to_rlbench
from manifield.errors import InputError
from manifield.files import read_whole

FOLDER = "nerf_data"
NEAR, FAR = 0.01, 10.0
DEPTH_BITS = 15
SUFFIXES = {"images": ".png", "depths": ".png", "poses": ".txt"}
MENDING = "restore the files or delete the folder"
NUMBER = r"[0-9]{1,9}"
LARGEST_POSE = 64 * 1024  # bytes


def write_field_views(episode: Path, frame: int, views: Sequence[CameraView]) -> None:
    """Write the views of a frame, numbered in their order.

    Raises:
        InputError: a view that does not fit the format.
    """
    folder = episode / FOLDER / str(frame)
    for kind in SUFFIXES:
        (folder / kind).mkdir(parents=True)
    for number, view in enumerate(views):
        try:
            rgb, depth = images.encode_rgb(view.rgb), images.encode_depth(view.depth, NEAR, FAR, DEPTH_BITS)
        except InputError as error:
            raise InputError(f"frame {frame}, field view {number}: {error}") from None
        (folder / "images" / f"{number}.png").write_bytes(rgb)
        (folder / "depths" / f"{number}.png").write_bytes(depth)
        (folder / "poses" / f"{number}.txt").write_bytes(_pose_text(view).encode())


def field_frames(episode: Path) -> tuple[int, ...]:
    """Numbers of the frames that have views, ascending; nothing is opened."""
    folder = episode / FOLDER
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return tuple(sorted(int(name) for name in names if re.fullmatch(NUMBER, name)))


def read_field_views(episode: Path, frame: int) -> list[CameraView]:
    """The views of a frame by number, with positive focal lengths and OpenCV axes.

    Raises:
        InputError: the frame has none, some are incomplete, damaged or of different sizes.
    """
    folder = episode / FOLDER / str(frame)
    if frame not in field_frames(episode):
        present = ", ".join(map(str, field_frames(episode))) or "none"
        raise InputError(f"{episode}: frame {frame} has no field views; frames that have: {present}")
    numbers = {kind: _numbers(folder / kind, suffix) for kind, suffix in SUFFIXES.items()}
    for kind, found in numbers.items():
        if found != numbers["images"] or not found:
            raise InputError(f"{folder / kind}: {len(found)} views, but {len(numbers['images'])} pictures; {MENDING}")
    return [_read_view(folder, number) for number in sorted(numbers["images"])]


def field_view_numbers(episode: Path, frame: int) -> list[int]:
    """Numbers of the views that a frame has, ascending; none of them is opened."""
    return sorted(_numbers(episode / FOLDER / str(frame) / "images", ".png"))


def read_field_view(episode: Path, frame: int, number: int) -> CameraView:
    """One view of a frame; errors as for `read_field_views`."""
    return _read_view(episode / FOLDER / str(frame), number)


def _read_view(folder: Path, number: int) -> CameraView:
    picture = folder / "images" / f"{number}.png"
    rgb = images.read_rgb(picture)
    intrinsics, extrinsics = _read_pose(folder / "poses" / f"{number}.txt")
    images.check_centre(picture, intrinsics, rgb.shape[:2])
    depth = images.read_depth(folder / "depths" / f"{number}.png", NEAR, FAR, rgb.shape[:2])
    return CameraView(rgb, depth, *flip_axes(intrinsics, extrinsics), NEAR, FAR)


def _numbers(folder: Path, suffix: str) -> set[int]:
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return {int(name.removesuffix(suffix)) for name in names if re.fullmatch(rf"{NUMBER}\{suffix}", name)}


def _pose_text(view: CameraView) -> str:
    intrinsics, extrinsics = to_rlbench(np.asarray(view.intrinsics, float), np.asarray(view.T_world_camera, float))
    blocks = (
        "".join(" ".join(f"{value + 0.0:.9f}" for value in row) + "\n" for row in part)
        for part in (extrinsics, intrinsics)
    )
    return "\n".join(blocks)


def _read_pose(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Intrinsics [3, 3] and extrinsics [4, 4] as they are written."""
    try:
        numbers = np.array(read_whole(path, LARGEST_POSE, MENDING).decode("ascii").split(), float)
    except (OSError, ValueError):
        numbers = np.empty(0)
    if numbers.shape != (25,) or not np.isfinite(numbers).all():
        raise InputError(f"{path}: missing, or not 4 rows of camera to world and 3 rows of intrinsics; {MENDING}")
    return numbers[16:].reshape(3, 3), numbers[:16].reshape(4, 4)
