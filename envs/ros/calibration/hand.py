"""Where a camera sees the hand, compared with where the arm's kinematics and the calibration say it is.

The hand is known as a few boxes in the tool's frame. Their surfaces, as the camera would see them, are fitted to its
cloud by a shift; that shift is the error of everything between the robot's base and the picture, in metres.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from envs.interface import CameraView
from manifield.errors import InputError
from perception.cameras import back_project, project

REACH = 0.06  # metres: a hand that appears farther away than this is not looked for
FEWEST_PIXELS = 60
CUT = 0.015  # metres: what is farther from the hand's surface is not the hand
COARSE = 6  # steps of the first search to either side
STARTS = 6  # places from which the search goes down
FINEST = 0.0004  # metres, of the search
COLOUR = (0, 229, 255)


@dataclass(frozen=True)
class Box:
    """A part of the hand. centre: [3] in the tool's frame (z out of the hand, y along the fingers' motion), metres.
    half: [3] half of its edges. finger: -1, 0 or 1: moves along y by so many times the fingers' opening."""

    centre: tuple[float, float, float]
    half: tuple[float, float, float]
    finger: int = 0


@dataclass(frozen=True)
class Appearance:
    """Where a camera sees the hand. shift: [3] metres from where it should be to where it appears, world axes.
    seen: share of the pixels that should show the hand and do, after the shift. pixels: that should show it."""

    camera: str
    shift: np.ndarray
    seen: float
    pixels: int

    @property
    def distance(self) -> float:
        """Metres."""
        return float(np.linalg.norm(self.shift))


def boxes_of(entries: Sequence[Mapping[str, Any]]) -> list[Box]:
    """The boxes that a config names.

    Raises:
        InputError: one of them is none.
    """
    boxes = []
    for number, entry in enumerate(entries):
        try:
            centre, half = (tuple(float(x) for x in entry[key]) for key in ("centre", "half"))
            finger = int(entry.get("finger", 0))
        except (KeyError, TypeError, ValueError, AttributeError):
            centre, half, finger = (), (), 2
        if len(centre) != 3 or len(half) != 3 or min(half) <= 0 or finger not in (-1, 0, 1):
            raise InputError(f"gripper.{number}: give centre: [x, y, z], half: [x, y, z] and finger: -1, 0 or 1")
        boxes.append(Box(centre, half, finger))  # type: ignore[arg-type]
    return boxes


def opened(boxes: Sequence[Box], fingers: np.ndarray) -> list[Box]:
    """The boxes with the fingers where they are. fingers: [2] their positions, metres from the middle."""
    result = []
    for box in boxes:
        x, y, z = box.centre
        travel = {1: fingers[0], -1: -fingers[1], 0: 0.0}[box.finger]
        result.append(replace(box, centre=(x, y + travel, z)))
    return result


def hand_depth(view: CameraView, T_world_tool: np.ndarray, boxes: Sequence[Box]) -> np.ndarray:
    """[H, W] depth (metres along z) at which the camera should see the hand; infinite beside it."""
    rays = back_project(np.ones(view.depth.shape, np.float32), view.intrinsics, np.eye(4)).astype(float)
    T_tool_camera = np.linalg.inv(T_world_tool) @ view.T_world_camera
    directions, origin = rays @ T_tool_camera[:3, :3].T, T_tool_camera[:3, 3]
    depth = np.full(view.depth.shape, np.inf)
    with np.errstate(divide="ignore", invalid="ignore"):
        for box in boxes:
            centre, half = np.array(box.centre), np.array(box.half)
            one = (centre - half - origin) / directions
            other = (centre + half - origin) / directions
            enter, leave = np.minimum(one, other).max(axis=-1), np.maximum(one, other).min(axis=-1)
            hit = (enter <= leave) & (enter > view.near)
            depth = np.where(hit, np.minimum(depth, enter), depth)
    return depth


def appearance(camera: str, view: CameraView, T_world_tool: np.ndarray, boxes: Sequence[Box]) -> Appearance | None:
    """Where a camera sees the hand; None if (nearly) none of it is in the picture."""
    expected = hand_depth(view, T_world_tool, boxes)
    shown = np.isfinite(expected)
    if shown.sum() < FEWEST_PIXELS:
        return None
    model = back_project(np.where(shown, expected, 1.0), view.intrinsics, view.T_world_camera)[shown].astype(float)
    sample = model[:: max(1, len(model) // 450)]
    depth = np.where(np.isfinite(view.depth) & (view.depth > view.near), view.depth, np.inf)
    # Looked for everywhere first, then from the best places on: one that is far off must not lead into something else.
    around = range(-COARSE, COARSE + 1)
    step = REACH / COARSE
    places = np.array([[x, y, z] for x in around for y in around for z in around], float) * step
    order = np.argsort([_misfit(sample[::3], place, view, depth) for place in places])[:STARTS]
    found = [_descend(sample, places[k], step / 2, view, depth) for k in order]
    shift = min(found, key=lambda place: _misfit(model, place, view, depth))
    return Appearance(camera, shift, 1.0 - _misfit(model, shift, view, depth, count=True), int(shown.sum()))


def _descend(points: np.ndarray, shift: np.ndarray, step: float, view: CameraView, depth: np.ndarray) -> np.ndarray:
    """The shift with the least misfit around one, found by ever smaller steps."""
    neighbours = np.array([[x, y, z] for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1)], float)
    least = _misfit(points, shift, view, depth)
    while step > FINEST:
        costs = [_misfit(points, shift + step * place, view, depth) for place in neighbours]
        best = int(np.argmin(costs))
        if costs[best] < least:
            shift, least = shift + step * neighbours[best], costs[best]
        else:
            step /= 2
    return shift


def _misfit(points: np.ndarray, shift: np.ndarray, view: CameraView, depth: np.ndarray, count: bool = False) -> float:
    """How badly the picture's depth shows points [N, 3] of the hand that are moved by `shift`: mean error in metres,
    each at most `CUT`; or with `count` the share of the points that are not shown."""
    uv, wanted = project(points + shift, view.intrinsics, view.T_world_camera)
    column, row = np.rint(uv).astype(int).T
    inside = (column >= 0) & (row >= 0) & (column < depth.shape[1]) & (row < depth.shape[0]) & (wanted > view.near)
    error = np.full(len(points), CUT)
    error[inside] = np.minimum(np.abs(depth[row[inside], column[inside]] - wanted[inside]), CUT)
    return float((error > CUT / 2).mean() if count else error.mean())


def draw_hand(view: CameraView, T_world_tool: np.ndarray, boxes: Sequence[Box], scale: int = 1) -> np.ndarray:
    """The view's picture, `scale` times as large, with the edges of the hand where it should be."""
    size = (view.rgb.shape[1] * scale, view.rgb.shape[0] * scale)
    picture = Image.fromarray(view.rgb).resize(size, Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(picture)
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)
    for box in boxes:
        points = np.array(box.centre) + corners * np.array(box.half)
        world = points @ T_world_tool[:3, :3].T + T_world_tool[:3, 3]
        uv, depth = project(world, view.intrinsics, view.T_world_camera)
        uv = (uv + 0.5) * scale
        for i in range(8):
            for j in range(i + 1, 8):
                if np.abs(corners[i] - corners[j]).sum() == 2 and min(depth[i], depth[j]) > view.near:
                    pen.line([*uv[i], *uv[j]], fill=COLOUR, width=max(1, scale))
    return np.asarray(picture)
