"""The page: a panel beside the scene that chooses the episode, the moment, the cameras and what is drawn.

Buttons and sliders only wake the main thread, which reads them all and draws what has changed. So everything is drawn
by one thread, and a slider that moves faster than frames can be decoded skips some instead of queueing them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import viser

from demos.view import words
from demos.view.overlay import Overlay
from demos.view.replay import Replay, Sight
from demos.view.scene import CLOSED, NOW, OPEN, Scene
from envs.interface import Observation
from manifield.errors import InputError

PANEL_WIDTH = 350  # pixels
GOAL = "agent's choice"
LAYERS = {
    "point cloud": True,
    "voxels": False,
    "voxels' box": True,
    "cameras": True,
    "gripper": True,
    "path": True,
    "key-frames": True,
}
# Name in the scene → the layer that shows it, beside cameras and key-frames, of which there are several.
NODES = {
    "/point cloud": "point cloud",
    "/voxels": "voxels",
    "/box": "voxels' box",
    "/gripper": "gripper",
    "/path/open": "path",
    "/path/closed": "path",
}


@dataclass(frozen=True)
class State:
    """What the panel asks for. layers, cameras: names of those that are switched on. size: of a point, metres."""

    episode: int
    frame: int
    layers: frozenset[str]
    cameras: tuple[str, ...]
    size: float


class Panel:
    """The panel and what it draws.

    Args:
        paths: of the episodes, at least one. sight: what of a scene is shown. cameras: shown at first; None for all.
        overlay: what else is shown; None for nothing.

    Raises:
        InputError: the first episode cannot be shown, or has no such camera.
    """

    def __init__(
        self,
        server: viser.ViserServer,
        paths: Sequence[Path],
        sight: Sight,
        cameras: Sequence[str] | None = None,
        overlay: Overlay | None = None,
    ) -> None:
        self._overlay, self._more = overlay, () if overlay is None else overlay.layers
        self._server, self._gui, self._scene = server, server.gui, Scene(server)
        self._paths, self._sight = paths, sight
        self._wake = threading.Event()
        self._playing, self._due = False, 0.0
        self._drawn: State | None = None
        self._replay = self._open(0)
        unknown = set(cameras or ()) - set(self._replay.episode.cameras)
        if unknown:
            present = ", ".join(self._replay.episode.cameras)
            raise InputError(f"cameras={sorted(unknown)}: {self._replay.episode.path} has {present}".replace("'", ""))
        self._hidden = set() if cameras is None else set(self._replay.episode.cameras) - set(cameras)
        self._gui.configure_theme(show_logo=False, show_share_button=False, control_width="large")
        self._gui.set_panel_label("Manifield")
        labels = [words.label(path) for path in paths]
        self._labels = [f"{number + 1}  {label}" for number, label in enumerate(labels)]  # options must differ
        self._episode = self._gui.add_dropdown("Episode", self._labels, visible=len(paths) > 1, order=0.0)
        self._listen(self._episode)
        self._about = self._gui.add_html("", order=0.5)
        self._time: Any = None
        self._camera_folder: Any = None
        self._pictures = self._gui.add_image(np.full((8, 8, 3), 255, np.uint8), order=2.0)
        with self._gui.add_folder("Show", order=4.0):
            more = {name: name == self._more[0] for name in self._more} | ({GOAL: True} if self._more else {})
            layers = LAYERS | more
            self._layers = {name: self._listen(self._gui.add_checkbox(name, on)) for name, on in layers.items()}
            self._size = self._listen(self._gui.add_slider("point size (mm)", 1.0, 12.0, 0.5, 5.0))
        self._build()

    # One round

    def spin(self, timeout: float = 0.5) -> None:
        """Wait until something is asked for (at most `timeout` seconds), then draw it."""
        if self._playing:
            timeout = max(0.0, self._due - time.monotonic())
        self._wake.wait(timeout)
        self._wake.clear()
        if self._playing and time.monotonic() >= self._due:
            self._advance()
        if self._labels.index(self._episode.value) != self._number:
            self._change_episode(self._labels.index(self._episode.value))
        self.draw()

    def draw(self) -> None:
        """Draw what has changed since the last time."""
        now, before = self._read(), self._drawn
        if now == before:
            return
        self._drawn = now
        try:
            self._draw_frame(now, before)
        except InputError as error:  # a damaged picture; the other frames are there
            self._playing = False
            self._show_playing()
            self._status.content = words.warning(str(error))

    def _read(self) -> State:
        return State(
            episode=self._number,
            frame=min(self._slider.value, len(self._replay) - 1),
            layers=frozenset(name for name, box in self._layers.items() if box.value),
            cameras=tuple(name for name, box in self._cameras.items() if box.value),
            size=self._size.value / 1000,
        )

    def _draw_frame(self, now: State, before: State | None) -> None:
        seen = (now.episode, now.frame, now.cameras)
        moved = before is None or seen != (before.episode, before.frame, before.cameras)
        fresh = now.layers - (frozenset() if before is None or moved else before.layers)
        replay, resized = self._replay, before is not None and now.size != before.size
        # All of a frame is decoded before any of it is sent.
        observation = replay.observation(now.frame, now.cameras)
        wanted = "point cloud" in fresh or ("point cloud" in now.layers and resized)
        cloud = replay.cloud(now.frame, now.cameras) if wanted else None
        voxels = replay.voxels(now.frame, now.cameras) if "voxels" in fresh else None
        more, goal = {}, None
        if self._overlay is not None:
            more = {name: self._overlay.voxels(name, replay, now.frame) for name in self._more if name in fresh}
            goal = self._overlay.goal(replay, now.frame) if GOAL in fresh else None
        with self._server.atomic():
            for name, found in more.items():
                self._scene.show_voxels(f"/{name}", *found)
            if goal is not None:
                colour = OPEN if goal[7] > 0.5 else CLOSED
                self._scene.show_gripper(f"/{GOAL}", goal[:7], goal[7] > 0.5, colour, GOAL, width=4.0)
            if cloud is not None:
                self._scene.show_cloud("/point cloud", *cloud, now.size)
            if voxels is not None:
                self._scene.show_voxels("/voxels", *voxels)
            if moved:
                self._show_moment(now.frame, observation)
            self._show_layers(now)

    def _show_moment(self, frame: int, observation: Observation) -> None:
        episode = self._replay.episode
        for camera, view in observation.cameras.items():
            self._scene.show_camera(f"/cameras/{camera}", view)
        if observation.cameras:
            self._pictures.image = _side_by_side([view.rgb for view in observation.cameras.values()])
        self._pictures.visible = bool(observation.cameras)
        self._scene.show_gripper("/gripper", episode.gripper_pose[frame], episode.gripper_open[frame] > 0.5, NOW)
        self._status.content = words.moment(self._replay, frame)

    def _show_layers(self, now: State) -> None:
        for name, layer in (NODES | {f"/{name}": name for name in (*self._more, GOAL)}).items():
            self._scene.set_visible(name, layer in now.layers)
        for name in self._scene.names("/key-frames/"):
            self._scene.set_visible(name, "key-frames" in now.layers)
        for camera in self._cameras:
            self._scene.set_visible(f"/cameras/{camera}", "cameras" in now.layers and camera in now.cameras)

    # One episode

    def _open(self, number: int) -> Replay:
        self._number = number
        return Replay(self._paths[number], self._sight)

    def _change_episode(self, number: int) -> None:
        self._playing = False
        try:
            self._replay = self._open(number)
        except InputError as error:  # the panel stays as it was, for the episode before
            self._about.content = words.warning(str(error))
            return
        self._hidden = {name for name, box in self._cameras.items() if not box.value}
        self._build()

    def _build(self) -> None:
        """The part of the panel, and of the scene, that is another for another episode."""
        replay, episode, gui = self._replay, self._replay.episode, self._gui
        with self._server.atomic():
            for folder in (self._time, self._camera_folder):
                if folder is not None:
                    folder.remove()
            self._about.content = words.about(replay)
            self._time = gui.add_folder("Time", order=1.0)
            with self._time:
                last = len(replay) - 1
                marks = tuple((frame, str(n + 1)) for n, frame in enumerate(replay.keyframes))
                self._slider = self._listen(gui.add_slider("frame", 0, max(last, 1), 1, 0, marks=marks))
                self._play = gui.add_button("Play", icon=viser.Icon.PLAYER_PLAY)
                self._play.on_click(lambda _: self._toggle())
                jumps = gui.add_button_group("key-frame", ("previous", "next"))
                jumps.on_click(lambda _: self._jump(1 if jumps.value == "next" else -1))
                self._rate = gui.add_slider("frames a second", 1, 30, 1, words.RECORDED)
                self._status = gui.add_html("")
            self._camera_folder = gui.add_folder("Cameras", order=3.0)
            with self._camera_folder:
                self._cameras = {
                    name: self._listen(gui.add_checkbox(name, name not in self._hidden)) for name in episode.cameras
                }
                gui.add_html(words.note("A click on a camera in the scene looks through it; “Reset View” comes back."))
            self._scene.clear("/")
            self._scene.show_box("/box", np.asarray(self._sight.low), np.asarray(self._sight.high))
            self._draw_motion()
        self._drawn = None
        self._wake.set()

    def _draw_motion(self) -> None:
        episode = self._replay.episode
        steps = np.stack([episode.gripper_pose[:-1, :3], episode.gripper_pose[1:, :3]], axis=1)
        is_open = episode.gripper_open[1:] > 0.5
        self._scene.show_lines("/path/open", steps[is_open], OPEN)
        self._scene.show_lines("/path/closed", steps[~is_open], CLOSED)
        # Of a rollout the goals that were chosen, reached or not, rather than what a demonstration's rule makes of it.
        word, goals = "goal ", self._replay.goals
        if not len(goals):
            frames = self._replay.keyframes
            word, goals = "", np.hstack([episode.gripper_pose[frames], episode.gripper_open[frames, None]])
        for number, goal in enumerate(goals, 1):
            colour, state = (OPEN, "open") if goal[7] > 0.5 else (CLOSED, "closed")
            name, label = f"/key-frames/{number}", f"{word}{number} {state}"
            self._scene.show_gripper(name, goal[:7], goal[7] > 0.5, colour, label)

    # Playing

    def _toggle(self) -> None:
        if not self._playing and self._slider.value >= len(self._replay) - 1:
            self._slider.value = 0
        self._playing, self._due = not self._playing, time.monotonic()
        self._show_playing()
        self._wake.set()

    def _advance(self) -> None:
        # Where decoding cannot keep up, frames are left out: the motion keeps its pace.
        steps = 1 + int((time.monotonic() - self._due) * self._rate.value)
        self._due += steps / self._rate.value
        self._slider.value = min(self._slider.value + steps, len(self._replay) - 1)
        if self._slider.value == len(self._replay) - 1:
            self._playing = False
            self._show_playing()

    def _show_playing(self) -> None:
        self._play.label = "Pause" if self._playing else "Play"
        self._play.icon = viser.Icon.PLAYER_PAUSE if self._playing else viser.Icon.PLAYER_PLAY

    def _jump(self, direction: int) -> None:
        now = self._slider.value
        stops = [0, *self._replay.keyframes][::direction]
        self._slider.value = next((frame for frame in stops if (frame - now) * direction > 0), now)

    def _listen(self, handle: Any) -> Any:
        handle.on_update(lambda _: self._wake.set())
        return handle


def _side_by_side(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures [H, W, 3] of one size in rows of two or three, white between them, enlarged to the panel's width."""
    height, width, _ = pictures[0].shape
    columns = min(len(pictures), 2 if len(pictures) in (2, 4) else 3)
    rows = -(-len(pictures) // columns)
    gap = max(1, width // 64)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for number, picture in enumerate(pictures):
        top, left = number // columns * (height + gap), number % columns * (width + gap)
        sheet[top : top + height, left : left + width] = picture
    factor = -(-PANEL_WIDTH // sheet.shape[1])
    return sheet.repeat(factor, axis=0).repeat(factor, axis=1)
