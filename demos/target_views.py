"""The pictures that a neural field learns to explain: those of field views and of the cameras, with a teacher's
features if there are any, decoded when they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, overload

from demos.features import Features, View, load_features
from demos.field_views import field_view_numbers, read_field_view
from demos.memory import Memory
from demos.store import Episode
from manifield.errors import InputError
from perception.field.views import TargetView

T = TypeVar("T")


@dataclass(frozen=True)
class FieldTargets:
    """Which pictures of a frame are targets.

    views: how many of its field views, evenly chosen; None for all. cameras: whose pictures too, "none", those that the
    "agent" looks through, the "other" ones, or "all".
    features: folder of the teacher's features (`demos.features.cache_folder`); None for none. identity: whose these
    must be; None for whoever's.
    """

    views: int | None = None
    cameras: str = "none"
    features: Path | None = None
    identity: str | None = None


class TargetViews(Sequence[TargetView]):
    """The targets of one frame, in order: cameras, then field views by number.

    Args:
        cameras: the agent's.
        features: of the episode; a picture that they do not cover comes without.
        memory: for what has been decoded (128 x 128: 0.1 MB a picture, and its features); None keeps nothing.

    Raises:
        InputError: there is none.
    """

    def __init__(
        self,
        episode: Episode,
        frame: int,
        targets: FieldTargets,
        cameras: Sequence[str],
        features: Features | None,
        memory: Memory | None = None,
    ) -> None:
        self._episode, self.frame, self._features = episode, frame, features
        numbers = field_view_numbers(episode.path, frame)
        other = [camera for camera in episode.cameras if camera not in cameras]
        chosen = {"none": (), "agent": cameras, "other": other, "all": episode.cameras}[targets.cameras]
        self.names: list[View] = [*chosen, *evenly(numbers, targets.views)]
        if not self.names:
            raise InputError(
                f"{episode.path} frame {frame}: no field views to learn from; record them with "
                "`manifield collect field_views.count=20`, or learn from the cameras, field.cameras=true"
            )
        self._memory, self._kept = memory, dict[int, TargetView]()

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> TargetView: ...
    @overload
    def __getitem__(self, index: slice) -> list[TargetView]: ...
    def __getitem__(self, index: int | slice) -> TargetView | list[TargetView]:
        if isinstance(index, slice):
            return [self[k] for k in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        if index in self._kept:
            return self._kept[index]
        name = self.names[index]
        if isinstance(name, int):
            picture = read_field_view(self._episode.path, self.frame, name)
        else:
            picture = self._episode.view(self.frame, name)
        known = self._features is not None and (self.frame, name) in self._features
        feature = self._features[self.frame, name] if self._features is not None and known else None
        title = f"{self._episode.path} frame {self.frame}, {f'field view {name}' if isinstance(name, int) else name}"
        view = TargetView(picture, feature, title)
        view.check(self._features.channels if self._features is not None and known else 0)
        if self._memory is not None and self._memory.admits(view):
            self._kept[index] = view
        return view


def open_features(episode: Episode, targets: FieldTargets) -> Features | None:
    """The features of an episode's targets.

    Raises:
        InputError: there are none, or they are stale, damaged or another teacher's.
    """
    return None if targets.features is None else load_features(episode, targets.features, targets.identity)


def evenly(items: Sequence[T], count: int | None) -> list[T]:
    """`count` of the items, evenly spread over their order; all if there are not more."""
    if count is None or count >= len(items):
        return list(items)
    return [items[k * len(items) // count] for k in range(count)]
