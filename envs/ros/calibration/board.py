"""The board that a calibration looks at: ChArUco (each corner is known by its number, so part of a board will do) or a
plain chessboard; its picture for printing, its corners in a picture, and its pose before a camera.

Frame of the board: origin at the outer corner of its first square, x along the rows, y along the columns, z into the
board, metres.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

from manifield.errors import InputError, choose

KINDS = ("charuco", "chessboard")
FEWEST_CORNERS = 6  # of a board in a picture: fewer leave its pose too loose
PRINT_DPI = 300


@dataclass(frozen=True)
class Lens:
    """How a camera maps its own frame to pixels: `sensor_msgs/CameraInfo`'s K and D.

    intrinsics: [3, 3] pixels. distortion: OpenCV's 0, 4, 5, 8, 12 or 14 numbers ("plumb_bob", "rational_polynomial").
    """

    intrinsics: np.ndarray
    distortion: np.ndarray

    def project(self, points: np.ndarray) -> np.ndarray:
        """Pixels [N, 2] of points [N, 3] in the camera's frame, metres."""
        nothing = np.zeros(3)
        pixels, _ = cv2.projectPoints(
            np.ascontiguousarray(points[:, None], float), nothing, nothing, self.intrinsics, self.distortion
        )
        return pixels[:, 0]


@dataclass(frozen=True)
class Corners:
    """Corners that were found in a picture. points: [N, 3] in the board's frame, metres. pixels: [N, 2]."""

    points: np.ndarray
    pixels: np.ndarray


@dataclass(frozen=True)
class Board:
    """A printed board.

    kind: "charuco" or "chessboard". columns, rows: squares along x and y. square, marker: edges in metres, as measured
    on the print. dictionary: OpenCV's name of the markers' dictionary. legacy: the pattern that OpenCV before 4.6
    printed (differs where the number of rows is even).
    """

    kind: str = "charuco"
    columns: int = 9
    rows: int = 6
    square: float = 0.03
    marker: float = 0.022
    dictionary: str = "DICT_4X4_50"
    legacy: bool = False

    def __post_init__(self) -> None:
        choose(self.kind, KINDS, "board.kind")
        if self.columns < 3 or self.rows < 3:
            raise InputError(f"board.columns={self.columns}, board.rows={self.rows}: a board has at least 3 of each")
        if not 0.002 <= self.square <= 1.0:
            raise InputError(f"board.square={self.square}: give the edge of a square in metres, as measured")
        if self.kind == "chessboard" and (self.columns - self.rows) % 2 == 0:
            raise InputError(
                f"board.columns={self.columns}, board.rows={self.rows}: this chessboard looks the same after half a "
                "turn; use one with an odd and an even number, or a ChArUco board"
            )
        if self.kind == "charuco":
            if not 0 < self.marker < self.square:
                raise InputError(f"board.marker={self.marker}: markers are smaller than squares ({self.square} m)")
            names = [name for name in dir(cv2.aruco) if name.startswith("DICT_")]
            choose(self.dictionary, names, "board.dictionary")

    @property
    def size(self) -> tuple[float, float]:
        """Width and height, metres."""
        return self.columns * self.square, self.rows * self.square

    def picture(self, pixels_per_square: int) -> np.ndarray:
        """[rows * p, columns * p] uint8, the board without a margin."""
        width, height = self.columns * pixels_per_square, self.rows * pixels_per_square
        if self.kind == "charuco":
            return self._charuco().generateImage((width, height), marginSize=0, borderBits=1)
        dark = np.add.outer(np.arange(self.rows), np.arange(self.columns)) % 2 == 0
        return np.kron(np.where(dark, 0, 255), np.ones((pixels_per_square,) * 2)).astype(np.uint8)

    def sheet(self) -> bytes:
        """A PDF page with the board at its true size and a white margin of half a square."""
        per_square = round(self.square / 0.0254 * PRINT_DPI)
        picture = np.pad(self.picture(per_square), per_square // 2, constant_values=255)
        buffer = io.BytesIO()
        # Squares have whole pixels: the resolution, not the board, takes up the rounding.
        Image.fromarray(picture).save(buffer, "PDF", resolution=per_square * 0.0254 / self.square)
        return buffer.getvalue()

    def find(self, rgb: np.ndarray) -> Corners | None:
        """The board's inner corners in a picture [H, W, 3] uint8; None if there are too few to tell its pose."""
        grey = cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2GRAY)
        if self.kind == "chessboard":
            found, pixels = cv2.findChessboardCornersSB(grey, (self.columns - 1, self.rows - 1))
            if not found:
                return None
            return Corners(self._inner_corners(), self._from_its_origin(grey, pixels.reshape(-1, 2).astype(float)))
        parameters = cv2.aruco.DetectorParameters()
        parameters.cornerRefinementMethod = cv2.aruco.CORNER_REFINE_SUBPIX
        detector = cv2.aruco.CharucoDetector(self._charuco(), detectorParams=parameters)
        pixels, numbers, _, _ = detector.detectBoard(grey)
        if numbers is None or len(numbers) < FEWEST_CORNERS:
            return None
        points = self._inner_corners()[np.asarray(numbers).ravel()]
        if min(np.ptp(points[:, 0]), np.ptp(points[:, 1])) == 0:  # one line of corners does not fix a pose
            return None
        return Corners(points, np.asarray(pixels, float).reshape(-1, 2))

    def _from_its_origin(self, grey: np.ndarray, pixels: np.ndarray) -> np.ndarray:
        """Corners of a chessboard from its origin on: OpenCV begins at either end, the squares' colours tell which."""
        grid = pixels.reshape(self.rows - 1, self.columns - 1, 2)
        centres = np.rint((grid[:-1, :-1] + grid[1:, 1:] + grid[:-1, 1:] + grid[1:, :-1]) / 4).astype(int)
        seen = grey[centres[..., 1], centres[..., 0]].astype(float)
        dark = np.add.outer(np.arange(self.rows - 2), np.arange(self.columns - 2)) % 2 == 0
        return pixels if seen[dark].mean() < seen[~dark].mean() else pixels[::-1]

    def _charuco(self) -> cv2.aruco.CharucoBoard:
        dictionary = cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, self.dictionary))
        board = cv2.aruco.CharucoBoard((self.columns, self.rows), self.square, self.marker, dictionary)
        board.setLegacyPattern(self.legacy)
        return board

    def _inner_corners(self) -> np.ndarray:
        """[(columns - 1) * (rows - 1), 3] row by row, as OpenCV numbers them."""
        x, y = np.meshgrid(np.arange(1, self.columns), np.arange(1, self.rows))
        return np.stack([x.ravel(), y.ravel(), np.zeros(x.size)], axis=1) * self.square


def board_pose(corners: Corners, lens: Lens) -> tuple[np.ndarray, float]:
    """[4, 4] `T_camera_board` and the root mean square of what its projection leaves, pixels.

    A flat board seen from afar fits nearly as well when it is tilted the other way; the better of both fits is taken.
    """
    _, rotations, translations, _ = cv2.solvePnPGeneric(
        corners.points, corners.pixels, lens.intrinsics, lens.distortion, flags=cv2.SOLVEPNP_IPPE
    )
    best, least = np.eye(4), np.inf
    for rotation, translation in zip(rotations, translations, strict=True):
        rotation, translation = cv2.solvePnPRefineLM(
            corners.points, corners.pixels, lens.intrinsics, lens.distortion, rotation, translation
        )
        pose = np.eye(4)
        pose[:3, :3] = Rotation.from_rotvec(rotation.ravel()).as_matrix()
        pose[:3, 3] = translation.ravel()
        left = lens.project(corners.points @ pose[:3, :3].T + pose[:3, 3]) - corners.pixels
        error = float(np.sqrt((left**2).sum(axis=1).mean()))
        if error < least:
            best, least = pose, error
    return best, least
