"""Captures from a bus, their files, the result's file and its static transform, and the verb over all of it."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from envs.ros.calibration import command, watch
from envs.ros.calibration.board import Board, Lens
from envs.ros.calibration.captures import Capture, find_boards, lens_of, load_captures, save_capture
from envs.ros.calibration.mounts import Mount, read_mounts, static_transform, write_mounts
from envs.ros.config import RosConfig
from envs.ros.frames import FrameTree
from envs.ros.geometry import pose_distance, pose_matrix
from envs.ros.messages import CameraInfo, CompressedImage, Image, Transform, Transforms
from manifield.configuration import compose
from manifield.errors import InputError
from tests.envs.ros.calibration.rigs import Rig, make_rig, photograph
from tests.envs.ros.memory_bus import Bus, MemoryTransport

BOARD = Board()
LENS = Lens(np.array([[615.0, 0, 319.5], [0, 615.0, 239.5], [0, 0, 1]]), np.zeros(5))
ROBOT = RosConfig.of({"cameras": ["wrist"], "image_size": 128})


class Robot:
    """A robot on a bus that can be put into the poses of a rig; its camera really sees the board."""

    def __init__(self, bus: Bus, rig: Rig, compressed: bool = False) -> None:
        self.transport, self.rig, self.compressed = MemoryTransport(bus), rig, compressed
        self.now = time.time_ns()
        self.transport.start()

    def hold(self, number: int, seconds: float = 0.6, moving: bool = False) -> None:
        """Be at a pose for some time of the robot's clock, then take a picture."""
        self.now += 10**9
        T, now = self.rig.arms[number].copy(), self.now
        begin = now - round(seconds * 1e9)
        for k in range(13):
            if moving:
                T[0, 3] += 0.002
            stamp = begin + k * (now - begin) // 12
            frames = Transforms((Transform(stamp, "panda_link0", "panda_hand", T),))
            self.transport.publish("/tf", frames)
        rgb = photograph(BOARD, self.rig.T_camera_board(number), LENS.intrinsics)
        info = CameraInfo(now, "wrist_optical", 480, 640, LENS.intrinsics, LENS.distortion)
        self.transport.publish("/wrist/color/camera_info", info)
        image = Image(now, "wrist_optical", "rgb8", rgb)
        if self.compressed:
            self.transport.publish("/wrist/color/image_raw/compressed", CompressedImage.of(image))
        else:
            self.transport.publish("/wrist/color/image_raw", image)


def listening(bus: Bus, **topics: Any) -> watch.Watch:
    """A watch on the bus."""
    robot = RosConfig.of({"cameras": ["wrist"], "image_size": 128, "topics": topics})
    transport = MemoryTransport(bus)
    found = watch.Watch(transport, robot, "wrist", "panda_hand")
    transport.start()
    return found


@pytest.mark.parametrize("compressed", [False, True])
def test_a_capture_is_taken_where_the_hand_is_still_and_new(compressed: bool) -> None:
    bus = Bus()
    listener, robot = listening(bus, compressed=compressed), Robot(bus, make_rig("eye_in_hand", 0), compressed)
    said: list[str] = []
    found = watch.captures(listener, BOARD, [], said.append)

    def take() -> Capture:
        return next(found)

    robot.hold(0)
    capture = take()
    assert pose_distance(capture.T_base_hand, robot.rig.arms[0])[0] < 1e-9
    assert (capture.base, capture.hand, capture.optical) == ("panda_link0", "panda_hand", "wrist_optical")
    assert np.array_equal(capture.lens.intrinsics, LENS.intrinsics)
    robot.hold(1, moving=True)
    seen = listener.next(0.1)
    assert seen is not None and not listener.is_still(seen)
    robot.hold(0)  # the same place again: passed over, with a word
    thread = threading.Thread(target=lambda: (time.sleep(0.3), robot.hold(2)))
    thread.start()
    assert pose_distance(take().T_base_hand, robot.rig.arms[2])[0] < 1e-9
    thread.join()
    assert said and "this pose is taken" in said[0]


def test_silence_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "NO_PICTURE", 0.05)
    bus = Bus()
    listener = listening(bus)
    with pytest.raises(InputError, match="no picture on /wrist/color/image_raw for"):
        next(watch.captures(listener, BOARD, []))
    assert list(watch.captures(listener, BOARD, [], stopping=lambda: True)) == []


def test_captures_survive_their_files(tmp_path: Path) -> None:
    rig = make_rig("eye_in_hand", 3)
    for number in range(3):
        rgb = photograph(BOARD, rig.T_camera_board(number), LENS.intrinsics)
        save_capture(tmp_path, number, Capture(rgb, LENS, rig.arms[number], 7 + number, "base", "hand", "cam"))
    found = load_captures(tmp_path)
    assert list(found) == ["000", "001", "002"]
    assert found["001"].stamp == 8 and np.allclose(found["001"].T_base_hand, rig.arms[1])
    assert np.array_equal(found["001"].rgb, photograph(BOARD, rig.T_camera_board(1), LENS.intrinsics))
    assert 2 <= len(find_boards(found, BOARD)) <= 3
    (tmp_path / "001.json").write_text('{"T_base_hand": [[1]]}')
    with pytest.raises(InputError, match="001.json: not a capture"):
        load_captures(tmp_path)
    (tmp_path / "001.json").write_text((tmp_path / "000.json").read_text().replace('"cam"', '"other"'))
    with pytest.raises(InputError, match="of other frames"):
        load_captures(tmp_path)


def test_lenses_that_are_none_are_refused() -> None:
    fisheye = CameraInfo(0, "cam", 480, 640, LENS.intrinsics, np.zeros(4), "equidistant")
    with pytest.raises(InputError, match="equidistant"):
        lens_of(fisheye)
    with pytest.raises(InputError, match="are no intrinsics"):
        lens_of(CameraInfo(0, "cam", 480, 640, np.zeros((3, 3))))


def test_mounts_are_kept_by_name(tmp_path: Path) -> None:
    path = tmp_path / "cameras.yaml"
    pose = pose_matrix([0.1, -0.2, 0.3, 0.5, 0.5, 0.5, 0.5])
    write_mounts(path, {"wrist": Mount("panda_hand", pose, "30 captures: fine")})
    write_mounts(path, read_mounts(path) | {"front": Mount("panda_link0", np.eye(4))})
    found = read_mounts(path)
    assert list(found) == ["front", "wrist"]
    assert found["wrist"].note == "30 captures: fine" and found["wrist"].frame == "panda_hand"
    assert pose_distance(found["wrist"].T_frame_camera, pose)[0] < 1e-6
    told = RosConfig.of({"cameras": ["wrist"], "image_size": 128, "frames": {"cameras": str(path)}}).frames.cameras
    assert told["wrist"]["frame"] == "panda_hand" and np.allclose(told["wrist"]["pose"][:3], [0.1, -0.2, 0.3])
    with pytest.raises(InputError, match="frames.cameras=nowhere.yaml: cannot be read"):
        RosConfig.of({"cameras": ["wrist"], "image_size": 128, "frames": {"cameras": "nowhere.yaml"}})
    for text, words in (
        ("wrist: {frame: a}", "wrist: give frame"),
        ("wrist: {frame: a, pose: [0, 0, 0, 0, 0, 0, 2]}", "unit quaternion"),
        ("[1]", "cameras by name"),
        ("a: [", "cannot be read"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=words):
            read_mounts(path)


def test_the_driver_keeps_its_own_frames() -> None:
    """camera_link carries the optical frame: what is published hangs up camera_link, not the optical frame."""
    optical = pose_matrix([0.1, 0, 0.05, 0, 0, 0, 1])
    inner = pose_matrix([0, 0.015, 0, -0.5, 0.5, -0.5, 0.5])
    tree = FrameTree()
    tree.add(Transform(1, "camera_link", "camera_optical", inner), is_static=True)
    child, words = static_transform(Mount("panda_hand", optical), "camera_optical", tree)
    assert child == "camera_link" and "--frame-id panda_hand --child-frame-id camera_link" in words
    numbers = [float(words.split(f"--{name} ")[1].split()[0]) for name in ("x", "y", "z", "qx", "qy", "qz", "qw")]
    assert pose_distance(pose_matrix(numbers) @ inner, optical)[0] < 1e-5
    # Hung up before, by an older calibration: the same frame is hung up anew.
    tree.add(Transform(1, "panda_link0", "panda_hand", np.eye(4)))
    tree.add(Transform(1, "panda_link0", "camera_link", pose_matrix([1, 1, 1, 0, 0, 0, 1])), is_static=True)
    assert static_transform(Mount("panda_hand", optical), "camera_optical", tree) == (child, words)
    assert static_transform(Mount("panda_hand", optical), "camera_optical")[0] == "camera_optical"
    assert static_transform(Mount("panda_hand", optical), "other", FrameTree())[0] == "other"


def test_the_verb_from_the_board_to_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Print, capture from a robot that moves by itself, solve: within 3 mm and 0.3 degrees of the truth."""
    out, bus = tmp_path / "calibration", Bus()
    words = [f"out={out}", "camera=wrist", "captures=12", "env.cameras=[wrist]"]
    command.run(compose("calibrate", ["action=board", *words]))
    assert (out / "board.pdf").read_bytes().startswith(b"%PDF")
    rig = make_rig("eye_in_hand", 11)
    robot, done = Robot(bus, rig), threading.Event()

    def move() -> None:
        for number in range(len(rig.arms)):
            if done.is_set():
                return
            robot.hold(number)
            time.sleep(0.1)

    monkeypatch.setattr(command, "make_transport", lambda config, name: MemoryTransport(bus))
    thread = threading.Thread(target=move)
    thread.start()
    try:
        assert command.run(compose("calibrate", words)) == 0
    finally:
        done.set()
        thread.join()
    assert len(list((out / "wrist").glob("*.json"))) == 12
    printed = capsys.readouterr().out
    # A corner that was found badly may cost a capture: it is left out, and told.
    assert re.search("1[012] captures", printed) and "static_transform_publisher" in printed
    mount = read_mounts(out / "cameras.yaml")["wrist"]
    metres, radians = pose_distance(mount.T_frame_camera, rig.T_mount_camera)
    assert mount.frame == "panda_hand" and metres < 0.003 and np.degrees(radians) < 0.3
    command.run(compose("calibrate", ["action=solve", *words]))
    assert pose_distance(read_mounts(out / "cameras.yaml")["wrist"].T_frame_camera, mount.T_frame_camera)[0] < 1e-6
    with pytest.raises(InputError, match="holds no captures"):
        command.run(compose("calibrate", ["action=solve", f"out={out}", "camera=front"]))
