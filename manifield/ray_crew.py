"""Workers that Ray runs: processes of this machine, or of all machines of a cluster (extra `ray`)."""

from __future__ import annotations

import logging
import os
import pickle
import socket
import sys
from typing import Any

from manifield.errors import InputError
from manifield.workers import Worker, answer

ANSWER_SECONDS = 5.0  # for a cluster's port to answer
# Ray's own messages would tear the progress line, and it would tell its makers that it is used.
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_LOG_TO_STDERR": "0"}


class RayCrew:
    """Ray's workers, one CPU each.

    Args:
        cluster: "local" for processes of this machine, "auto", HOST:PORT or ray://HOST:PORT for a running cluster. Its
            machines need this installation, and see the folders in the jobs under the same names.
        workers: how many there shall be, where the cluster has that many CPUs.

    Raises:
        InputError: Ray is not installed, or no cluster answers.
    """

    def __init__(self, worker: Worker, cluster: str, workers: int) -> None:
        os.environ.update({name: value for name, value in QUIET.items() if name not in os.environ})
        try:
            import ray
        except ImportError:
            raise InputError(
                f"cluster={cluster} needs Ray: pip install -e '.[ray]', or leave cluster=null for local processes"
            ) from None
        self._ray, self._worker = ray, pickle.dumps(worker)
        self._actors: dict[int, Any] = {}
        self._pending: dict[Any, int] = {}  # Ray's reference to an answer → worker
        self._connected = not ray.is_initialized()
        if self._connected:
            connect(cluster, workers)
        # More would wait for a CPU for ever, and their jobs with them.
        self.size = min(workers, int(ray.cluster_resources().get("CPU", 0)))
        if not self.size:
            raise InputError(f"cluster={cluster}: has no CPU for a worker; start its machines with --num-cpus, or wait")
        self._actor = ray.remote(num_cpus=1, max_restarts=0)(_Serving)

    def hire(self, number: int) -> None:
        self._actors[number] = self._actor.remote(sys.path, self._worker)

    def give(self, number: int, job: Any) -> None:
        self._pending[self._actors[number].work.remote(job)] = number

    def answers(self) -> list[tuple[int, Any]]:
        done, _ = self._ray.wait(list(self._pending), num_returns=1)
        found = []
        for reference in done:
            number = self._pending.pop(reference)
            try:
                found.append((number, self._ray.get(reference)))
            except self._ray.exceptions.RayActorError:  # killed, crashed, or its machine is gone
                found.append((number, None))
        return found

    def dismiss(self) -> None:
        for actor in self._actors.values():
            self._ray.kill(actor)  # what it was writing has no name yet
        if self._connected:
            self._ray.shutdown()


class _Serving:
    """What runs in a worker process of Ray's."""

    def __init__(self, path: list[str], worker: bytes) -> None:
        sys.path += [folder for folder in path if folder not in sys.path]
        self._worker: Worker = pickle.loads(worker)

    def work(self, job: Any) -> tuple[Any, BaseException | None]:
        return answer(self._worker, job, lambda: False)


def connect(cluster: str, workers: int) -> None:
    """Connect this process with a cluster, or start one here with `workers` CPUs; arguments and errors as above."""
    import ray

    logging.getLogger("ray").setLevel(logging.CRITICAL)  # it warns even of its own safe defaults
    # And prints what its daemons report, whatever one asks for; its own debugger silences it in this way.
    ray._private.worker._worker_logs_enabled = False
    quiet: dict[str, Any] = {"logging_level": logging.CRITICAL, "log_to_driver": False}
    if cluster == "local":
        ray.init(address="local", num_cpus=workers, include_dashboard=False, configure_logging=False, **quiet)
        return
    host, _, port = cluster.removeprefix("ray://").rpartition(":")
    try:
        if cluster != "auto":  # Ray itself would try for minutes, and then end this process
            if not host or not port.isdigit():
                raise InputError(f"cluster={cluster}: give local, auto, HOST:PORT or ray://HOST:PORT")
            socket.create_connection((host, int(port)), ANSWER_SECONDS).close()
        ray.init(address=cluster, **quiet)
    except (OSError, ConnectionError, RuntimeError, ValueError) as error:
        raise InputError(
            f"cluster={cluster}: no Ray cluster answers there ({' '.join(str(error).split())[:120]}); "
            "start one with `ray start --head` (set RAY_AUTH_MODE=token here if it wants one), or leave cluster=null"
        ) from None
