"""Hand-eye calibration on captures with known truth: projected with noise, and drawn by a renderer."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from envs.ros.calibration.board import Board, Corners, Lens, board_pose
from envs.ros.calibration.hand_eye import Sighting, motion, solve_hand_eye
from envs.ros.geometry import pose_distance
from manifield.errors import InputError
from tests.envs.ros.calibration.rigs import Rig, make_rig, photograph, pose

LENS = Lens(np.array([[615.0, 0, 322.0], [0, 617.0, 238.0], [0, 0, 1]]), np.array([0.11, -0.21, 0.0007, -0.0004, 0.08]))
BOARD = Board()
SETUPS = ("eye_in_hand", "eye_to_hand")


def sightings(rig: Rig, seed: int, pixels: float = 1.0, metres: float = 0.001, degrees: float = 0.0) -> list[Sighting]:
    """What a camera sees and the arm tells, with noise of these standard deviations (metres and degrees per axis)."""
    rng = np.random.default_rng(seed)
    x, y = np.meshgrid(np.arange(1, BOARD.columns), np.arange(1, BOARD.rows))
    points = np.stack([x.ravel(), y.ravel(), 0 * x.ravel()], axis=1) * BOARD.square
    found = []
    for number, arm in enumerate(rig.arms):
        T = rig.T_camera_board(number)
        seen = LENS.project(points @ T[:3, :3].T + T[:3, 3]) + rng.normal(0, pixels, (len(points), 2))
        inside = ((seen > 0) & (seen < [640, 480])).all(axis=1)
        told = arm @ motion(np.concatenate([rng.normal(0, np.radians(degrees), 3), np.zeros(3)]))
        told[:3, 3] += rng.normal(0, metres, 3)
        if inside.sum() >= 6:
            found.append(Sighting(told, Corners(points[inside], seen[inside]), f"{number:03d}"))
    return found


@pytest.mark.parametrize("setup", SETUPS)
@pytest.mark.parametrize("seed", range(5))
def test_noise_of_a_pixel_and_a_millimetre(setup: str, seed: int) -> None:
    rig = make_rig(setup, seed)
    result = solve_hand_eye(sightings(rig, seed + 100), LENS, setup)
    metres, radians = pose_distance(result.T_mount_camera, rig.T_mount_camera)
    assert metres <= 0.003 and np.degrees(radians) <= 0.3
    assert pose_distance(result.T_other_board, rig.T_other_board)[0] <= 0.004
    assert 0.8 < result.reprojection < 1.8 and not result.left_out
    # The fit knows how good it is: an error beyond four of its own standard deviations would be a lie.
    assert metres < 4 * result.metres and radians < 4 * result.radians


@pytest.mark.parametrize("setup", SETUPS)
def test_without_noise_it_is_exact(setup: str) -> None:
    rig = make_rig(setup, 7, count=8)
    result = solve_hand_eye(sightings(rig, 0, pixels=0.0, metres=0.0), LENS, setup)
    metres, radians = pose_distance(result.T_mount_camera, rig.T_mount_camera)
    assert metres < 1e-6 and radians < 1e-6


def test_a_capture_that_was_disturbed_is_left_out_by_name() -> None:
    rig = make_rig("eye_in_hand", 3)
    found = sightings(rig, 3)
    wrong = found[4].T_base_hand.copy()
    wrong[:3, 3] += [0.03, 0, 0]  # the arm had moved on when its pose was read
    found[4] = Sighting(wrong, found[4].corners, found[4].name)
    result = solve_hand_eye(found, LENS, "eye_in_hand")
    assert result.left_out == (found[4].name,)
    assert pose_distance(result.T_mount_camera, rig.T_mount_camera)[0] <= 0.003


def test_the_wrong_setup_is_noticed() -> None:
    with pytest.raises(InputError, match="contradict"):
        solve_hand_eye(sightings(make_rig("eye_in_hand", 2, count=9), 2), LENS, "eye_to_hand")


def test_captures_that_fix_nothing_are_refused() -> None:
    rig = make_rig("eye_in_hand", 1)
    found = sightings(rig, 1)
    with pytest.raises(InputError, match="at least 5"):
        solve_hand_eye(found[:4], LENS, "eye_in_hand")
    flat = [
        Sighting(pose([180, 0, 12 * k], [0.4, 0.02 * k, 0.5]), seen.corners, seen.name) for k, seen in enumerate(found)
    ]
    with pytest.raises(InputError, match="about two axes"):
        solve_hand_eye(flat, LENS, "eye_in_hand")
    with pytest.raises(InputError, match="did you mean eye_in_hand"):
        solve_hand_eye(found, LENS, "eye_in_hnd")


def test_a_tilted_board_is_not_taken_for_its_mirror_image() -> None:
    rig = make_rig("eye_in_hand", 5, count=12)
    for number, seen in enumerate(sightings(rig, 5, pixels=0.3, metres=0.0)):
        found, error = board_pose(seen.corners, LENS)
        metres, radians = pose_distance(found, rig.T_camera_board(number))
        assert metres < 0.006 and np.degrees(radians) < 3 and error < 1


@pytest.mark.parametrize(("kind", "columns", "rows"), [("charuco", 9, 6), ("charuco", 6, 7), ("chessboard", 8, 5)])
def test_corners_are_found_where_the_board_is(kind: str, columns: int, rows: int) -> None:
    board = Board(kind, columns, rows)
    view = pose([170, 12, 8], [0, 0, 0])
    middle = np.array([board.size[0] / 2, board.size[1] / 2, 0])
    T = np.eye(4)
    T[:3, :3] = view[:3, :3] @ np.diag([1.0, -1.0, -1.0])
    T[:3, 3] = np.array([0.01, -0.01, 0.55]) - T[:3, :3] @ middle
    lens = Lens(LENS.intrinsics, np.zeros(5))
    corners = board.find(photograph(board, T, lens.intrinsics))
    assert corners is not None and len(corners.points) == (columns - 1) * (rows - 1)
    expected = lens.project(corners.points @ T[:3, :3].T + T[:3, 3])
    if kind == "chessboard":  # may be read from its other end only if both ends look alike, which `Board` refuses
        assert np.abs(corners.pixels - expected).max() < 0.6
    assert np.sqrt(((corners.pixels - expected) ** 2).mean()) < 0.2
    found, _ = board_pose(corners, lens)
    metres, radians = pose_distance(found, T)
    assert metres < 0.002 and np.degrees(radians) < 0.5


def test_no_board_no_corners() -> None:
    rng = np.random.default_rng(0)
    for board in (Board(), Board("chessboard", 8, 5)):
        assert board.find(rng.integers(0, 256, (240, 320, 3), dtype=np.uint8)) is None


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kind": "charucco"}, "did you mean charuco"),
        ({"columns": 2}, "at least 3"),
        ({"square": 38.0}, "in metres"),
        ({"marker": 0.03}, "smaller than squares"),
        ({"dictionary": "DICT_5X5"}, "did you mean DICT_5X5"),
        ({"kind": "chessboard", "columns": 7, "rows": 5}, "half a turn"),
    ],
)
def test_boards_that_cannot_be_are_refused(settings: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Board(**settings)


def test_the_sheet_has_its_true_size() -> None:
    sheet = Board().sheet()
    box = sheet.split(b"/MediaBox")[1].split(b"]")[0].replace(b"[", b"").split()
    width, height = (float(x) * 0.0254 / 72 for x in box[2:4])
    assert sheet.startswith(b"%PDF")
    assert abs(width - 10 * 0.03) < 1e-3 and abs(height - 7 * 0.03) < 1e-3  # half a square of margin on either side


def test_small_motions() -> None:
    T = motion(np.array([[0.0, 0, np.pi / 2, 1, 2, 3]]))[0]
    assert np.allclose(T, [[0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]])
    assert np.allclose(Rotation.from_matrix(motion(np.zeros(6))[:3, :3]).as_rotvec(), 0)
