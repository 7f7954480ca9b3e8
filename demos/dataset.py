"""Training samples from recorded episodes, decoded when they are asked for.

`KeyframeDataset` is a torch map-style dataset: item i is the `Sample` of transition i: the fused, cropped, thinned
point cloud at its source frame, the tool's state there, and the key-frame to reach.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from torch.utils.data import Dataset

from demos.features import Features
from demos.memory import Memory
from demos.store import Episode, open_episode, select_episodes
from demos.target_views import FieldTargets, TargetViews, open_features
from demos.transitions import Conventions, Transition, low_dim_state, make_transitions
from envs.interface import CameraView, Observation
from manifield.errors import InputError
from perception.field.views import TargetView
from perception.voxels import fuse


@dataclass(frozen=True)
class Sample:
    """What the agent sees, and (in training) the key-frame it should choose.

    points [N, 3] float32 metres; colours [N, 3] uint8; low_dim [4] as `demos.transitions.low_dim_state`;
    ignore_collisions: None in data that predates the flag.
    tool_position [3]; tool_quaternion, quaternion [4] xyzw; position [3].
    pictures: that the points were taken from, by camera, and views: pictures of the same moment, both for a neural
    field, one to look into, the other to explain. Their poses are as recorded; `motion` [4, 4] says how the scene was
    moved since. name: which episode and frame, for messages.
    """

    name: str
    task: str
    descriptions: list[str]
    points: np.ndarray
    colours: np.ndarray
    low_dim: np.ndarray
    tool_position: np.ndarray
    tool_quaternion: np.ndarray
    position: np.ndarray
    quaternion: np.ndarray
    gripper_open: bool
    ignore_collisions: bool | None
    pictures: Mapping[str, CameraView] = field(default_factory=dict)
    views: Sequence[TargetView] = ()
    motion: np.ndarray = field(default_factory=lambda: np.eye(4))


class Sight(Protocol):
    """What of an agent's config decides what it sees (`agents.config.AgentConfig` has it)."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]
    cameras: tuple[str, ...] | None
    spacing: float


def make_sample(
    observation: Observation,
    time: float,
    sight: Sight,
    descriptions: list[str],
    task: str = "",
    name: str = "",
    transition: Transition | None = None,
) -> Sample:
    """A sample from an observation; without a transition the goal is the tool's own pose (it is not read then)."""
    low, high = np.asarray(sight.low), np.asarray(sight.high)
    points, colours = fuse(observation, low, high, sight.cameras, sight.spacing)
    goal = observation.gripper_pose if transition is None else transition.target_pose
    return Sample(
        name=name,
        task=task,
        descriptions=descriptions,
        points=points,
        colours=colours,
        low_dim=low_dim_state(observation, time),
        tool_position=np.asarray(observation.gripper_pose[:3]),
        tool_quaternion=np.asarray(observation.gripper_pose[3:]),
        position=np.asarray(goal[:3]),
        quaternion=np.asarray(goal[3:]),
        gripper_open=observation.gripper_open > 0.5 if transition is None else transition.target_gripper_open,
        ignore_collisions=None if transition is None else transition.ignore_collisions,
        pictures={name: observation.cameras[name] for name in sight.cameras or observation.cameras},
    )


class KeyframeDataset(Dataset[Sample]):
    """Transitions of many episodes.

    Args:
        episodes: opened episodes.
        sight: the agent's box, cameras and thinning.
        conventions: how transitions are drawn.
        memory: for decoded samples (about 0.2 MB each with 7 mm spacing; 3 MB with a dozen target views); None keeps
            none.
        targets: which pictures a neural field learns from; None for none.

    Raises:
        InputError: episodes have different cameras or picture sizes; a goal lies outside the agent's box; there are no
            target views, or their features are missing, stale or of different teachers.
    """

    def __init__(
        self,
        episodes: Sequence[Episode],
        sight: Sight,
        conventions: Conventions,
        memory: Memory | None = None,
        targets: FieldTargets | None = None,
    ) -> None:
        self.sight = sight
        self.episodes = {episode.path: episode for episode in episodes}
        self.cameras = tuple(sight.cameras or _common_cameras(episodes))
        self.image_size = _common_size(episodes, self.cameras)
        self.items = [t for episode in episodes for t in make_transitions(episode, conventions)]
        self.task_of = [self.episodes[t.episode].task for t in self.items]
        self.tasks = sorted(set(self.task_of))
        self.weights = [t.weight for t in self.items]
        self.keyframe_numbers = [t.step for t in self.items]
        self._memory, self._samples = memory, dict[int, Sample]()
        self._check_goals()
        self.features: dict[Path, Features | None] = {}
        self.views: dict[tuple[Path, int], TargetViews] = {}
        if targets is not None:
            self._open_targets(targets)

    @classmethod
    def open(
        cls,
        root: Path,
        sight: Sight,
        conventions: Conventions,
        tasks: Sequence[str] | str | None = None,
        select: Sequence[int] | int | None = None,
        memory: Memory | None = None,
        targets: FieldTargets | None = None,
        leave_out: Sequence[int] = (),
    ) -> KeyframeDataset:
        """All episodes below `root`, or those of some tasks, or those with some numbers (episodeN), without those with
        the numbers `leave_out`.

        Raises:
            InputError: there is no such folder, task or episode, or none is left.
        """
        left_out = {f"episode{number}" for number in leave_out}
        paths = [path for path in select_episodes(root, tasks, select) if path.name not in left_out]
        if not paths:
            raise InputError(f"'{root}': no episode is left beside {', '.join(sorted(left_out))}: leave out fewer")
        return cls([open_episode(p) for p in paths], sight, conventions, memory, targets)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Sample:
        if index in self._samples:
            return self._samples[index]
        transition = self.items[index]
        episode = self.episodes[transition.episode]
        sample = make_sample(
            episode.observation(transition.source, self.cameras, masks=False),
            transition.time,
            self.sight,
            episode.descriptions,
            episode.task,
            f"{episode.path} frame {transition.source}",
            transition,
        )
        views = self.views.get((transition.episode, transition.source), ())
        sample = replace(sample, views=views, pictures=sample.pictures if views else {})
        if self._memory is not None and self._memory.admits(replace(sample, views=())):  # views ask for themselves
            self._samples[index] = sample
        return sample

    def summary(self) -> str:
        """One line: how much there is."""
        counts = ", ".join(f"{task} {self.task_of.count(task)}" for task in self.tasks)
        cameras = " ".join(self.cameras)
        return f"data: {len(self.episodes)} episodes, {len(self)} transitions ({counts}), cameras {cameras}"

    @property
    def feature_identity(self) -> str:
        """Whose features the target views have; "" if they have none."""
        first = next(iter(self.features.values()), None)
        return "" if first is None else first.identity

    @property
    def feature_channels(self) -> int:
        """Channels of the target views' features, 0 if they have none."""
        first = next(iter(self.features.values()), None)
        return 0 if first is None else first.channels

    def _open_targets(self, targets: FieldTargets) -> None:
        first = {t.episode: t.source for t in reversed(self.items)}
        for path, episode in self.episodes.items():
            TargetViews(episode, first[path], targets, self.cameras, None)  # says first if there are no views
            self.features[path] = features = open_features(episode, targets)
            if features is not None and features.identity != self.feature_identity:
                raise InputError(
                    f"{features.file}: features of another teacher than those before: {features.identity}, not "
                    f"{self.feature_identity}; run `manifield features` on all of these data"
                )
        for t in self.items:
            if (t.episode, t.source) not in self.views:
                episode, features = self.episodes[t.episode], self.features[t.episode]
                views = TargetViews(episode, t.source, targets, self.cameras, features, self._memory)
                for name in views.names:
                    if features is not None and (t.source, name) not in features:
                        features[t.source, name]  # says what is missing, before hours of training
                self.views[t.episode, t.source] = views

    def _check_goals(self) -> None:
        low, high = np.asarray(self.sight.low), np.asarray(self.sight.high)
        for t in self.items:
            if not ((t.target_pose[:3] >= low) & (t.target_pose[:3] < high)).all():
                raise InputError(
                    f"{t.episode} frame {t.target}: the goal {np.round(t.target_pose[:3], 3).tolist()} lies outside "
                    f"the agent's box {low.tolist()} to {high.tolist()}: widen agent.low and agent.high"
                )


def _common_cameras(episodes: Sequence[Episode]) -> tuple[str, ...]:
    common = [name for name in episodes[0].cameras if all(name in e.cameras for e in episodes)]
    for episode in episodes:
        if set(episode.cameras) != set(common):
            raise InputError(
                f"{episode.path} has the cameras {', '.join(episode.cameras)}, other episodes only "
                f"{', '.join(common)}: name the ones to use, agent.cameras=[front,...]"
            )
    return tuple(common)


def _common_size(episodes: Sequence[Episode], cameras: Sequence[str]) -> tuple[int, int]:
    for episode in episodes:
        for camera in cameras:
            if camera not in episode.cameras:
                raise InputError(f"{episode.path} has no camera '{camera}', only {', '.join(episode.cameras)}")
        if episode.image_size != episodes[0].image_size:
            raise InputError(
                f"{episode.path} has pictures of {episode.image_size}, {episodes[0].path} of {episodes[0].image_size} "
                "(height, width): train on one size"
            )
    return episodes[0].image_size
