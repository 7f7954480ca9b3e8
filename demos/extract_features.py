"""`manifield features`: let a teacher look at every picture that a field will learn from, once.

Nothing is computed twice: a run that was stopped goes on with the episode that it was at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from demos.features import (
    REDUCTION,
    Features,
    Picture,
    cache_file,
    cache_folder,
    identify,
    list_pictures,
    picture_file,
    picture_hash,
    save_features,
)
from demos.images import read_rgb
from demos.store import open_episode, select_episodes
from manifield.devices import find_device
from manifield.errors import InputError, within
from manifield.files import only_writer
from manifield.progress import Progress
from perception.features.reduction import Reduction, fit
from perception.features.teacher import Teacher, make_teacher

REMEDY = "choose another folder, cache=…, or overwrite=true"


@dataclass(frozen=True)
class Job:
    """The pictures of one episode, and the file that their features go into."""

    episode: Path
    file: Path
    pictures: list[Picture]
    instruction: str


def run(config: DictConfig) -> int:
    """Compute what `configs/features.yaml` describes; returns the exit code.

    Raises:
        InputError: no episodes, no pictures to look at, missing weights, or a cache that holds something else.
    """
    within(config, components=(0, 10**4), fit=(1, 10**6), batch=(1, 1024), seed=(0, 2**63))
    if config.every is not None:
        within(config, every=(1, 10**6))
    settings: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    device = find_device(config.device)
    episodes = select_episodes(config.data, settings["tasks"], settings["select"])
    teacher = make_teacher(settings["teacher"]).to(device)
    cache = cache_folder(config.data, teacher.name) if config.cache is None else Path(config.cache)
    jobs = _plan(episodes, cache, config, teacher)
    with only_writer(cache, "features", "cache"):
        if config.overwrite:
            _clear(cache)
        reduction = _reduction(config, cache, teacher, jobs)
        identity = identify(teacher.identity, reduction.identity if reduction else "")
        done = {job.file for job in jobs if _is_done(job, identity)}
        total = sum(len(job.pictures) for job in jobs)
        start = sum(len(job.pictures) for job in jobs if job.file in done)
        with Progress("features", total, "pictures", start=start) as progress:
            for job in jobs:
                if job.file not in done:
                    _extract(job, teacher, reduction, config.batch, progress)
    print(_summary(cache, jobs, teacher, reduction))
    return 0


def _plan(episodes: list[Path], cache: Path, config: DictConfig, teacher: Teacher) -> list[Job]:
    jobs = []
    for path in episodes:
        episode = open_episode(path)
        pictures = list_pictures(episode, config.every, config.cameras)
        if not pictures:
            raise InputError(
                f"{path}: no field views; record them with `manifield collect field_views.count=20`, or give cameras=["
                f"{','.join(episode.cameras)}]"
            )
        instruction = "" if teacher.prompt is None else episode.descriptions[0]
        jobs.append(Job(path, cache_file(cache, path), pictures, instruction))
    return jobs


def _reduction(config: DictConfig, cache: Path, teacher: Teacher, jobs: list[Job]) -> Reduction | None:
    """The cache's PCA if it has one, else that which the config gives, else one fitted on pictures of these jobs."""
    file = cache / REDUCTION
    known = Reduction.load(file) if file.exists() else None
    given = Reduction.load(Path(config.reduction)) if config.reduction is not None else None
    for path, other in ((file, known), (config.reduction, given)):
        if other is not None and other.teacher != teacher.identity:
            raise InputError(f"{path}: of another teacher: {other.teacher}, not {teacher.identity}; {REMEDY}")
    if known is not None:
        if given is not None and given.identity != known.identity:
            raise InputError(f"{cache}: holds features with {known.identity}, not {given.identity}; {REMEDY}")
        if given is None and known.channels != config.components:
            wanted = config.components or "all"
            raise InputError(f"{cache}: holds features of {known.channels} components, not {wanted}; {REMEDY}")
        return known
    if given is None and not config.components:
        return None
    reduction = given or fit(_sample(config, teacher, jobs), config.components, teacher.identity)
    reduction.save(file)
    return reduction


def _sample(config: DictConfig, teacher: Teacher, jobs: list[Job]) -> Iterator[np.ndarray]:
    """Features of `config.fit` pictures, drawn from all."""
    everything = [(job, picture) for job in jobs for picture in job.pictures]
    rng = np.random.default_rng(config.seed)
    chosen = np.sort(rng.permutation(len(everything))[: config.fit])
    with Progress("features: PCA", len(chosen), "pictures") as progress:
        for number in chosen:
            job, picture = everything[number]
            yield teacher(read_rgb(picture_file(job.episode, picture))[None], job.instruction)
            progress.advance()


def _is_done(job: Job, identity: str) -> bool:
    """Whether the job's file holds all of its pictures; those that it holds must be right.

    Raises:
        InputError: it is of another teacher, stale or damaged.
    """
    if not job.file.exists():
        return False
    features = Features(job.file)
    if features.identity != identity:
        raise InputError(f"{job.file}: features of another teacher: {features.identity}, not {identity}; {REMEDY}")
    features.check(open_episode(job.episode))
    return all(picture in features for picture in job.pictures)


def _extract(job: Job, teacher: Teacher, reduction: Reduction | None, batch: int, progress: Progress) -> None:
    arrays: dict[Picture, np.ndarray] = {}
    for first in range(0, len(job.pictures), batch):
        chosen = job.pictures[first : first + batch]
        colours = [read_rgb(picture_file(job.episode, picture)) for picture in chosen]
        # Field views and cameras may differ in size; each size is a batch of its own.
        for size in dict.fromkeys(image.shape for image in colours):
            alike = [number for number, image in enumerate(colours) if image.shape == size]
            features = teacher(np.stack([colours[number] for number in alike]), job.instruction)
            features = features if reduction is None else reduction(features)
            with np.errstate(over="ignore"):
                halves = features.astype(np.float16)
            if not np.isfinite(halves).all():
                raise InputError(
                    f"{job.episode} frame {chosen[alike[0]][0]}: {teacher.name} gave features up to "
                    f"{np.abs(features).max():g}, more than float16 can hold: reduce them with components=…"
                )
            arrays |= {chosen[number]: half for number, half in zip(alike, halves, strict=True)}
        progress.advance(len(chosen), episode="/".join(job.file.parts[-3::2]).removesuffix(".safetensors"))
    hashes = {picture: picture_hash(picture_file(job.episode, picture)) for picture in job.pictures}
    ordered = {picture: arrays[picture] for picture in job.pictures}
    save_features(job.file, ordered, hashes, teacher.identity, reduction.identity if reduction else "", job.instruction)


def _clear(cache: Path) -> None:
    for file in [*cache.glob("*/*/episode*.safetensors"), cache / REDUCTION]:
        file.unlink(missing_ok=True)


def _summary(cache: Path, jobs: list[Job], teacher: Teacher, reduction: Reduction | None) -> str:
    size = sum(job.file.stat().st_size for job in jobs) / 1e6
    count = sum(len(job.pictures) for job in jobs)
    cells = teacher.side // teacher.stride
    channels = (
        f"{teacher.channels} channels"
        if reduction is None
        else (f"{reduction.channels} of {teacher.channels} channels ({reduction.kept:.0%} of the variance)")
    )
    shape = f"{cells} x {cells} x {channels}"
    return f"{cache}: {count} pictures of {len(jobs)} episodes, {shape}, {size:.1f} MB"
