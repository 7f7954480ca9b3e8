"""`manifield collect`: record demonstrations of a world's expert, as many as asked for, successes only.

Every episode is a function of base seed, task and number, and appears on disk whole or not at all. So any number of
processes gives the same files, and a run that was killed goes on with the episodes that are missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from demos.manifest import Manifest
from demos.record import ATTEMPTS_PER_EPISODE, record_episode
from demos.viewpoints import FieldViewPlan
from demos.writer import episode_directory, remove_unfinished, write_episode
from envs.interface import Environment
from envs.make import make_environment
from envs.seeds import choose_variations
from manifield.errors import InputError, choose, distinct, within
from manifield.files import only_writer
from manifield.progress import Progress
from manifield.workers import results

Job = tuple[str, int]  # task, episode's number
Result = tuple[str, int, list[str], bool]  # task, number, why attempts were rejected, whether one succeeded
Variations = dict[str, list[int] | None]  # by task; None for all


def run(config: DictConfig) -> int:
    """Record what `configs/collect.yaml` describes; returns the exit code.

    Raises:
        InputError: an unknown task, variation or camera, a folder that cannot be written or holds something else, a
            full disk, or an episode for which every attempt failed (the others are recorded all the same).
    """
    settings: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    tasks, root, seed = _check_tasks(config), Path(config.data), config.seed
    plan = FieldViewPlan.from_config(settings["field_views"])
    variations = _check_worlds(settings, tasks, plan)
    with only_writer(root, "collect", "data"):
        views = settings["field_views"] if plan else None
        manifests = {
            task: Manifest(
                root,
                task,
                {
                    "seed": seed,
                    "env": settings["env"],
                    "variations": variations[task],
                    "field_views": views,
                    # null for all of them, as before there was a choice
                    "depth_bits": None if config.depth_bits == 24 else config.depth_bits,
                },
                config.overwrite,
            )
            for task in tasks
        }
        jobs = [(task, i) for task in tasks for i in range(config.episodes) if i not in manifests[task].episodes]
        total = len(tasks) * config.episodes
        # The workers of a cluster have working folders of their own.
        recorder = Recorder(
            root if config.cluster is None else root.resolve(),
            settings["env"],
            seed,
            config.attempts,
            variations,
            plan,
            config.depth_bits,
        )
        with Progress("collect", total, "episodes", start=total - len(jobs), every=5.0) as progress:
            for task, index, rejected, success in results(recorder, jobs, config.workers, config.cluster):
                manifests[task].add(index, rejected, success)
                failed = sum(len(manifest.all_rejected()) for manifest in manifests.values())
                present = f"{task} {len(manifests[task].episodes)}/{config.episodes}"
                progress.advance(int(success), task=present, rejected=failed)
        for task in tasks:  # of workers that died
            remove_unfinished(episode_directory(root, task, 0).parent)
        print("\n".join(manifest.summary() for manifest in manifests.values()))
        given_up = [manifest.excuse() for manifest in manifests.values() if manifest.given_up]
    if given_up:
        raise InputError(f"{'; '.join(given_up)}: give more attempts=, or another seed= and folder")
    return 0


def _check_tasks(config: DictConfig) -> list[str]:
    tasks = [str(task) for task in config.tasks]
    distinct(tasks, "tasks")
    within(config, episodes=(1, 10**6), workers=(1, 256), attempts=(1, ATTEMPTS_PER_EPISODE), seed=(0, 2**63))
    within(config, depth_bits=(12, 24))
    return tasks


def _check_worlds(settings: dict[str, Any], tasks: list[str], plan: FieldViewPlan | None) -> Variations:
    """Make every task's world once: a wrong name should show now, not after the hour that the tasks before it take."""
    given = settings["variations"]
    for task in given if isinstance(given, Mapping) else ():
        choose(task, tasks, "task in variations")
    chosen: Variations = {}
    for task in tasks:
        with make_environment(settings["env"], task) as environment:
            count = environment.variation_count()
            if plan is not None and type(environment).draw is Environment.draw:
                raise InputError(
                    f"field_views.count={plan.count}: {type(environment).__name__} has no pictures but its cameras'; "
                    "give field_views.count=0"
                )
        chosen[task] = choose_variations(given, task, count)
    return chosen


class Recorder:
    """Records episodes one by one in this process, keeping the task's environment from one to the next."""

    def __init__(
        self,
        root: Path,
        environment: dict[str, Any],
        seed: int,
        attempts: int,
        variations: Variations,
        plan: FieldViewPlan | None = None,
        depth_bits: int = 24,
    ) -> None:
        self.root, self.config, self.seed, self.attempts = root, environment, seed, attempts
        self.variations, self.plan, self.depth_bits = variations, plan, depth_bits
        self._environment: Environment | None = None

    def __call__(self, job: Job, stopping: Callable[[], bool] = lambda: False) -> Result:
        task, index = job
        directory = episode_directory(self.root, task, index)
        if directory.exists():  # whoever had this job before died between finishing it and saying so
            return task, index, [], True
        if self._environment is None or self._environment.task != task:
            self.close()
            self._environment = make_environment(self.config, task)
        recording, rejected = record_episode(
            self._environment, self.seed, index, self.attempts, stopping, self.variations[task], self.plan
        )
        if recording is None:
            return task, index, rejected, False
        write_episode(
            directory,
            recording.observations,
            recording.descriptions,
            recording.variation,
            recording.facts,
            recording.field_views,
            self.depth_bits,
        )
        return task, index, rejected, True

    def close(self) -> None:
        """Free the environment; harmless twice."""
        if self._environment is not None:
            self._environment.close()
            self._environment = None
