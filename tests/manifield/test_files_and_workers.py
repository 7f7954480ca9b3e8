"""Whole files, one writer at a time, and workers that stop."""

import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec

import pytest

from manifield.errors import InputError, within
from manifield.files import only_writer, write_whole
from manifield.ray_crew import RayCrew, connect
from manifield.workers import Stopped, results

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="needs the extra `ray`")


def test_write_whole_replaces_and_leaves_no_draft(tmp_path):
    path = tmp_path / "a.json"
    write_whole(path, "one")
    write_whole(path, "two")
    assert path.read_text() == "two" and os.listdir(tmp_path) == ["a.json"]


def test_a_second_writer_is_refused_and_a_third_is_not(tmp_path):
    with only_writer(tmp_path / "run", "train", "run"):
        with pytest.raises(InputError, match="another train is writing there.*run="):
            with only_writer(tmp_path / "run", "train", "run"):
                pass
        with only_writer(tmp_path / "run", "evaluate", "name"):  # another verb may
            pass
    with only_writer(tmp_path / "run", "train", "run"):
        pass


def test_numbers_out_of_range_are_named():
    with pytest.raises(InputError, match="workers=0: give a number from 1 to 8"):
        within({"workers": 0, "seed": 1}, seed=(0, 5), workers=(1, 8))


class Squares:
    """Squares numbers; number 3 takes until somebody stops it."""

    def __call__(self, job, stopping):
        while job == 3 and not stopping():
            time.sleep(0.01)
        if stopping():
            raise Stopped
        return job * job

    def close(self):
        pass


def test_results_do_not_depend_on_the_number_of_workers():
    assert sorted(results(Squares(), [1, 2, 4], 1)) == sorted(results(Squares(), [1, 2, 4], 2)) == [1, 4, 16]


def test_leaving_early_stops_a_job_that_would_never_end():
    for result in results(Squares(), [2, 3, 4], 2):
        assert result in (4, 16)
        break  # the generator's end tells the worker of job 3 to stop; without it this test hangs


def test_workers_die_with_a_killed_parent(tmp_path):
    code = (
        "import os, time\n"
        "from manifield.workers import results\n"
        "class W:\n"
        "    def __call__(self, job, stopping):\n"
        f"        open(os.path.join({str(tmp_path)!r}, str(os.getpid())), 'w').close()\n"
        "        time.sleep(600)\n"
        "    def close(self): pass\n"
        "if __name__ == '__main__':\n"
        "    list(results(W(), [1, 2], 2))\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    parent = subprocess.Popen([sys.executable, str(script)], env={**os.environ, "PYTHONPATH": os.getcwd()})
    deadline = time.monotonic() + 60
    while len(pids := [p for p in os.listdir(tmp_path) if p.isdigit()]) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(pids) == 2
    parent.kill()
    parent.wait()
    while any(os.path.exists(f"/proc/{pid}") for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in pids if os.path.exists(f"/proc/{pid}")]


class Mortal:
    """Squares numbers, but kills its process over a negative one: once if `once`, else every time."""

    def __init__(self, folder, once):
        self.folder, self.once = folder, once

    def __call__(self, job, stopping):
        if job < 0 and not (self.once and (self.folder / str(job)).exists()):
            (self.folder / str(job)).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if job == 0:
            raise InputError("nothing to square")
        return job * job

    def close(self):
        pass


@pytest.fixture(scope="module", params=[None, pytest.param("local", marks=needs_ray)])
def cluster(request):
    """No cluster, or Ray's workers here, started once: it takes seconds."""
    if request.param is None:
        yield None
        return
    import ray

    RayCrew(Squares(), request.param, 2)
    yield request.param
    ray.shutdown()


def test_the_job_of_a_dead_worker_is_done_by_another(tmp_path, cluster):
    jobs = [1, -2, 3, -4, 5, 6]
    assert sorted(results(Mortal(tmp_path, once=True), jobs, 2, cluster)) == [1, 4, 9, 16, 25, 36]
    assert len(os.listdir(tmp_path)) == 2


def test_a_job_that_kills_every_worker_is_named_and_the_others_are_done(tmp_path):
    done = []
    with pytest.raises(InputError, match=r"3 worker processes died of the same job, -2 .*run the same command again"):
        for result in results(Mortal(tmp_path, once=False), [1, 3, 5, -2], 2):
            done.append(result)
    assert sorted(done) == [1, 9, 25]


def test_errors_of_workers_come_through(tmp_path, cluster):
    with pytest.raises(InputError) as caught:
        list(results(Mortal(tmp_path, once=True), [0, 1, 2], 2, cluster))
    assert str(caught.value) == "nothing to square"
    assert "in __call__" in caught.value.__notes__[0], "where it happened is told to those who look for it"


class Odd(Exception):
    """Cannot be unpickled."""

    def __init__(self, a, b):
        super().__init__("odd")


class Raising:
    def __call__(self, job, stopping):
        raise Odd(1, 2)

    def close(self):
        pass


def test_errors_that_cannot_travel_are_told():
    with pytest.raises(RuntimeError, match="raise Odd"):
        list(results(Raising(), [1, 2], 2))


@needs_ray
@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("nonsense", r"cluster=nonsense: give local, auto, HOST:PORT"),
        ("127.0.0.1:1", r"cluster=127\.0\.0\.1:1: no Ray cluster answers there \(.*refused"),
        ("ray://127.0.0.1:1", r"no Ray cluster answers there \(.*refused"),
    ],
)
def test_a_cluster_that_is_not_there(address, message):
    with pytest.raises(InputError, match=message) as caught:
        connect(address, 2)
    assert "\n" not in str(caught.value)


def test_ray_is_asked_for_when_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    with pytest.raises(InputError, match=r"cluster=local needs Ray: pip install -e '\.\[ray\]'"):
        list(results(Squares(), [1, 2], 2, "local"))


def test_ray_is_not_imported_unasked():
    code = "import sys, demos.collect, manifield.workers; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=os.getcwd()).returncode == 0
