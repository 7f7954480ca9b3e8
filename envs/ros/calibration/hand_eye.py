"""Hand-eye calibration: where a camera is on the hand ("eye in hand") or beside the arm ("eye to hand").

One of camera and board moves with the hand, the other stands still. With A the arm's pose (hand in base), X the
camera's pose on what carries it and Z the board's on what carries that,

    eye in hand    T_camera_board = X⁻¹ A⁻¹ Z      X in the hand, Z in the base
    eye to hand    T_camera_board = X⁻¹ A  Z       X in the base, Z in the hand

so the second is the first with A⁻¹ for A. OpenCV solves for X in closed form (Park and Martin 1994); from there X, Z
and a small error of every arm pose are fitted to the corners' pixels, each residual in units of its standard deviation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.optimize import OptimizeResult, least_squares
from scipy.spatial.transform import Rotation

from envs.ros.calibration.board import Corners, Lens, board_pose
from manifield.errors import InputError, choose

SETUPS = ("eye_in_hand", "eye_to_hand")
FEWEST_CAPTURES = 5
LEAST_TURN = np.radians(8.0)  # of the captures' orientations about the second of their main axes
CONTRADICTION = 8.0  # times what the noise explains: such captures are no calibration at all
MENDING = "look whether board or camera moved on their mounts, board.square is as measured and setup is right"
MOST_STEPS = 30  # of the fit, which needs a dozen
LEAST_NOISE = 0.02  # pixels, of a corner: better than any detector
STEP = 1e-6  # radians and metres, of the differences that stand for derivatives
OUTLIER = 4.0  # times the median of the captures' errors, from which on a capture is left out


@dataclass(frozen=True)
class Sighting:
    """What one capture says. T_base_hand: [4, 4]. corners: of the board in the picture. name: for messages."""

    T_base_hand: np.ndarray
    corners: Corners
    name: str = ""


@dataclass(frozen=True)
class ArmPrecision:
    """Standard deviations of what an arm tells of its pose, per axis: metres, radians."""

    metres: float = 0.001
    radians: float = 0.0003


@dataclass(frozen=True)
class HandEye:
    """The result.

    T_mount_camera: [4, 4] camera (optical frame) in the hand or the base. T_other_board: [4, 4] board in the base or
    the hand. reprojection: root mean square of what is left of the corners, pixels. arm: of the corrections of the
    arm's positions, metres. metres, radians: standard deviation of T_mount_camera, from the fit. left_out: names of
    captures that contradict the others.
    """

    setup: str
    T_mount_camera: np.ndarray
    T_other_board: np.ndarray
    reprojection: float
    arm: float
    metres: float
    radians: float
    used: int
    left_out: tuple[str, ...] = ()


def solve_hand_eye(
    sightings: Sequence[Sighting], lens: Lens, setup: str, precision: ArmPrecision | None = None
) -> HandEye:
    """Calibrate a camera. setup: "eye_in_hand" or "eye_to_hand".

    Raises:
        InputError: too few captures, captures that do not turn about two axes, or that contradict each other.
    """
    choose(setup, SETUPS, "setup")
    kept, left_out = list(sightings), list[str]()
    while True:
        _check(kept, left_out)
        fit = _Fit(kept, lens, setup, precision or ArmPrecision())
        errors = fit.capture_errors()
        if float(np.median(errors)) > CONTRADICTION:
            raise InputError(
                f"the captures contradict each other: {fit.result(()).reprojection:.1f} px are left at the corners and "
                f"{1000 * fit.result(()).arm:.1f} mm at the arm; {MENDING}"
            )
        worst = int(errors.argmax())
        if errors[worst] <= max(OUTLIER * float(np.median(errors)), OUTLIER):
            return fit.result(tuple(left_out))
        left_out.append(kept.pop(worst).name)
        if len(left_out) > len(sightings) // 3:
            raise InputError(
                f"{len(left_out)} of {len(sightings)} captures contradict the others ({', '.join(left_out[:4])}…): "
                f"{MENDING}"
            )


def _check(sightings: Sequence[Sighting], left_out: Sequence[str]) -> None:
    if len(sightings) < FEWEST_CAPTURES:
        without = f" (without {', '.join(left_out)}, which contradict the others)" if left_out else ""
        raise InputError(f"{len(sightings)} captures with a board{without}: give at least {FEWEST_CAPTURES}, better 30")
    rotations = Rotation.from_matrix(np.stack([s.T_base_hand[:3, :3] for s in sightings]))
    turns = (rotations.mean().inv() * rotations).as_rotvec()
    _, spread, _ = np.linalg.svd(turns)
    if spread[1] / np.sqrt(len(turns)) < LEAST_TURN:
        raise InputError(
            f"the hand turned by {np.degrees(spread[:2] / np.sqrt(len(turns))).round(1).tolist()} degrees (root mean "
            "square) about its two main axes over the captures: tilt it by 20 degrees and more about two axes"
        )


class _Fit:
    """One least-squares fit over a set of captures."""

    def __init__(self, sightings: Sequence[Sighting], lens: Lens, setup: str, precision: ArmPrecision) -> None:
        self.lens, self.setup, self.precision, self.count = lens, setup, precision, len(sightings)
        inverse = setup == "eye_to_hand"
        # Hand in base for a camera on the hand, base in hand for one beside the arm: the same equation for both.
        self.arms = np.stack([np.linalg.inv(s.T_base_hand) if inverse else s.T_base_hand for s in sightings])
        self.capture = np.concatenate([np.full(len(s.corners.points), i) for i, s in enumerate(sightings)])
        self.points = np.concatenate([s.corners.points for s in sightings])
        self.pixels = np.concatenate([s.corners.pixels for s in sightings])
        seen, errors = zip(*(board_pose(s.corners, lens) for s in sightings), strict=True)
        # What the corners of one picture leave of their own best pose is the noise of corners, and nothing else's.
        squares = sum(error**2 * len(s.corners.points) for error, s in zip(errors, sightings, strict=True))
        self.noise = max(float(np.sqrt(squares / (2 * len(self.points) - 6 * self.count))), LEAST_NOISE)
        self.start = _closed_form(self.arms, np.stack(seen))
        self.solution = self._solve()
        self.camera, self.board = self._poses(self.solution.x)

    def capture_errors(self) -> np.ndarray:
        """[captures] root mean square of a capture's residuals, those of its arm pose included, in standard
        deviations."""
        squares = self.solution.fun**2
        corners = 2 * len(self.points)
        pixels = np.bincount(np.repeat(self.capture, 2), squares[:corners], self.count)
        arm = squares[corners:].reshape(self.count, 6).sum(axis=1)
        return np.sqrt(pixels / (2 * np.bincount(self.capture, minlength=self.count)) + arm / 6)

    def result(self, left_out: tuple[str, ...]) -> HandEye:
        corners = 2 * len(self.points)
        left = self.solution.fun[:corners] * self.noise
        shifts = self.solution.x[12:].reshape(self.count, 6)[:, 3:]
        jacobian = self.solution.jac
        # What is left says how good the assumed deviations were.
        scale = float((self.solution.fun**2).sum()) / max(len(self.solution.fun) - jacobian.shape[1], 1)
        deviation = np.sqrt(np.diag(np.linalg.pinv(jacobian.T @ jacobian))[:6] * max(scale, 1e-12))
        return HandEye(
            setup=self.setup,
            T_mount_camera=self.camera,
            T_other_board=self.board,
            reprojection=float(np.sqrt((left.reshape(-1, 2) ** 2).sum(axis=1).mean())),
            arm=float(np.sqrt((shifts**2).sum(axis=1).mean())),
            metres=float(np.linalg.norm(deviation[3:])),
            radians=float(np.linalg.norm(deviation[:3])),
            used=self.count,
            left_out=left_out,
        )

    def _solve(self) -> OptimizeResult:
        return least_squares(
            self._residuals,
            np.zeros(12 + 6 * self.count),
            self._jacobian,
            method="lm",
            xtol=1e-9,
            ftol=1e-9,
            max_nfev=MOST_STEPS,
        )

    def _jacobian(self, x: np.ndarray) -> np.ndarray:
        """By differences, where the corrections of all arm poses are moved at once: each shows in its own capture."""
        corners, here = 2 * len(self.points), self._residuals(x)
        jacobian = np.zeros((len(here), len(x)))
        for k in range(12):
            there = x.copy()
            there[k] += STEP
            jacobian[:, k] = (self._residuals(there) - here) / STEP
        rows, captures = np.arange(corners), np.arange(self.count)
        for k in range(6):
            there = x.copy()
            there[12 + k :: 6] += STEP
            change = (self._residuals(there) - here) / STEP
            jacobian[rows, 12 + k + 6 * np.repeat(self.capture, 2)] = change[:corners]
            own = corners + k + 6 * captures
            jacobian[own, 12 + k + 6 * captures] = change[own]
        return jacobian

    def _poses(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """X and Z: the closed form's, moved by twelve small numbers."""
        return self.start[0] @ motion(x[:6]), self.start[1] @ motion(x[6:12])

    def _residuals(self, x: np.ndarray) -> np.ndarray:
        camera, board = self._poses(x)
        errors = x[12:].reshape(self.count, 6)
        arms = self.arms @ motion(errors)
        T_camera_board = np.linalg.inv(camera) @ np.linalg.inv(arms) @ board
        poses = T_camera_board[self.capture]
        seen = np.einsum("nij,nj->ni", poses[:, :3, :3], self.points) + poses[:, :3, 3]
        pixels = (self.lens.project(seen) - self.pixels) / self.noise
        scales = [self.precision.radians] * 3 + [self.precision.metres] * 3
        return np.concatenate([pixels.ravel(), (errors / scales).ravel()])


def _closed_form(arms: np.ndarray, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """X and Z from the arm's poses and the board's before the camera, [N, 4, 4] each."""
    rotation, translation = cv2.calibrateHandEye(
        list(arms[:, :3, :3]),
        list(arms[:, :3, 3]),
        list(seen[:, :3, :3]),
        list(seen[:, :3, 3]),
        method=cv2.CALIB_HAND_EYE_PARK,
    )
    camera = np.eye(4)
    camera[:3, :3], camera[:3, 3] = rotation, translation.ravel()
    boards = arms @ camera @ seen
    board = np.eye(4)
    board[:3, :3] = Rotation.from_matrix(boards[:, :3, :3]).mean().as_matrix()
    board[:3, 3] = np.median(boards[:, :3, 3], axis=0)
    return camera, board


def motion(x: np.ndarray) -> np.ndarray:
    """[..., 4, 4] rigid motions of [..., 6] numbers: rotation vector (radians), translation (metres)."""
    poses = np.zeros((*x.shape[:-1], 4, 4))
    poses[..., :3, :3] = Rotation.from_rotvec(x[..., :3].reshape(-1, 3)).as_matrix().reshape(*x.shape[:-1], 3, 3)
    poses[..., :3, 3] = x[..., 3:]
    poses[..., 3, 3] = 1.0
    return poses
