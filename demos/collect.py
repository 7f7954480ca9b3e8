"""`manifield collect`: record demonstrations of a world's expert, as many as asked for, successes only.

Every episode is a function of base seed, task and number, and appears on disk whole or not at all. So any number of
processes gives the same files, and a run that was killed goes on with the episodes that are missing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from demos.manifest import Manifest
from demos.record import ATTEMPTS_PER_EPISODE, record_episode
from demos.writer import episode_directory, write_episode
from envs.interface import Environment
from envs.make import make_environment
from manifield.errors import InputError, within
from manifield.files import only_writer
from manifield.progress import Progress
from manifield.workers import results

Job = tuple[str, int]  # task, episode's number
Result = tuple[str, int, list[str], bool]  # task, number, why attempts were rejected, whether one succeeded


def run(config: DictConfig) -> int:
    """Record what `configs/collect.yaml` describes; returns the exit code.

    Raises:
        InputError: an unknown task or camera, a folder that cannot be written or holds something else, a full disk, or
            an episode for which every attempt failed (the others are recorded all the same).
    """
    tasks = _check(config)
    root = Path(config.data)
    environment: dict[str, Any] = OmegaConf.to_container(config.env, resolve=True)  # type: ignore[assignment]
    for task in tasks:  # a wrong name should show now, not after the hour that the tasks before it take
        make_environment(environment, task).close()
    with only_writer(root, "collect", "data"):
        manifests = {task: Manifest(root, task, config.seed, environment, config.overwrite) for task in tasks}
        jobs = [(task, i) for task in tasks for i in range(config.episodes) if i not in manifests[task].episodes]
        total = len(tasks) * config.episodes
        with Progress("collect", total, "episodes", start=total - len(jobs), every=5.0) as progress:
            recorder = Recorder(root, environment, config.seed, config.attempts)
            for task, index, rejected, success in results(recorder, jobs, config.workers):
                manifests[task].add(index, rejected, success)
                failed = sum(len(manifest.all_rejected()) for manifest in manifests.values())
                progress.advance(int(success), task=task, rejected=failed)
        print("\n".join(manifest.summary() for manifest in manifests.values()))
        given_up = [manifest.excuse() for manifest in manifests.values() if manifest.given_up]
    if given_up:
        raise InputError(f"{'; '.join(given_up)}: give more attempts=, or another seed= and folder")
    return 0


def _check(config: DictConfig) -> list[str]:
    tasks = [str(task) for task in config.tasks]
    if not tasks or len(set(tasks)) < len(tasks):
        raise InputError(f"tasks={tasks}: give at least one task, each once".replace("'", ""))
    within(config, episodes=(1, 10**6), workers=(1, 256), attempts=(1, ATTEMPTS_PER_EPISODE), seed=(0, 2**63))
    return tasks


class Recorder:
    """Records episodes one by one in this process, keeping the task's environment from one to the next."""

    def __init__(self, root: Path, environment: dict[str, Any], seed: int, attempts: int) -> None:
        self.root, self.config, self.seed, self.attempts = root, environment, seed, attempts
        self._environment: Environment | None = None

    def __call__(self, job: Job, stopping: Callable[[], bool] = lambda: False) -> Result:
        task, index = job
        if self._environment is None or self._environment.task != task:
            self.close()
            self._environment = make_environment(self.config, task)
        recording, rejected = record_episode(self._environment, self.seed, index, self.attempts, stopping)
        if recording is None:
            return task, index, rejected, False
        directory = episode_directory(self.root, task, index)
        write_episode(directory, recording.observations, recording.descriptions, recording.variation, recording.facts)
        return task, index, rejected, True

    def close(self) -> None:
        """Free the environment; harmless twice."""
        if self._environment is not None:
            self._environment.close()
            self._environment = None
