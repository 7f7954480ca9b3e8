"""`manifield collect`: record demonstrations of a world's expert, as many as asked for, successes only.

Every episode is a function of base seed, task and number, and appears on disk whole or not at all. So any number of
processes gives the same files, and a run that was killed goes on with the episodes that are missing.
"""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from demos.manifest import Manifest
from demos.record import ATTEMPTS_PER_EPISODE, Stopped, record_episode
from demos.writer import episode_directory, write_episode
from envs.interface import Environment
from manifield.errors import InputError
from manifield.progress import Progress

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
    with _only_writer(root):
        manifests = {task: Manifest(root, task, config.seed, environment, config.overwrite) for task in tasks}
        jobs = [(task, i) for task in tasks for i in range(config.episodes) if i not in manifests[task].episodes]
        total = len(tasks) * config.episodes
        with Progress("collect", total, "episodes", start=total - len(jobs), every=5.0) as progress:
            recorder = Recorder(root, environment, config.seed, config.attempts)
            for task, index, rejected, success in _results(recorder, jobs, config.workers):
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
    for key, low, high in (
        ("episodes", 1, 10**6),
        ("workers", 1, 256),
        ("attempts", 1, ATTEMPTS_PER_EPISODE),
        ("seed", 0, 2**63),
    ):
        if not low <= config[key] <= high:
            raise InputError(f"{key}={config[key]}: give a number from {low} to {high}")
    return tasks


def make_environment(config: dict[str, Any] | DictConfig, task: str) -> Environment:
    """The environment that a config of group `env` describes, with `task`.

    Raises:
        InputError: what the environment raised (an unknown task or camera), freed from Hydra's wrapping.
    """
    try:
        environment: Environment = instantiate(config, task=task, _convert_="all")
    except InstantiationException as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, InputError | ModuleNotFoundError):
                raise cause from None
            cause = cause.__cause__
        raise
    return environment


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


def _results(recorder: Recorder, jobs: list[Job], workers: int) -> Iterator[Result]:
    """Results as they come, from this process (one worker) or from fresh ones."""
    if workers == 1 or len(jobs) < 2:
        try:
            yield from map(recorder, jobs)
        finally:
            recorder.close()
        return
    # Fresh processes, not forked ones: neither MuJoCo's nor EGL's state survives a fork.
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    pool = ProcessPoolExecutor(min(workers, len(jobs)), context, _start_worker, (recorder, stop))
    try:
        for future in as_completed([pool.submit(_work, job) for job in jobs]):
            yield future.result()
    except BrokenProcessPool:
        raise InputError(
            "a recording process died (out of memory?): run the same command again to go on, perhaps with workers=1"
        ) from None
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


# The rest of this file's functions run in the worker processes.

_recorder: Recorder
_stop: Event


def _start_worker(recorder: Recorder, stop: Event) -> None:
    global _recorder, _stop
    _recorder, _stop = recorder, stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the main one says when to stop
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """A killed main process cannot tell its workers to stop, and they would wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(job: Job) -> Result:
    try:
        return _recorder(job, _stop.is_set)
    except Stopped:
        return *job, [], False


@contextmanager
def _only_writer(root: Path) -> Iterator[None]:
    """Hold `root` against a second collect; the lock ends with the process, however it ends."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = open(root / ".collect.lock", "w")  # noqa: SIM115 - closed below, apart from the errors of opening
    except OSError as error:
        raise InputError(f"{root}: cannot be written ({error.strerror}); choose another folder with data=…") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{root}: another collect is writing there; wait for it or choose data=…") from None
        yield
