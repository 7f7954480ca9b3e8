"""Writing an episode: whole or not at all."""

from __future__ import annotations

import errno
import os
import pickletools
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from demos.store import episode_directory, find_episodes, open_episode, write_episode
from demos.unpickle import read_pickle
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
        (lambda f: with_view(f, mask=np.full((8, 8), -2)), "frame 1, camera 'wrist': a mask's ids"),
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


RLBENCH_OBSERVATION = {
    **{
        f"{camera}_{kind}": None
        for camera in ("left_shoulder", "right_shoulder", "overhead", "wrist", "front")
        for kind in ("rgb", "depth", "mask", "point_cloud")
    },
    "joint_velocities": (7,),
    "joint_positions": (7,),
    "joint_forces": (7,),
    "gripper_open": float,
    "gripper_pose": (7,),
    "gripper_matrix": (4, 4),
    "gripper_joint_positions": (2,),
    "gripper_touch_forces": (6,),
    "task_low_dim_state": (5,),
    "ignore_collisions": (),
    "misc": dict,
}
CALIBRATION = {"extrinsics": (4, 4), "intrinsics": (3, 3), "near": float, "far": float}


def kind_of(value: object) -> object:
    """Shape of an array of 64-bit floats, else None or the type."""
    if isinstance(value, np.ndarray):
        assert value.dtype == np.float64 and value.flags.c_contiguous
        return value.shape
    return None if value is None else type(value)


def test_the_layout_is_rlbench_s(tmp_path: Path, observation) -> None:
    """Names, order, types: whoever reads the files by RLBench's classes finds what RLBench would have written."""
    path = write_episode(tmp_path / "episode0", [observation(0), observation(1)], ["do"], 3, {"seed": 4})
    names = {file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()}
    assert names == {"low_dim_obs.pkl", "variation_number.pkl", "variation_descriptions.pkl", "manifield.json"} | {
        f"{camera}_{kind}/{index}.png"
        for camera in ("front", "wrist")
        for kind in ("rgb", "depth", "mask")
        for index in range(2)
    }
    demo = read_pickle(path / "low_dim_obs.pkl")
    assert list(vars(demo)) == ["_observations", "random_seed", "variation_number"]
    assert demo.variation_number == 3 == read_pickle(path / "variation_number.pkl")
    name, keys, *rest = demo.random_seed
    assert (name, keys.dtype, keys.shape) == ("MT19937", np.uint32, (624,))
    assert [type(value) for value in rest] == [int, int, float]
    np.random.RandomState().set_state(demo.random_seed)
    for frame in demo._observations:
        fields = vars(frame)
        assert list(fields) == list(RLBENCH_OBSERVATION)
        assert {field: kind_of(value) for field, value in fields.items()} == RLBENCH_OBSERVATION
        wanted = {f"{camera}_camera_{key}": kind for camera in ("front", "wrist") for key, kind in CALIBRATION.items()}
        assert {key: kind_of(value) for key, value in frame.misc.items()} == wanted
    globals_named = {
        f"{argument}"
        for op, argument, _ in pickletools.genops((path / "low_dim_obs.pkl").read_bytes())
        if op.name == "GLOBAL"
    }
    assert not globals_named, "protocol 4 names classes by STACK_GLOBAL"
    for file in path.rglob("*.png"):
        data = file.read_bytes()
        assert data[:8] == b"\x89PNG\r\n\x1a\n" and data[24:29] == b"\x08\x02\x00\x00\x00", (
            "8 bits, RGB, not interlaced"
        )


def test_a_mask_of_nothing_is_kept_apart_from_every_thing(tmp_path: Path, observation) -> None:
    frame = observation(0)
    frame.cameras["wrist"].mask[2:4] = -1
    read = open_episode(write_episode(tmp_path / "episode0", [frame], ["do"], 0)).observation(0).cameras["wrist"].mask
    assert (read[2:4] == 2**24 - 1).all() and (read[4:] == frame.cameras["wrist"].mask[4:]).all()


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
