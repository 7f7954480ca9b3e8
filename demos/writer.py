"""Writing an episode in RLBench's format, whole or not at all.

The files go into a hidden folder beside the final one and are flushed to the disk; renaming that folder is the one
step that makes the episode exist, so a kill at any moment leaves no half episode under its name.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from scipy.spatial.transform import Rotation

from demos import images
from demos.field_views import write_field_views
from demos.unpickle import StoredDemo, StoredObservation, dump_pickle
from envs.interface import CameraView, Observation
from envs.rlbench.axes import to_rlbench
from envs.seeds import random_state
from manifield.errors import InputError

LOW_DIM = "low_dim_obs.pkl"
VARIATION = "variation_number.pkl"
DESCRIPTIONS = "variation_descriptions.pkl"
EXTRA = "manifield.json"
RLBENCH_CAMERAS = ("left_shoulder", "right_shoulder", "overhead", "wrist", "front")
UNFINISHED = ".unfinished-"  # prefix of the hidden folders; readers look for names that begin with "episode"


def episode_directory(root: Path | str, task: str, index: int) -> Path:
    """Where episode `index` of `task` is written."""
    return Path(root) / task / "all_variations" / "episodes" / f"episode{index}"


def write_episode(
    directory: Path | str,
    observations: Iterable[Observation],
    descriptions: list[str],
    variation: int,
    extra: dict[str, Any] | None = None,
    field_views: Mapping[int, Sequence[CameraView]] | None = None,
    depth_bits: int = 24,
) -> Path:
    """Write a demonstration; equal arguments give equal bytes.

    Args:
        directory: the episode's folder, see `episode_directory`; must not exist, its parents are made.
        observations: the frames; may be a generator, one frame is held at a time (without its pictures all are).
            Every frame must have the same cameras, pictures of one size, and masks in all frames or in none.
        descriptions: phrasings of the instruction, at least one.
        variation: number of the variation.
        extra: facts for people and tools (JSON), kept in `manifield.json`, which RLBench ignores. `extra["seed"]`, if
            given, also makes the random state that RLBench stores.
        field_views: views from elsewhere by the number of their frame, see `demos.field_views`.
        depth_bits: how many of its 24 bits the depth of the cameras keeps, see `images.encode_depth`.

    Returns:
        `directory`.

    Raises:
        InputError: the folder exists or cannot be written, or a frame does not fit the format. Nothing is left behind.
    """
    directory = Path(directory)
    if directory.exists():
        raise InputError(f"{directory}: exists already; delete it or write another index")
    if not descriptions or not all(isinstance(text, str) for text in descriptions):
        raise InputError(f"{directory}: an episode needs at least one description, a text")
    extra = extra or {}
    temporary: Path | None = None
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        temporary = directory.with_name(f"{UNFINISHED}{directory.name}-{uuid4().hex}")
        temporary.mkdir()
        frames = _write_pictures(temporary, observations, depth_bits)
        for frame, views in (field_views or {}).items():
            if not 0 <= frame < len(frames):
                raise InputError(f"field views of frame {frame}, but {len(frames)} frames")
            write_field_views(temporary, frame, views)
        demo = StoredDemo()
        vars(demo).update(
            _observations=frames, random_seed=random_state(extra.get("seed", 0)), variation_number=int(variation)
        )
        (temporary / LOW_DIM).write_bytes(dump_pickle(demo))
        (temporary / VARIATION).write_bytes(dump_pickle(int(variation)))
        (temporary / DESCRIPTIONS).write_bytes(dump_pickle([str(text) for text in descriptions]))
        (temporary / EXTRA).write_text(json.dumps(extra, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        os.sync()  # everything at once: an fsync for each of a thousand small files takes several times as long
        temporary.rename(directory)
        _flush(directory.parent)
    except InputError as error:
        raise InputError(f"{directory}: {error}") from None
    except OSError as error:
        raise InputError(
            f"{directory}: cannot be written ({error.strerror}); free space or choose another folder"
        ) from None
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    return directory


def remove_unfinished(directory: Path | str) -> int:
    """Delete what killed writers left in a folder of episodes; returns how many there were. Nobody may be writing."""
    leftovers = list(Path(directory).glob(f"{UNFINISHED}*"))
    for leftover in leftovers:
        shutil.rmtree(leftover, ignore_errors=True)
    return len(leftovers)


def _write_pictures(directory: Path, observations: Iterable[Observation], depth_bits: int) -> list[StoredObservation]:
    """Write every frame's pictures; return the frames without them, as RLBench pickles them."""
    frames: list[StoredObservation] = []
    layout: dict[str, tuple] = {}
    for index, observation in enumerate(observations):
        current = {camera: _layout(index, camera, view) for camera, view in observation.cameras.items()}
        layout = layout or current
        if current != layout or len({size for size, _ in current.values()}) > 1:
            raise InputError(f"frame {index} has {_words(current)}, but frame 0 has {_words(layout)}; record all alike")
        for camera, view in observation.cameras.items():
            for kind, data in _encode(index, camera, view, depth_bits).items():
                folder = directory / f"{camera}_{kind}"
                folder.mkdir(exist_ok=True)
                (folder / f"{index}.png").write_bytes(data)
        frames.append(_stored(index, observation))
    if not frames:
        raise InputError("an episode needs at least one frame")
    return frames


def _encode(index: int, camera: str, view: CameraView, depth_bits: int) -> dict[str, bytes]:
    """PNG files of a picture by kind."""
    try:
        pictures = {
            "rgb": images.encode_rgb(view.rgb),
            "depth": images.encode_depth(view.depth, view.near, view.far, depth_bits),
        }
        if view.mask is not None:
            # -1, nothing, has no place in the format: the largest id stands for it.
            pictures["mask"] = images.encode_mask(np.where(view.mask == -1, images.DEPTH_STEPS, view.mask))
    except InputError as error:
        raise InputError(f"frame {index}, camera '{camera}': {error}") from None
    return pictures


def _layout(index: int, camera: str, view: CameraView) -> tuple[tuple[int, ...], bool]:
    """Size of a camera's pictures and whether it has a mask."""
    size = view.rgb.shape[:2]
    if view.depth.shape != size or (view.mask is not None and view.mask.shape != size):
        raise InputError(f"frame {index}, camera '{camera}': colour, depth and mask differ in size")
    return size, view.mask is not None


def _words(layout: dict[str, tuple]) -> str:
    views = [
        f"{camera} {'x'.join(map(str, size))}{' with mask' if masked else ''}"
        for camera, (size, masked) in layout.items()
    ]
    return ", ".join(views) or "no camera"


def _stored(index: int, observation: Observation) -> StoredObservation:
    """RLBench's observation of a frame: its attributes in its order, the picture fields empty.

    Arrays are copied, so that what frames share in memory does not show in the pickle's bytes.
    """
    fields: dict[str, Any] = {
        sys.intern(f"{camera}_{kind}"): None
        for camera in RLBENCH_CAMERAS
        for kind in ("rgb", "depth", "mask", "point_cloud")
    }
    pose = _numbers(index, "gripper_pose", observation.gripper_pose, 7)
    if not np.linalg.norm(pose[3:]) > 1e-6:
        raise InputError(f"frame {index}: gripper_pose has a quaternion of length 0")
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_quat(pose[3:]).as_matrix()
    matrix[:3, 3] = pose[:3]
    fields |= {
        "joint_velocities": _numbers(index, "joint_velocities", observation.joint_velocities, 7),
        "joint_positions": _numbers(index, "joint_positions", observation.joint_positions, 7),
        "joint_forces": _numbers(index, "joint_forces", observation.joint_forces, 7),
        "gripper_open": float(_numbers(index, "gripper_open", observation.gripper_open, 1)[0]),
        "gripper_pose": pose,
        "gripper_matrix": matrix,
        "gripper_joint_positions": _numbers(index, "gripper_joint_positions", observation.gripper_joint_positions, 2),
        "gripper_touch_forces": _numbers(index, "gripper_touch_forces", observation.gripper_touch_forces, 6),
        "task_low_dim_state": _numbers(index, "task_low_dim_state", observation.task_low_dim_state, None),
    }
    if observation.ignore_collisions is not None:
        fields["ignore_collisions"] = np.array(float(observation.ignore_collisions))
    misc: dict[str, Any] = {}
    for camera, view in observation.cameras.items():
        misc |= _calibration(index, camera, view)
    fields["misc"] = misc
    stored = StoredObservation()
    vars(stored).update(fields)
    return stored


def _calibration(index: int, camera: str, view: CameraView) -> dict[str, Any]:
    """RLBench's description of a camera."""
    intrinsics, extrinsics = to_rlbench(
        _numbers(index, f"{camera} intrinsics", view.intrinsics, 9).reshape(3, 3),
        _numbers(index, f"{camera} T_world_camera", view.T_world_camera, 16).reshape(4, 4),
    )
    values = {
        "extrinsics": extrinsics,
        "intrinsics": intrinsics,
        "near": float(view.near),
        "far": float(view.far),
    }
    return {sys.intern(f"{camera}_camera_{name}"): value for name, value in values.items()}


def _numbers(index: int, name: str, value: Any, size: int | None) -> np.ndarray:
    """A fresh float array, checked."""
    array = np.array(value, np.float64)
    if (size is not None and array.size != size) or not np.isfinite(array).all():
        wanted = "all finite numbers" if size is None else f"{size} finite number{'s' if size > 1 else ''}"
        raise InputError(f"frame {index}: {name} must be {wanted}, not {array.tolist()}")
    return array.reshape(-1)


def _flush(directory: Path) -> None:
    """Make a folder's entries survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
