"""A teacher's features of an episode's pictures, computed once and kept beside the data.

    DATA/features/TEACHER/                                  the cache; delete it to be rid of it
        reduction.safetensors                               the PCA, if there is one
        TASK/all_variations/episodeN.safetensors            one tensor [h, w, C] float16 for each picture

The tensors are called FRAME/VIEW; VIEW is a number for field views (`demos.field_views`), else a camera's name. The
files say whose features they are and of which pictures (by sha256), so that those of another teacher or of pictures
that have changed are refused. They lie outside the episodes' folders, whose contents are settled once recorded.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from demos.field_views import FOLDER as FIELD_FOLDER
from demos.field_views import field_view_numbers
from demos.keyframes import find_keyframes
from demos.store import Episode
from manifield.errors import InputError
from manifield.files import write_whole

View = str | int
"""A camera's name, or the number of a field view."""
Picture = tuple[int, View]
"""Frame and view."""
REDUCTION = "reduction.safetensors"
NOTES = "features"  # the one key of the metadata: safetensors would write several in any order


def cache_folder(data: Path | str, teacher: str) -> Path:
    """Where the features of the data set `data` by the teacher of that name are kept."""
    return Path(data) / "features" / teacher


def cache_file(cache: Path, episode: Path) -> Path:
    """The file of one episode, whose folder is TASK/VARIATIONS/episodes/episodeN."""
    parts = episode.resolve().parts
    if len(parts) < 5 or parts[-2] != "episodes":
        raise InputError(
            f"{episode}: not the folder of an episode in a data set, DATA/TASK/all_variations/episodes/episodeN"
        )
    return cache / parts[-4] / parts[-3] / f"{parts[-1]}.safetensors"


def list_pictures(episode: Episode, every: int | None = None, cameras: Iterable[str] = ()) -> list[Picture]:
    """The pictures that a field learns from: those of the first frame and the key-frames, in order.

    Args:
        every: also those of every k-th frame.
        cameras: which cameras' pictures to add to the field views.

    Raises:
        InputError: no such camera.
    """
    frames = {0, *find_keyframes(episode.joint_velocities, episode.gripper_open)}
    if every is not None:
        frames |= set(range(0, len(episode), every))
    cameras = list(cameras)
    for camera in cameras:
        if camera not in episode.cameras:
            raise InputError(f"{episode.path}: no camera '{camera}'; present: {', '.join(episode.cameras) or 'none'}")
    pictures: list[Picture] = []
    for frame in sorted(frames):
        pictures += [(frame, camera) for camera in cameras]
        pictures += [(frame, view) for view in field_view_numbers(episode.path, frame)]
    return pictures


def picture_file(episode: Path, picture: Picture) -> Path:
    """The PNG file of a picture."""
    frame, view = picture
    if isinstance(view, int):
        return episode / FIELD_FOLDER / str(frame) / "images" / f"{view}.png"
    return episode / f"{view}_rgb" / f"{frame}.png"


def picture_hash(file: Path) -> str:
    """sha256 of a file, or "" if there is none."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16] if file.is_file() else ""


class Features(Mapping[Picture, np.ndarray]):
    """Features of an episode: (frame, view) → [h, w, C] float16, each read from the file when it is asked for.

    file: where they are. identity: of the teacher and of the reduction. teacher, reduction: these two apart ("" for no
    reduction). instruction: what a teacher with a prompt was told, else "".
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            with safe_open(file, framework="numpy") as content:
                notes = json.loads((content.metadata() or {})[NOTES])
            self.teacher, self.reduction, self.instruction = notes["teacher"], notes["reduction"], notes["instruction"]
            self.hashes = {_picture(name): value for name, value in notes["pictures"].items()}
        except FileNotFoundError:
            raise InputError(
                f"{file}: no features; run `manifield features data={file.parents[4]} teacher={file.parents[2].name}`"
            ) from None
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, AttributeError):
            raise InputError(
                f"{file}: not features, or damaged; delete it and run `manifield features` again"
            ) from None

    @property
    def identity(self) -> str:
        return identify(self.teacher, self.reduction)

    @property
    def channels(self) -> int:
        """C."""
        return int(next(iter(self.values())).shape[2])

    def __getitem__(self, picture: Picture) -> np.ndarray:
        if picture not in self.hashes:
            raise InputError(
                f"{self.file}: no features of frame {picture[0]}, view {picture[1]}; run `manifield features` again "
                "with that frame (every=…) or camera (cameras=…)"
            )
        # The file is mapped anew each time: nothing stays open, and the mapping can go to another process.
        try:
            with safe_open(self.file, framework="numpy") as content:
                tensor: np.ndarray = content.get_tensor(_name(picture))
                return tensor
        except (OSError, SafetensorError):
            raise InputError(f"{self.file}: damaged; delete it and run `manifield features` again") from None

    def __contains__(self, picture: object) -> bool:
        return picture in self.hashes

    def __iter__(self) -> Iterator[Picture]:
        return iter(self.hashes)

    def __len__(self) -> int:
        return len(self.hashes)

    def check(self, episode: Episode) -> None:
        """Check that these are features of the pictures that the episode has now.

        Raises:
            InputError: pictures have changed, are gone or have been added to a frame; another instruction.
        """
        again = "run `manifield features` again with overwrite=true"
        for picture, digest in self.hashes.items():
            file = picture_file(episode.path, picture)
            if picture_hash(file) != digest:
                raise InputError(f"{self.file}: stale, {file} has changed since; {again}")
        for frame in {frame for frame, view in self.hashes if isinstance(view, int)}:
            there = field_view_numbers(episode.path, frame)
            known = [view for number, view in self.hashes if number == frame and isinstance(view, int)]
            if there != sorted(known):
                raise InputError(
                    f"{self.file}: stale, frame {frame} has {len(there)} field views now, not {len(known)}; {again}"
                )
        if self.instruction and self.instruction != episode.descriptions[0]:
            raise InputError(
                f"{self.file}: stale, made for '{self.instruction}', not '{episode.descriptions[0]}'; {again}"
            )


def load_features(episode: Episode, cache: Path | str, identity: str | None = None) -> Features:
    """The kept features of an episode.

    Args:
        cache: folder of the cache, see `cache_folder`.
        identity: what `Features.identity` must be, e.g. from a checkpoint; None takes any.

    Raises:
        InputError: there are none, they are damaged, stale, or of another teacher.
    """
    features = Features(cache_file(Path(cache), episode.path))
    if identity is not None and features.identity != identity:
        raise InputError(f"{features.file}: features of another teacher: {features.identity}, not {identity}")
    features.check(episode)
    return features


def save_features(
    file: Path,
    arrays: Mapping[Picture, np.ndarray],
    hashes: Mapping[Picture, str],
    teacher: str,
    reduction: str,
    instruction: str,
) -> None:
    """Write the features of an episode: the file is there whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    notes = {
        "teacher": teacher,
        "reduction": reduction,
        "instruction": instruction,
        "pictures": {_name(picture): value for picture, value in hashes.items()},
    }
    tensors = {_name(picture): np.ascontiguousarray(array) for picture, array in arrays.items()}
    write_whole(file, save(tensors, {NOTES: json.dumps(notes)}))


def identify(teacher: str, reduction: str) -> str:
    """The identity of features: what a checkpoint notes to refuse others."""
    return f"{teacher} {reduction}".strip()


def _name(picture: Picture) -> str:
    return f"{picture[0]}/{picture[1]}"


def _picture(name: str) -> Picture:
    found = re.fullmatch(r"([0-9]{1,9})/(?:([0-9]{1,9})|([\w.-]{1,100}))", name)
    if found is None:
        raise ValueError(f"{name[:100]!r} is no frame and view")
    return int(found[1]), int(found[2]) if found[2] else found[3]
