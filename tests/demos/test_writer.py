"""Writing an episode: whole or not at all."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from demos.store import episode_directory, find_episodes, open_episode, write_episode
from demos.writer import remove_unfinished
from manifield.errors import InputError

ROOT = Path(__file__).resolve().parents[2]


def left_behind(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*")]


def test_an_episode_is_never_overwritten(episode: Path, observation) -> None:
    before = (episode / "low_dim_obs.pkl").read_bytes()
    with pytest.raises(InputError, match="episode0: exists already"):
        write_episode(episode, [observation(1)], ["other"], 0)
    assert (episode / "low_dim_obs.pkl").read_bytes() == before


def changed(frame, **fields):
    for name, value in fields.items():
        setattr(frame, name, value)
    return frame


def with_view(frame, **fields):
    changed(frame.cameras["wrist"], **fields)
    return frame


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (lambda f: with_view(f, depth=np.full((8, 8), np.nan)), "frame 1, camera 'wrist': depth is nan"),
        (lambda f: with_view(f, mask=np.full((8, 8), -1)), "frame 1, camera 'wrist': a mask's ids"),
        (lambda f: with_view(f, mask=None), "frame 1 has front 8x8 with mask, wrist 8x8, but frame 0"),
        (lambda f: with_view(f, depth=np.ones((4, 4))), "frame 1, camera 'wrist': colour, depth and mask differ"),
        (lambda f: with_view(f, rgb=np.zeros((8, 8, 3))), "frame 1, camera 'wrist': a picture must be"),
        (lambda f: with_view(f, T_world_camera=np.full((4, 4), np.inf)), "frame 1: wrist T_world_camera must be"),
        (lambda f: changed(f, cameras={"front": f.cameras["front"]}), "frame 1 has front 8x8 with mask, but frame 0"),
        (lambda f: changed(f, gripper_pose=np.zeros(6)), "frame 1: gripper_pose must be 7 finite numbers"),
        (lambda f: changed(f, gripper_pose=np.zeros(7)), "frame 1: gripper_pose has a quaternion of length 0"),
        (lambda f: changed(f, gripper_open=np.nan), "frame 1: gripper_open must be 1 finite number"),
        (lambda f: changed(f, joint_velocities=np.full(7, np.nan)), "frame 1: joint_velocities must be 7 finite"),
        (lambda f: changed(f, task_low_dim_state=np.array([np.inf])), "frame 1: task_low_dim_state must be all finite"),
    ],
)
def test_frames_that_do_not_fit_are_refused_and_leave_nothing(
    tmp_path: Path, observation, second, message: str
) -> None:
    path = episode_directory(tmp_path, "task", 0)
    with pytest.raises(InputError, match=message) as caught:
        write_episode(path, [observation(0), second(observation(1))], ["do"], 0)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert left_behind(path.parent) == []


def test_empty_episodes_are_refused(tmp_path: Path, observation) -> None:
    with pytest.raises(InputError, match="at least one frame"):
        write_episode(tmp_path / "episode0", [], ["do"], 0)
    with pytest.raises(InputError, match="at least one description"):
        write_episode(tmp_path / "episode0", [observation(0)], [], 0)
    assert left_behind(tmp_path) == []


def test_a_full_disk_is_told_in_one_line_and_leaves_nothing(tmp_path: Path, observation, monkeypatch) -> None:
    written = []

    def write_bytes(path: Path, data: bytes) -> None:
        written.append(path)
        if len(written) > 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        with open(path, "wb") as file:
            file.write(data)

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    path = episode_directory(tmp_path, "task", 0)
    with pytest.raises(InputError, match=r"episode0: cannot be written \(No space left on device\); free space"):
        write_episode(path, [observation(0), observation(1)], ["do"], 0)
    assert left_behind(path.parent) == []


def test_a_folder_that_cannot_be_made(tmp_path: Path, observation) -> None:
    (tmp_path / "task").write_text("a file")
    with pytest.raises(InputError, match="cannot be written"):
        write_episode(episode_directory(tmp_path, "task", 0), [observation(0)], ["do"], 0)


def test_other_errors_leave_nothing(tmp_path: Path, observation) -> None:
    def frames():
        yield observation(0)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_episode(tmp_path / "episode0", frames(), ["do"], 0)
    assert left_behind(tmp_path) == []


def test_others_may_read_it(episode: Path) -> None:
    mask = os.umask(0)
    os.umask(mask)
    assert episode.stat().st_mode & 0o777 == 0o777 & ~mask


WRITE_FOR_EVER = """
import sys
from itertools import count
sys.path.insert(0, "tests/demos")
from conftest import make_observation
from demos.store import episode_directory, write_episode
frames = [make_observation(index) for index in range(20)]
print("ready", flush=True)
for index in count():
    write_episode(episode_directory(sys.argv[1], "task", index), frames, ["do"], 0, {"seed": index})
"""


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.15, 0.4])
def test_a_kill_leaves_whole_episodes_only(tmp_path: Path, delay: float) -> None:
    command = [sys.executable, "-c", WRITE_FOR_EVER, str(tmp_path)]
    writer = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert writer.stdout is not None
    writer.stdout.readline()
    time.sleep(delay)
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    folder = episode_directory(tmp_path, "task", 0).parent
    remove_unfinished(folder)
    names = left_behind(folder)
    assert all(name[0] != "." for name in names)
    if names:
        for path in find_episodes(tmp_path):
            episode = open_episode(path)
            assert len(episode) == 20
            episode.observation(19)
