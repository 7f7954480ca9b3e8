"""The file of where cameras are mounted, as `env.frames.cameras` takes it, and the same as a static transform."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from envs.ros.frames import FrameTree
from envs.ros.geometry import pose_matrix, pose_vector
from manifield.errors import InputError
from manifield.files import write_whole

HEADER = "# Where the cameras are: env.frames.cameras takes this file. Poses: x y z (metres), quaternion x y z w.\n"


@dataclass(frozen=True)
class Mount:
    """frame: what carries the camera. T_frame_camera: [4, 4], of the optical frame. note: how it came about."""

    frame: str
    T_frame_camera: np.ndarray
    note: str = ""


def read_mounts(path: Path | str) -> dict[str, Mount]:
    """Cameras by name.

    Raises:
        InputError: no such file, or what it says is no pose; names the camera.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        content = yaml.safe_load(text) or {}
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: cannot be read ({' '.join(str(error).split())}); write it with `manifield calibrate`"
        ) from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected cameras by name, each with frame and pose")
    notes = dict(_notes(text))
    return {str(name): _mount(path, str(name), entry, notes.get(str(name), "")) for name, entry in content.items()}


def write_mounts(path: Path, mounts: Mapping[str, Mount]) -> None:
    """Write the file anew."""
    lines = [HEADER]
    for name, mount in sorted(mounts.items()):
        numbers = ", ".join(f"{value:.6f}" for value in pose_vector(mount.T_frame_camera))
        lines += [f"{name}:", *([f"  # {mount.note}"] if mount.note else [])]
        lines += [f"  frame: {mount.frame}", f"  pose: [{numbers}]"]
    write_whole(path, "\n".join(lines) + "\n")


def static_transform(mount: Mount, optical: str, tree: FrameTree | None = None) -> tuple[str, str]:
    """The child frame and the command that publishes a mount as a static transform.

    A driver (RealSense's, for one) publishes frames of its own between the camera's body and its optical frame. A frame
    has one parent, so then the highest of the driver's frames is what is hung up, below which all are as they were.
    """
    child, T = optical, mount.T_frame_camera
    if tree is not None:
        robot, above = tree.ancestors(mount.frame), tree.ancestors(optical)
        child = ([frame for frame in above if frame not in robot] or [optical])[-1]
        if child != optical:
            T = T @ tree.lookup(optical, child)
    x, y, z, *turn = pose_vector(T)
    words = [
        f"--{name} {value:.6f}"
        for name, value in zip(("x", "y", "z", "qx", "qy", "qz", "qw"), (x, y, z, *turn), strict=True)
    ]
    return child, (
        f"ros2 run tf2_ros static_transform_publisher {' '.join(words)} "
        f"--frame-id {mount.frame} --child-frame-id {child}"
    )


def _mount(path: Path, name: str, entry: Any, note: str) -> Mount:
    try:
        frame, pose = str(entry["frame"]), np.array(entry["pose"], float)
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{path}: {name}: give frame: and pose: [x, y, z, qx, qy, qz, qw]") from None
    if pose.shape != (7,) or not np.isfinite(pose).all() or abs(np.linalg.norm(pose[3:]) - 1) > 0.01:
        raise InputError(f"{path}: {name}: pose {pose.tolist()} is not seven numbers that end in a unit quaternion")
    return Mount(frame, pose_matrix(pose), note)


def _notes(text: str) -> list[tuple[str, str]]:
    """(camera, comment) of the comments below cameras' names."""
    found, name = [], ""
    for line in text.splitlines():
        if line[:1] not in (" ", "#", "") and line.rstrip().endswith(":"):
            name = line.rstrip()[:-1]
        elif line.startswith("  # ") and name:
            found.append((name, line.removeprefix("  # ")))
    return found
