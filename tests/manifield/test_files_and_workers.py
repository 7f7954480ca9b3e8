"""Whole files, one writer at a time, and workers that stop."""

import os
import subprocess
import sys
import time

import pytest

from manifield.errors import InputError, within
from manifield.files import only_writer, write_whole
from manifield.workers import Stopped, results


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
