"""What a calibration is worth, in centimetres: one moment of all cameras, compared with each other and with the arm."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from envs.interface import Observation
from envs.ros.calibration.agreement import Agreement, agreements
from envs.ros.calibration.hand import Appearance, Box, appearance, draw_hand, opened
from envs.ros.geometry import pose_matrix
from manifield.files import write_whole

HIDDEN = 0.35  # of the hand's pixels seen, below which what is found is not trusted
GOOD, POOR = 0.005, 0.01  # metres: half a voxel, a voxel of the papers'
BELOW = 0.05  # metres below the tool's lowest place, from which on what is seen is compared: the table too
WIDTH = 640  # pixels, of the pictures written


@dataclass(frozen=True)
class Check:
    """pairs: of cameras. hands: by camera, None where the hand is not in the picture."""

    pairs: list[Agreement]
    hands: dict[str, Appearance | None]

    @property
    def worst(self) -> float:
        """The largest trusted disagreement, metres: between clouds (nine tenths are closer) or of the hand's place."""
        clouds = [max(pair.most, pair.shift) for pair in self.pairs]
        return max([*clouds, *(hand.distance for hand in self.trusted())], default=float("nan"))

    def trusted(self) -> list[Appearance]:
        """Where the hand appears, as far as it is seen well enough."""
        return [hand for hand in self.hands.values() if hand is not None and hand.seen >= HIDDEN]

    def table(self) -> str:
        """For people."""
        lines = [f"{'clouds':32}{'median':>9}{'90 %':>9}{'apart':>9}{'turned':>9}"]
        for pair in self.pairs:
            name = f"{pair.first} and {pair.second}"
            numbers = (f"{100 * value:6.2f} cm" for value in (pair.median, pair.most, pair.shift))
            open_ = f"   {pair.free} of 6 directions open" if pair.free else ""
            lines.append(f"{name:32}{''.join(numbers)}{np.degrees(pair.turn):7.2f} °{open_}")
        if not self.pairs:
            lines.append("no two cameras see enough of the same")
        if any(pair.free for pair in self.pairs):
            lines.append("(put boxes of different heights on the table: what is seen leaves some directions open)")
        lines += ["", f"{'hand':32}{'off by':>9}{'x':>9}{'y':>9}{'z':>9}"]
        for name, hand in self.hands.items():
            if hand is None:
                lines.append(f"{name:32}  not in the picture")
            elif hand.seen < HIDDEN:
                lines.append(f"{name:32}  {hand.seen:.0%} of it seen: hidden, or far from where it should be")
            else:
                place = "".join(f"{100 * value:6.2f} cm" for value in (hand.distance, *hand.shift))
                lines.append(f"{name:32}{place}")
        return "\n".join([*lines, "", self.verdict()])

    def verdict(self) -> str:
        """One line."""
        if not np.isfinite(self.worst):
            return "nothing could be compared: bring the hand, and some boxes, to where the cameras look"
        if self.worst <= GOOD:
            return f"good: all within {100 * self.worst:.2f} cm"
        kind = "usable, at the size of a voxel" if self.worst <= POOR else "poor: calibrate again"
        return f"{kind}: up to {100 * self.worst:.2f} cm"


def check(observation: Observation, boxes: Sequence[Box], low: np.ndarray, high: np.ndarray) -> Check:
    """Compare what the cameras see within a box (world metres), and look for the hand."""
    T_world_tool = pose_matrix(observation.gripper_pose)
    hand = opened(boxes, observation.gripper_joint_positions)
    hands = {name: appearance(name, view, T_world_tool, hand) for name, view in observation.cameras.items()}
    return Check(agreements(observation.cameras, low, high), hands)


def write_pictures(folder: Path, observation: Observation, boxes: Sequence[Box]) -> list[Path]:
    """One picture a camera, with the hand drawn where it should be."""
    folder.mkdir(parents=True, exist_ok=True)
    T_world_tool = pose_matrix(observation.gripper_pose)
    hand = opened(boxes, observation.gripper_joint_positions)
    paths = []
    for name, view in observation.cameras.items():
        file = io.BytesIO()
        scale = max(1, WIDTH // view.rgb.shape[1])
        Image.fromarray(draw_hand(view, T_world_tool, hand, scale)).save(file, "PNG")
        paths.append(folder / f"check_{name}.png")
        write_whole(paths[-1], file.getvalue())
    return paths
