"""Demonstrations on disk in RLBench's format: find, open and write episodes.

ROOT/TASK/all_variations/episodes/episodeN/     (or ROOT/TASK/variationV/episodes/episodeN)
    low_dim_obs.pkl  variation_number.pkl  variation_descriptions.pkl
    {camera}_{rgb,depth,mask}/{0,1,2...}.png
    nerf_data/                              views of some frames from elsewhere, see `demos.field_views`
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from demos import images
from demos.field_views import field_frames, read_field_views
from demos.unpickle import StoredDemo, StoredObservation, read_pickle
from demos.writer import DESCRIPTIONS, LOW_DIM, VARIATION, episode_directory, write_episode
from envs.interface import CameraView, Observation, RecordedScene
from envs.rlbench.axes import flip_axes
from manifield.errors import InputError, choose

__all__ = ["Episode", "episode_directory", "find_episodes", "open_episode", "select_episodes", "write_episode"]

EXPECTED = "ROOT/TASK/all_variations/episodes/episodeN"
LONGEST = 1000  # characters of a phrasing; RLBench's have less than 100
MOST_VARIATIONS = 10**6


def find_episodes(root: Path | str, task: str | None = None) -> list[Path]:
    """Folders of the episodes below `root`, by task, then variation folder, then number (9 before 10).

    Args:
        root: the folder that holds one folder a task.
        task: only this task; None takes all.

    Raises:
        InputError: `root` is missing, no such task, or no episode.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; give the folder that holds one folder a task ({EXPECTED})")
    found = [
        path
        for pattern in ("all_variations", "variation[0-9]*")
        for path in root.glob(f"*/{pattern}/episodes/episode*")
        if re.fullmatch(r"episode[0-9]+", path.name) and path.is_dir()
    ]
    if not found:
        raise InputError(f"{root}: holds no episode; expected {EXPECTED}, as `manifield collect` writes them")
    if task is not None:
        choose(task, {path.parents[2].name for path in found}, f"task in {root}")
        found = [path for path in found if path.parents[2].name == task]
    return sorted(found, key=lambda path: [_natural(part) for part in path.relative_to(root).parts])


def select_episodes(
    root: Path | str, tasks: Sequence[str] | str | None = None, select: Sequence[int] | int | None = None
) -> list[Path]:
    """Folders of all episodes below `root`, or of some tasks', or of those with some numbers (episodeN).

    Raises:
        InputError: there is no such folder, task or episode.
    """
    tasks = [tasks] if isinstance(tasks, str) else tasks
    paths = [path for task in tasks for path in find_episodes(root, task)] if tasks else find_episodes(root)
    if select is None:
        return paths
    wanted = {select} if isinstance(select, int) else set(select)
    numbers = [int(path.name.removeprefix("episode")) for path in paths]
    if not wanted <= set(numbers):
        missing = ", ".join(map(str, sorted(wanted - set(numbers))))
        raise InputError(f"select: '{root}' has no episode {missing}, only {min(numbers)} to {max(numbers)}")
    return [path for path, number in zip(paths, numbers, strict=True) if number in wanted]


def _numbers(stored: Any) -> np.ndarray:
    """A number or plain numbers as floats. Nothing else is shown to numpy: nested lists that repeat each other can
    stand for any amount of memory.

    Raises:
        TypeError: something else.
    """
    flat = stored if isinstance(stored, list | tuple) else [stored]
    if isinstance(stored, np.ndarray):
        if stored.dtype.kind not in "biuf":
            raise TypeError(f"array of {stored.dtype}")
    elif not all(isinstance(number, int | float | np.number | np.bool_) for number in flat):
        raise TypeError(f"no numbers but {type(stored).__name__}")
    return np.array(stored, float)


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key with numbers by value."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def open_episode(path: Path | str) -> Episode:
    """Open one episode: reads its three pickles and lists its pictures, decodes none.

    Raises:
        InputError: anything missing, corrupt or contradictory, naming the file and what to do.
    """
    return Episode(Path(path))


class Episode:
    """One demonstration, lazily: low-dimensional data in memory, pictures decoded on request.

    path. task: the name of the task's folder. variation: its number. descriptions: phrasings of the instruction, at
    least one (the task's name in words where the files have none). cameras: names of the cameras with pictures.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_dir():
            raise InputError(f"{path}: no such episode; give the folder of one, {EXPECTED}")
        demo = read_pickle(path / LOW_DIM)
        frames = getattr(demo, "_observations", None) if isinstance(demo, StoredDemo) else demo
        if not isinstance(frames, list) or not all(isinstance(frame, StoredObservation) for frame in frames):
            raise self._wrong("is not a pickled demonstration")
        if not frames:
            raise self._wrong("holds no frame")
        self._frames: list[dict[str, Any]] = [frame.__dict__ for frame in frames]
        folders = path.resolve().parts
        self.task = folders[-4] if len(folders) > 3 and folders[-2] == "episodes" else path.name
        self.variation = self._read_variation(demo, folders[-3] if len(folders) > 2 else "")
        self._random_state = getattr(demo, "random_seed", None)
        self._attempts = getattr(demo, "num_reset_attempts", None)
        self.descriptions = self._read_descriptions()
        self.cameras = self._list_cameras()

    def __len__(self) -> int:
        return len(self._frames)

    def __repr__(self) -> str:
        return f"Episode({str(self.path)!r}, {len(self)} frames, cameras {', '.join(self.cameras)})"

    # One frame

    def low_dim(self, index: int) -> Observation:
        """The observation of a frame without its pictures (`cameras` is empty)."""
        optional = {
            name: self._array(index, name, None)
            for name in ("joint_forces", "gripper_touch_forces", "task_low_dim_state")
            if self._frames[index].get(name) is not None
        }
        flag = self._frames[index].get("ignore_collisions")
        return Observation(
            cameras={},
            joint_positions=self._array(index, "joint_positions", 7),
            joint_velocities=self._array(index, "joint_velocities", 7),
            gripper_pose=self._array(index, "gripper_pose", 7),
            gripper_open=float(self._array(index, "gripper_open", 1)[0]),
            gripper_joint_positions=self._array(index, "gripper_joint_positions", 2),
            ignore_collisions=None if flag is None else bool(self._array(index, "ignore_collisions", 1)[0]),
            **optional,
        )

    def observation(self, index: int, cameras: Iterable[str] | None = None, masks: bool = True) -> Observation:
        """The observation of a frame with decoded pictures.

        Args:
            index: frame; negative counts from the end.
            cameras: which to decode; None decodes all.
            masks: decode segmentation masks too, where there are some.

        Raises:
            InputError: an unknown camera, or a picture that is damaged or of another size than the episode's.
        """
        observation = self.low_dim(index)
        for camera in self.cameras if cameras is None else cameras:
            observation.cameras[camera] = self.view(index, camera, masks)
        return observation

    def view(self, index: int, camera: str, masks: bool = True) -> CameraView:
        """One decoded picture with its calibration; errors as for `observation`."""
        intrinsics, T_world_camera, near, far = self.calibration(index, camera)
        name = f"{range(len(self))[index]}.png"
        files = {kind: self._folder(camera, kind) / name for kind in ("rgb", "depth", "mask")}
        size = self.image_size
        images.check_centre(files["rgb"], intrinsics, size)
        return CameraView(
            rgb=images.read_rgb(files["rgb"], size),
            depth=images.read_depth(files["depth"], near, far, size),
            intrinsics=intrinsics,
            T_world_camera=T_world_camera,
            near=near,
            far=far,
            mask=images.read_mask(files["mask"], size) if masks and camera in self._masked else None,
        )

    def calibration(self, index: int, camera: str) -> tuple[np.ndarray, np.ndarray, float, float]:
        """Intrinsics [3, 3], T_world_camera [4, 4] (OpenCV axes), near and far (metres) of a camera at a frame."""
        if camera not in self.cameras:
            raise InputError(f"{self.path}: no camera '{camera}'; present: {', '.join(self.cameras) or 'none'}")
        misc: Any = self._frames[index].get("misc")
        try:
            intrinsics, extrinsics, near, far = (
                _numbers(misc[f"{camera}_camera_{name}"]) for name in ("intrinsics", "extrinsics", "near", "far")
            )
        except (KeyError, IndexError, TypeError, ValueError, OverflowError):
            raise self._wrong(f"frame {index} has no calibration of camera '{camera}'") from None
        if intrinsics.shape != (3, 3) or extrinsics.shape != (4, 4) or near.shape or far.shape:
            raise self._wrong(f"frame {index} has a calibration of wrong shape for camera '{camera}'")
        if not all(np.isfinite(part).all() for part in (intrinsics, extrinsics, near, far)):
            raise self._wrong(f"frame {index} has a calibration that is not finite for camera '{camera}'")
        return *flip_axes(intrinsics, extrinsics), float(near), float(far)

    def field_views(self, index: int) -> list[CameraView]:
        """The extra views of a frame, each with a calibration of its own (OpenCV axes, positive focal lengths).

        Raises:
            InputError: the frame has none (see `field_frames`), or they are incomplete or damaged.
        """
        return read_field_views(self.path, range(len(self))[index])

    # All frames

    @property
    def scene(self) -> RecordedScene:
        """How RLBench drew the scene, for an environment that can go back to it.

        Raises:
            InputError: the file does not tell.
        """
        state = self._random_state
        try:
            name, keys, position, has_gauss, cached = state  # type: ignore[misc]
            restored = (str(name), np.array(keys, np.uint32), int(position), int(has_gauss), float(cached))
            np.random.RandomState().set_state(restored)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            raise self._wrong("holds no random state of numpy's, so its scene cannot be built again") from None
        attempts = self._attempts if type(self._attempts) is int and self._attempts > 0 else None
        return RecordedScene(restored, self.variation, attempts)

    @cached_property
    def field_frames(self) -> tuple[int, ...]:
        """Numbers of the frames that have extra views; most episodes have none.

        Raises:
            InputError: views of a frame that the episode does not have.
        """
        frames = field_frames(self.path)
        if frames and frames[-1] >= len(self):
            raise InputError(
                f"{self.path}: field views of frame {frames[-1]}, but {len(self)} frames; delete the episode"
            )
        return frames

    @cached_property
    def image_size(self) -> tuple[int, int]:
        """(H, W) of the pictures."""
        if not self.cameras:
            raise InputError(f"{self.path}: has no pictures; restore them or delete the episode")
        return images.read_size(self._folder(self.cameras[0], "rgb") / "0.png")

    @cached_property
    def gripper_pose(self) -> np.ndarray:
        """[T, 7] position (metres) and quaternion xyzw of the tool centre point."""
        return self._series("gripper_pose", 7)

    @cached_property
    def gripper_open(self) -> np.ndarray:
        """[T] 1.0 open, 0.0 closed."""
        return self._series("gripper_open", 1)[:, 0]

    @cached_property
    def joint_velocities(self) -> np.ndarray:
        """[T, 7] rad/s."""
        return self._series("joint_velocities", 7)

    @cached_property
    def ignore_collisions(self) -> np.ndarray | None:
        """[T] bool, or None in episodes that predate the flag."""
        if any(frame.get("ignore_collisions") is None for frame in self._frames):
            return None
        return self._series("ignore_collisions", 1)[:, 0] > 0.5

    # Reading

    def _series(self, name: str, size: int) -> np.ndarray:
        return np.stack([self._array(index, name, size) for index in range(len(self))])

    def _array(self, index: int, name: str, size: int | None) -> np.ndarray:
        """A field of a frame as finite numbers [size] (None: any size)."""
        stored = self._frames[index].get(name)
        if stored is None:
            raise self._wrong(f"frame {index} has no {name}")
        try:
            value = _numbers(stored).reshape(-1)
        except (TypeError, ValueError, OverflowError):
            raise self._wrong(f"frame {index} has no numbers in {name}") from None
        if size is not None and len(value) != size:
            raise self._wrong(f"frame {index} has {len(value)} numbers in {name} instead of {size}")
        if not np.isfinite(value).all():
            raise self._wrong(f"frame {index} has a value in {name} that is not finite")
        return value

    def _wrong(self, what: str) -> InputError:
        return InputError(f"{self.path / LOW_DIM}: {what}; restore the file or delete the episode")

    def _folder(self, camera: str, kind: str) -> Path:
        return self.path / f"{camera}_{kind}"

    def _read_variation(self, demo: Any, folder: str) -> int:
        # The number inside the demo is 0 in PerAct's files whatever the variation is, so it comes last.
        if (self.path / VARIATION).exists():
            value, file = read_pickle(self.path / VARIATION), self.path / VARIATION
        else:
            named = re.fullmatch(r"variation([0-9]+)", folder)
            value, file = int(named[1]) if named else getattr(demo, "variation_number", 0), self.path / LOW_DIM
        if not isinstance(value, int) or not 0 <= value < MOST_VARIATIONS:
            raise InputError(f"{file}: holds no variation's number; write the right one into {self.path / VARIATION}")
        return value

    def _read_descriptions(self) -> list[str]:
        for directory in (self.path, self.path.parent.parent):
            if (directory / DESCRIPTIONS).exists():
                value = read_pickle(directory / DESCRIPTIONS)
                if not isinstance(value, list) or not value or not all(isinstance(text, str) for text in value):
                    break  # a known fixture holds an observation there: do without
                if not all(text.isprintable() and len(text) <= LONGEST for text in value):
                    raise InputError(
                        f"{directory / DESCRIPTIONS}: a phrasing is no line of at most {LONGEST} readable characters; "
                        "restore the file or delete the episode"
                    )
                return value
        return [self.task.replace("_", " ")]

    def _list_cameras(self) -> tuple[str, ...]:
        """Cameras with a full set of colour and depth pictures; an incomplete set is an error."""
        expected = {f"{index}.png" for index in range(len(self))}
        complete: set[tuple[str, str]] = set()
        for folder in sorted(self.path.glob("*_*")):
            camera, _, kind = folder.name.rpartition("_")
            if kind not in ("rgb", "depth", "mask") or not folder.is_dir():
                continue
            present = {file.name for file in folder.iterdir()}
            if not present:  # RLBench makes the folders of cameras that are switched off, too
                continue
            if present != expected:
                odd = sorted(present ^ expected, key=_natural)
                raise InputError(
                    f"{folder}: {len(present)} pictures for {len(self)} frames (missing or too many: "
                    f"{', '.join(odd[:3])}{'…' if len(odd) > 3 else ''}); restore them or delete the episode"
                )
            complete.add((camera, kind))
        cameras = {camera for camera, _ in complete}
        for camera in cameras:
            for kind in ("rgb", "depth"):
                if (camera, kind) not in complete:
                    raise InputError(f"{self._folder(camera, kind)}: no pictures of this kind; restore them")
        self._masked = {camera for camera, kind in complete if kind == "mask"}
        return tuple(sorted(cameras))
