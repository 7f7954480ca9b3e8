"""Where a camera sees the hand, compared with where the arm's kinematics and the calibration say it is.

The hand is known as a few boxes in the tool's frame. Their surfaces, as the camera would see them, are fitted to its
cloud by a shift; that shift is the error of everything between the robot's base and the picture, in metres.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw
from scipy.spatial import cKDTree

from envs.interface import CameraView
from perception.cameras import back_project, project

REACH = 0.06  # metres: a hand that appears farther away than this is not looked for
FEWEST_PIXELS = 60
COLOUR = (0, 229, 255)


@dataclass(frozen=True)
class Box:
    """A part of the hand. centre: [3] in the tool's frame (z out of the hand, y along the fingers' motion), metres.
    half: [3] half of its edges. finger: -1, 0 or 1: moves along y by so many times the fingers' opening."""

    centre: tuple[float, float, float]
    half: tuple[float, float, float]
    finger: int = 0


# Franka's hand and finger tips, as its drawings give them; the tool frame lies between the tips.
FRANKA_HAND = (
    Box((0.0, 0.0, -0.0785), (0.0315, 0.102, 0.022)),
    Box((0.0, 0.0125, -0.027), (0.0095, 0.0075, 0.03), finger=1),
    Box((0.0, -0.0125, -0.027), (0.0095, 0.0075, 0.03), finger=-1),
)


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


def opened(boxes: Sequence[Box], fingers: Sequence[float]) -> list[Box]:
    """The boxes with the fingers where they are. fingers: positions of the two, metres from the middle."""
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


def appearance(
    camera: str, view: CameraView, T_world_tool: np.ndarray, boxes: Sequence[Box]
) -> Appearance | None:
    """Where a camera sees the hand; None if (nearly) none of it is in the picture."""
    expected = hand_depth(view, T_world_tool, boxes)
    shown = np.isfinite(expected)
    if shown.sum() < FEWEST_PIXELS:
        return None
    model = back_project(np.where(shown, expected, 1.0), view.intrinsics, view.T_world_camera)[shown].astype(float)
    valid = np.isfinite(view.depth) & (view.depth > view.near) & (view.depth < 0.999 * view.far)
    cloud = back_project(np.where(valid, view.depth, 1.0), view.intrinsics, view.T_world_camera)[valid].astype(float)
    low, high = model.min(axis=0) - 1.5 * REACH, model.max(axis=0) + 1.5 * REACH
    cloud = cloud[((cloud > low) & (cloud < high)).all(axis=1)]
    if len(cloud) < FEWEST_PIXELS:
        return Appearance(camera, np.full(3, np.nan), 0.0, int(shown.sum()))
    tree = cKDTree(cloud)
    best, least = np.zeros(3), np.inf
    steps = np.linspace(-REACH, REACH, 5)
    sample = model[:: max(1, len(model) // 300)]
    for x in steps:  # coarse: a hand that is far off must not lead into the next best thing
        for y in steps:
            for z in steps:
                shift = np.array([x, y, z])
                cost = _cost(tree, sample, shift)
                if cost < least:
                    best, least = shift, cost
    for _ in range(40):
        distance, index = tree.query(model + best, distance_upper_bound=0.02)
        near = np.isfinite(distance)
        if near.sum() < FEWEST_PIXELS // 2:
            break
        step = np.median(cloud[index[near]] - (model[near] + best), axis=0)
        best = best + step
        if np.linalg.norm(step) < 1e-5:
            break
    distance, _ = tree.query(model + best)
    return Appearance(camera, best, float((distance < 0.008).mean()), int(shown.sum()))


def _cost(tree: cKDTree, model: np.ndarray, shift: np.ndarray) -> float:
    distance, _ = tree.query(model + shift, distance_upper_bound=0.03)
    return float(np.minimum(distance, 0.03).mean())


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
