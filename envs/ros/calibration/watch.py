"""Taking captures from a bus while a person (or a program) moves the hand: one whenever it is held still anew."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from envs.ros.calibration.board import Board
from envs.ros.calibration.captures import Capture, lens_of
from envs.ros.config import RosConfig
from envs.ros.frames import FrameTree, NoTransform
from envs.ros.geometry import pose_distance
from envs.ros.messages import CameraInfo, CompressedImage, Image, MalformedMessage, Transforms
from envs.ros.transport import Transport
from manifield.errors import InputError, choose

STILL = 0.4  # seconds
STILL_METRES, STILL_RADIANS = 0.0007, 0.002  # that the hand may move in that time
NEW_METRES, NEW_RADIANS = 0.03, np.radians(6.0)  # from all captures before: less says nothing new
FRAMES_LATE = 0.2  # seconds that frames may come after a picture of their time
QUIET = 5.0  # seconds between two remarks
NO_PICTURE = 10.0  # seconds without a picture that say that there is none


class Watch:
    """The newest picture of a camera, its lens and the frames, as they come in over a transport.

    Args:
        camera: name. hand: frame that carries the camera or the board, moved by the arm.
    """

    def __init__(self, transport: Transport, config: RosConfig, camera: str, hand: str) -> None:
        choose(camera, config.cameras, "camera")
        self.base, self.hand, self.frames = config.frames.base, hand, FrameTree()
        self._picture: Image | CompressedImage | None = None
        self._info: CameraInfo | None = None
        self._news = threading.Event()
        topics = config.topics
        self.topic = topics.color.format(camera=camera) + ("/compressed" if topics.compressed else "")
        self.info_topic = topics.info.format(camera=camera)
        picture: type[Any] = CompressedImage if topics.compressed else Image
        transport.subscribe(self.topic, picture, self._take_picture)
        transport.subscribe(self.info_topic, CameraInfo, self._take_info)
        transport.subscribe("/tf", Transforms, lambda m: self._take_frames(m, False))
        transport.subscribe("/tf_static", Transforms, lambda m: self._take_frames(m, True), latched=True)

    def next(self, timeout: float) -> Capture | None:
        """The newest moment, once a picture has come that was not asked for before; None if none comes in `timeout`
        seconds, or none whose pose is known.

        Raises:
            InputError: the lens is of a kind that is not known.
        """
        if not self._news.wait(timeout):
            return None
        self._news.clear()
        seen, info = self._picture, self._info
        if seen is None or info is None:
            return None
        try:
            picture = seen.decode() if isinstance(seen, CompressedImage) else seen
        except MalformedMessage:
            return None
        if picture.encoding not in ("rgb8", "mono8"):
            return None
        T_base_hand = self._hand_at(picture.stamp)
        if T_base_hand is None:
            return None
        rgb = picture.data if picture.data.ndim == 3 else np.repeat(picture.data[..., None], 3, axis=2)
        return Capture(rgb, lens_of(info), T_base_hand, picture.stamp, self.base, self.hand, picture.frame_id)

    def is_still(self, capture: Capture) -> bool:
        """Whether the hand has not moved for a while before the picture."""
        for share in (0.25, 0.5, 0.75, 1.0):
            try:
                before = self.frames.lookup(self.base, self.hand, capture.stamp - round(share * STILL * 1e9))
            except NoTransform:
                return False
            metres, radians = pose_distance(before, capture.T_base_hand)
            if metres > STILL_METRES or radians > STILL_RADIANS:
                return False
        return True

    def missing(self) -> str:
        """What has not come, in words; "" if nothing is missing."""
        if self._picture is None:
            return f"no picture on {self.topic}"
        if self._info is None:
            return f"nothing on {self.info_topic}"
        try:
            self.frames.lookup(self.base, self.hand)
        except NoTransform as error:
            return f"/tf: {error}"
        return ""

    def _hand_at(self, stamp: int) -> np.ndarray | None:
        """Pictures may come before the frames of their time: those are waited for."""
        end = time.monotonic() + FRAMES_LATE
        while True:
            try:
                return self.frames.lookup(self.base, self.hand, stamp)
            except NoTransform:
                if time.monotonic() > end:
                    return None
            time.sleep(0.01)

    def _take_picture(self, message: Image | CompressedImage) -> None:
        self._picture = message
        self._news.set()

    def _take_info(self, message: CameraInfo) -> None:
        self._info = message

    def _take_frames(self, message: Transforms, is_static: bool) -> None:
        for transform in message.transforms:
            self.frames.add(transform, is_static)


def captures(
    watch: Watch,
    board: Board,
    known: list[Capture],
    say: Callable[[str], None] = lambda words: None,
    stopping: Callable[[], bool] = lambda: False,
) -> Iterator[Capture]:
    """Captures until `stopping()`, each where the hand is still, elsewhere than in all before, with the board in sight.

    Raises:
        InputError: no picture, camera_info or transform arrives.
    """
    known, told, last = list(known), 0.0, time.monotonic()
    while not stopping():
        capture = watch.next(timeout=0.5)
        now = time.monotonic()
        if capture is None:
            if now - last > NO_PICTURE:
                raise InputError(
                    f"{watch.missing() or f'no new picture on {watch.topic}'} for {NO_PICTURE:.0f} s: look at "
                    "env.topics, env.frames and whether the drivers run"
                )
            continue
        last = now
        if not watch.is_still(capture):
            continue
        if any(_is_near(capture, other) for other in known):
            remark = "hold it elsewhere: this pose is taken"
        elif board.find(capture.rgb) is None:
            remark = "the hand is still, but the board is not in the picture"
        else:
            known.append(capture)
            yield capture
            continue
        if now - told > QUIET:
            say(remark)
            told = now


def _is_near(one: Capture, other: Capture) -> bool:
    metres, radians = pose_distance(one.T_base_hand, other.T_base_hand)
    return metres < NEW_METRES and radians < NEW_RADIANS
