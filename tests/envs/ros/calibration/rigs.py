"""A made-up arm with a camera and a board, whose every pose is known."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from envs.ros.calibration.board import Board
from perception.cameras import look_at


@dataclass
class Rig:
    """T_mount_camera, T_other_board: the truth, as in `HandEye`. arms: [N, 4, 4] true poses of the hand in the base."""

    setup: str
    T_mount_camera: np.ndarray
    T_other_board: np.ndarray
    arms: np.ndarray

    def T_camera_board(self, index: int) -> np.ndarray:
        """The board before the camera at a capture."""
        arm = self.arms[index] if self.setup == "eye_to_hand" else np.linalg.inv(self.arms[index])
        return np.linalg.inv(self.T_mount_camera) @ arm @ self.T_other_board


def pose(turn: list[float], position: list[float]) -> np.ndarray:
    """[4, 4] of roll, pitch and yaw (degrees) and a position (metres)."""
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler("xyz", turn, degrees=True).as_matrix()
    T[:3, 3] = position
    return T


def make_rig(setup: str, seed: int, count: int = 30, width: float = 0.27, height: float = 0.18) -> Rig:
    """Captures as a person would take them: the board before the camera at 0.25 to 0.8 m, tilted by up to 50 degrees.

    width, height: of the board, metres.
    """
    rng = np.random.default_rng(seed)
    middle = np.eye(4)
    middle[:3, 3] = [width / 2, height / 2, 0.0]
    views = []
    for _ in range(count):
        tilt, around = np.radians(rng.uniform(10, 50)), rng.uniform(0, 2 * np.pi)
        away = rng.uniform(0.25, 0.8)
        place = away * np.array([np.sin(tilt) * np.cos(around), np.sin(tilt) * np.sin(around), -np.cos(tilt)])
        # z of a board points into it, so that a camera in front of it stands at negative z and looks along z.
        T_board_camera = np.diag([1.0, -1.0, -1.0, 1.0]) @ look_at(place * [1, -1, -1], rng.normal(0, 0.02, 3))
        T_board_camera = middle @ T_board_camera @ pose([0, 0, rng.uniform(-120, 120)], [0, 0, 0])
        views.append(T_board_camera)
    if setup == "eye_in_hand":
        camera = pose([3, -4, 88], [0.05, -0.03, 0.04])  # on the hand
        board = pose([180, 2, 25], [0.45, 0.1, 0.02])  # on the table, face up
        arms = np.stack([board @ view @ np.linalg.inv(camera) for view in views])
    else:
        camera = pose([-120, 5, 80], [1.2, 0.1, 0.7])  # before the robot
        board = pose([90, 4, -30], [-0.1, 0.02, 0.08])  # in the gripper
        arms = np.stack([camera @ np.linalg.inv(view) @ np.linalg.inv(board) for view in views])
    return Rig(setup, camera, board, arms)


def photograph(board: Board, T_camera_board: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """[480, 640, 3] picture of a board, four rays a pixel, on grey."""
    scale, fine = 60, 2
    texture = np.pad(board.picture(scale), scale, constant_values=255)  # its white margin
    to_board = np.array([[board.square / scale, 0, -board.square], [0, board.square / scale, -board.square], [0, 0, 1]])
    to_board[:2, 2] += board.square / scale / 2
    plane = T_camera_board[:3, [0, 1, 3]]
    larger = np.array([[fine, 0, (fine - 1) / 2], [0, fine, (fine - 1) / 2], [0, 0, 1]])
    H = larger @ intrinsics @ plane @ to_board
    picture = cv2.warpPerspective(
        texture, H, (640 * fine, 480 * fine), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_CONSTANT, borderValue=128
    )
    small = picture.reshape(480, fine, 640, fine).mean(axis=(1, 3))
    return np.repeat(small[..., None], 3, axis=2).astype(np.uint8)
