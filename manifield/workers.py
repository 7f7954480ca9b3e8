"""Many small jobs over a few workers: results as they come, stopped at once by Ctrl-C, gone when the parent is.

Workers are this process (one of them), processes of this machine, or Ray's, see `manifield.ray_crew`. A worker that
dies costs its job another try, by a new worker; jobs must not mind being done twice.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

from manifield.errors import InputError

TRIES = 3  # workers that may die of one job; what kills them all is no accident
PATIENCE = 5.0  # seconds for a worker to notice that it shall stop


class Stopped(Exception):
    """A worker was asked to stop before its job was done; nobody waits for the result."""


class Worker(Protocol):
    """Does one job after another and keeps what it needs from one to the next; picklable before its first job."""

    def __call__(self, job: Any, stopping: Callable[[], bool]) -> Any:
        """The job's result. Looks at `stopping` now and then and raises `Stopped` if it is true."""

    def close(self) -> None:
        """Free what was kept."""


class Crew(Protocol):
    """Workers elsewhere, by number. An answer is (result, error), one of them None, or None from a dead worker.

    size: how many there can be at a time.
    """

    size: int

    def hire(self, number: int) -> None:
        """Start worker `number`, also in the place of one that died."""

    def give(self, number: int, job: Any) -> None:
        """Let a worker that has nothing to do begin a job."""

    def answers(self) -> list[tuple[int, tuple[Any, BaseException | None] | None]]:
        """Wait until some workers have done their jobs or died: their numbers and answers."""

    def dismiss(self) -> None:
        """Stop everybody, whatever they are doing."""


def results(worker: Worker, jobs: Sequence[Any], workers: int, cluster: str | None = None) -> Iterator[Any]:
    """Results in the order in which they come.

    Args:
        workers: how many. cluster: None for processes of this machine (this very one if one is enough), "local" or an
            address for Ray's.

    Raises:
        InputError: workers died of the same job again and again, or there is no such cluster.
    """
    if cluster is None and (workers == 1 or len(jobs) < 2):
        try:
            for job in jobs:
                yield worker(job, lambda: False)
        finally:
            worker.close()
    elif jobs:
        crew: Crew = LocalCrew(worker, workers)
        if cluster is not None:
            from manifield.ray_crew import RayCrew  # an extra, and seconds to import

            crew = RayCrew(worker, cluster, workers)
        yield from _share(crew, jobs)


def _share(crew: Crew, jobs: Sequence[Any]) -> Iterator[Any]:
    waiting = deque(range(len(jobs)))
    busy: dict[int, int] = {}  # worker → job
    deaths: Counter[int] = Counter()
    try:
        idle = list(range(min(crew.size, len(jobs))))
        for number in idle:
            crew.hire(number)
        while waiting or busy:
            while waiting and idle:
                number = idle.pop(0)
                busy[number] = waiting.popleft()
                crew.give(number, jobs[busy[number]])
            for number, answer in crew.answers():
                if answer is None:
                    crew.hire(number)
                    if number in idle:  # nobody's fault, and nothing lost
                        continue
                    job = busy[number]
                    waiting.appendleft(job)
                    deaths[job] += 1
                    if deaths[job] == TRIES:
                        raise InputError(
                            f"{TRIES} worker processes died of the same job, {_words(jobs[job])} (out of memory?): "
                            "what is done is kept; run the same command again to go on, perhaps with workers=1"
                        )
                del busy[number]
                idle.append(number)
                if answer is not None:
                    result, error = answer
                    if error is not None:
                        raise error
                    yield result
    finally:
        crew.dismiss()


def _words(job: Any) -> str:
    return " ".join(map(str, job)) if isinstance(job, tuple | list) else str(job)


class LocalCrew:
    """Processes of this machine."""

    def __init__(self, worker: Worker, size: int) -> None:
        self._worker, self.size = worker, size
        # Fresh processes, not forked ones: neither MuJoCo's nor EGL's nor PyTorch's state survives a fork.
        self._context = multiprocessing.get_context("spawn")
        self._stop = self._context.Event()
        self._crew: dict[int, tuple[BaseProcess, Connection]] = {}

    def hire(self, number: int) -> None:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(self._worker, theirs, self._stop.is_set), daemon=True)
        process.start()
        theirs.close()  # so that the worker's death ends the connection
        self._crew[number] = process, ours

    def give(self, number: int, job: Any) -> None:
        try:
            self._crew[number][1].send(job)
        except OSError:  # dead already, which `answers` will tell
            pass

    def answers(self) -> list[tuple[int, Any]]:
        ready = wait([connection for _, connection in self._crew.values()])
        found: list[tuple[int, Any]] = []
        for number, (_, connection) in list(self._crew.items()):
            if connection not in ready:
                continue
            try:
                found.append((number, connection.recv()))
            except (EOFError, OSError):
                process, ours = self._crew.pop(number)
                ours.close()
                process.join()
                found.append((number, None))
        return found

    def dismiss(self) -> None:
        self._stop.set()
        for _, connection in self._crew.values():
            connection.close()
        for process, _ in self._crew.values():
            process.join(PATIENCE)
            if process.is_alive():  # what it was writing has no name yet
                process.kill()
                process.join()


def answer(worker: Worker, job: Any, stopping: Callable[[], bool]) -> tuple[Any, BaseException | None]:
    """A worker's answer to a job, in a worker process."""
    try:
        return worker(job, stopping), None
    except Exception as error:
        error.add_note(f"in a worker process:\n{traceback.format_exc()}")
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # some libraries' exceptions cannot travel
            return None, RuntimeError(f"in a worker process:\n{traceback.format_exc()}")
        return None, error


def _serve(worker: Worker, connection: Connection, stopping: Callable[[], bool]) -> None:
    """The life of a worker process: jobs come and answers go until the connection ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the main one says when to stop
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    try:
        while True:
            connection.send(answer(worker, connection.recv(), stopping))
    except (EOFError, OSError):
        pass
    finally:
        worker.close()


def _die_with_parent() -> None:
    """A killed main process cannot tell its workers to stop, and they would wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
