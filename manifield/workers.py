"""Many small jobs over a few processes: results as they come, stopped at once by Ctrl-C, gone when the parent is."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.synchronize import Event
from typing import Any, Protocol

from manifield.errors import InputError


class Stopped(Exception):
    """A worker was asked to stop before its job was done; nobody waits for the result."""


class Worker(Protocol):
    """Does one job after another and keeps what it needs from one to the next; picklable before its first job."""

    def __call__(self, job: Any, stopping: Callable[[], bool]) -> Any:
        """The job's result. Looks at `stopping` now and then and raises `Stopped` if it is true."""

    def close(self) -> None:
        """Free what was kept."""


def results(worker: Worker, jobs: Sequence[Any], workers: int) -> Iterator[Any]:
    """Results in the order in which they come, from this process (one worker) or from fresh ones."""
    if workers == 1 or len(jobs) < 2:
        try:
            for job in jobs:
                yield worker(job, lambda: False)
        finally:
            worker.close()
        return
    # Fresh processes, not forked ones: neither MuJoCo's nor EGL's nor PyTorch's state survives a fork.
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    pool = ProcessPoolExecutor(min(workers, len(jobs)), context, _start, (worker, stop))
    try:
        for future in as_completed([pool.submit(_work, job) for job in jobs]):
            yield future.result()
    except BrokenProcessPool:
        raise InputError(
            "a worker process died (out of memory?): run the same command again to go on, perhaps with workers=1"
        ) from None
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


# The rest of this file runs in the worker processes.

_worker: Worker
_stop: Event


def _start(worker: Worker, stop: Event) -> None:
    global _worker, _stop
    _worker, _stop = worker, stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the main one says when to stop
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """A killed main process cannot tell its workers to stop, and they would wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(job: Any) -> Any:
    return _worker(job, _stop.is_set)
