"""`manifield calibrate`: print a board, take captures, solve, check."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from envs.ros.config import RosConfig
from envs.ros.connect import make_transport, robot_config
from envs.ros.messages import CameraInfo
from envs.ros.sensing import SensorFault, Sensors
from envs.ros.transport import NotConnected, Transport
from manifield.errors import InputError, choose, within
from manifield.files import only_writer, write_whole
from manifield.interrupt import stop_politely
from manifield.progress import Progress

MOUNTS = "cameras.yaml"


def run(config: DictConfig) -> int:
    """Do what `configs/calibrate.yaml` says; returns the exit code.

    Raises:
        InputError: no bus, nothing on it, too few or contradicting captures.
    """
    action = ACTIONS[choose(config.action, ACTIONS, "action")]
    within(config, captures=(5, 1000))
    robot = robot_config(config.env)
    with only_writer(Path(config.out), "calibrate", "out"):
        action(config, robot)
    return 0


def print_board(config: DictConfig, robot: RosConfig) -> None:
    """Write the sheet."""
    board = _board(config)
    path = Path(config.out) / "board.pdf"
    write_whole(path, board.sheet())
    width, height = (1000 * length for length in board.size)
    print(
        f"{path}: {width:.0f} x {height:.0f} mm; print it at 100 %, glue it to something flat, and measure it: "
        "board.square=… (metres)"
    )


def capture(config: DictConfig, robot: RosConfig) -> None:
    """Take the captures that are missing, then solve."""
    from envs.ros.calibration.captures import load_captures, save_capture
    from envs.ros.calibration.watch import Watch, captures

    folder = Path(config.out) / config.camera
    folder.mkdir(parents=True, exist_ok=True)
    board, known = _board(config), load_captures(folder)
    transport = make_transport(robot.transport, "manifield_calibrate")
    watch = Watch(transport, robot, config.camera, config.hand)
    try:
        _start(transport)
        title = f"calibrate {config.camera}"
        with (
            stop_politely("this look") as stopping,
            Progress(title, config.captures, "captures", start=len(known)) as progress,
        ):
            progress.note("move the hand to where the camera sees the board, hold it still, and so on: Ctrl-C ends")
            number = max((int(name) for name in known), default=-1) + 1
            if len(known) < config.captures:
                for found in captures(watch, board, list(known.values()), progress.note, stopping):
                    save_capture(folder, number, found)
                    number += 1
                    progress.advance()
                    progress.note(f"\acaptured {progress.done}: on to the next pose")
                    if progress.done >= config.captures:
                        break
    finally:
        transport.close()
    _solve(config, robot, watch)


def solve(config: DictConfig, robot: RosConfig) -> None:
    """Solve from the captures that there are."""
    _solve(config, robot, None)


def check(config: DictConfig, robot: RosConfig) -> None:
    """Look once through all cameras, and compare."""
    from envs.ros.calibration import check as comparing
    from envs.ros.calibration.hand import boxes_of

    boxes = boxes_of(config.gripper)
    transport = make_transport(robot.transport, "manifield_calibrate")
    sizes: dict[str, int] = {}
    for camera in robot.cameras:
        _note_size(transport, robot.topics.info.format(camera=camera), camera, sizes)
    try:
        _start(transport)
        size = config.size or _native_size(robot, sizes)
        sensors = Sensors(transport, replace(robot, image_size=size))
        sensors.start()
        observation = sensors.observe().observation
    except SensorFault as error:
        raise InputError(f"no sound observation: {error}") from None
    finally:
        transport.close()
    low = np.array(robot.limits.low) - [0.0, 0.0, comparing.BELOW]
    print(comparing.check(observation, boxes, low, np.array(robot.limits.high)).table())
    paths = comparing.write_pictures(Path(config.out), observation, boxes)
    print(f"the hand where it should be, in each picture: {', '.join(map(str, paths))}")


ACTIONS: dict[str, Callable[[DictConfig, RosConfig], None]] = {
    "board": print_board,
    "capture": capture,
    "solve": solve,
    "check": check,
}


def _solve(config: DictConfig, robot: RosConfig, watch: Any) -> None:
    from envs.ros.calibration.captures import find_boards, load_captures
    from envs.ros.calibration.hand_eye import ArmPrecision, solve_hand_eye
    from envs.ros.calibration.mounts import Mount, read_mounts, static_transform, write_mounts

    folder, file = Path(config.out) / config.camera, Path(config.out) / MOUNTS
    captured = load_captures(folder)
    if not captured:
        raise InputError(f"{folder}: holds no captures; take some with action=capture")
    first = next(iter(captured.values()))
    sightings = find_boards(captured, _board(config))
    precision = ArmPrecision(**OmegaConf.to_container(config.precision))  # type: ignore[arg-type]
    result = solve_hand_eye(sightings, first.lens, config.setup, precision)
    print(
        f"{config.camera}, {result.setup}: {result.used} captures, {result.reprojection:.2f} px left at the corners, "
        f"{1000 * result.arm:.2f} mm at the arm; the camera's place is known to {1000 * result.metres:.1f} mm and "
        f"{np.degrees(result.radians):.2f}° (one standard deviation)"
    )
    if result.left_out:
        print(f"left out, because they contradict the others: {', '.join(result.left_out)}")
    parent = first.hand if result.setup == "eye_in_hand" else first.base
    note = (
        f"{time.strftime('%Y-%m-%d')}, {result.setup}: {result.used} captures, {result.reprojection:.2f} px, "
        f"± {1000 * result.metres:.1f} mm, ± {np.degrees(result.radians):.2f}°"
    )
    mount = Mount(parent, result.T_mount_camera, note)
    mounts = read_mounts(file) if file.is_file() else {}
    write_mounts(file, mounts | {config.camera: mount})
    _, words = static_transform(mount, first.optical, watch.frames if watch is not None else None)
    print(f"{file}: use it with env.frames.cameras={file}, or publish the transform:\n  {words}")


def _note_size(transport: Transport, topic: str, camera: str, sizes: dict[str, int]) -> None:
    transport.subscribe(topic, CameraInfo, lambda info: sizes.update({camera: min(info.height, info.width)}))


def _native_size(robot: RosConfig, sizes: dict[str, int]) -> int:
    """The smallest side of the cameras' own pictures, once all have told theirs.

    Raises:
        SensorFault: one does not.
    """
    end = time.monotonic() + robot.sensing.patience
    while len(sizes) < len(robot.cameras):
        if time.monotonic() > end:
            missing = ", ".join(camera for camera in robot.cameras if camera not in sizes)
            raise SensorFault(f"no camera_info of {missing}")
        time.sleep(0.02)
    return min(sizes.values())


def _board(config: DictConfig) -> Any:
    from envs.ros.calibration.board import Board

    return Board(**OmegaConf.to_container(config.board))  # type: ignore[arg-type]


def _start(transport: Transport) -> None:
    try:
        transport.start()
    except NotConnected as error:
        raise InputError(f"no robot: {error}; look at env.transport") from None
