"""The panel over a real viser server (no browser): what it puts into the scene when it is used."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import viser
from scipy.spatial.transform import Rotation

from demos.store import episode_directory, open_episode, write_episode
from demos.view.panel import Panel
from demos.view.replay import Sight
from envs.interface import Observation
from manifield.errors import InputError
from perception.cameras import look_at

SIGHT = Sight((-10.0, -10.0, -10.0), (10.0, 10.0, 10.0), 0.0, 0.0, 100_000, 0.5)  # wide enough for all points


@pytest.fixture
def episode(tmp_path: Path, observation: Callable[..., Observation]) -> Path:
    """Six frames of two cameras that move; the gripper closes at the third."""
    frames = [observation(index) for index in range(6)]
    for index, frame in enumerate(frames):
        for number, view in enumerate(frame.cameras.values()):
            view.T_world_camera = look_at(np.array([1.0 + number, 0.1 * index, 1.5]), np.array([0.2, 0.0, 0.8]))
    return write_episode(episode_directory(tmp_path, "open_jar", 0), frames, ["open the jar", "unscrew it"], 3)


@pytest.fixture
def server() -> Iterator[viser.ViserServer]:
    server = viser.ViserServer(host="127.0.0.1", port=0, verbose=False)
    yield server
    server.stop()


@pytest.fixture
def show(server: viser.ViserServer) -> Callable[..., Panel]:
    """Make a panel that has drawn once."""

    def make(*paths: Path, cameras: list[str] | None = None) -> Panel:
        panel = Panel(server, paths, SIGHT, cameras)
        panel.spin(0.0)
        return panel

    return make


def drawn(panel: Panel, name: str):
    """What the scene shows under a name, or None."""
    return panel._scene._nodes.get(name) or panel._scene._cameras.get(name)


def until(panel: Panel, condition: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        panel.spin(0.02)


def test_a_moment_is_drawn_as_it_was_recorded(episode: Path, show: Callable[..., Panel]) -> None:
    panel, recorded = show(episode), open_episode(episode)
    for frame in (0, 4):
        panel._slider.value = frame
        panel.spin()
        for camera in ("front", "wrist"):
            view, frustum = recorded.view(frame, camera), drawn(panel, f"/cameras/{camera}")
            np.testing.assert_allclose(frustum.position, view.T_world_camera[:3, 3])
            expected = Rotation.from_matrix(view.T_world_camera[:3, :3])
            assert (expected.inv() * Rotation.from_quat(np.roll(frustum.wxyz, -1))).magnitude() < 1e-6
            np.testing.assert_array_equal(frustum.image, view.rgb)
            assert frustum.fov == pytest.approx(2 * np.arctan(4 / 12))
        gripper = drawn(panel, "/gripper")
        np.testing.assert_allclose(gripper.position, recorded.gripper_pose[frame, :3])
        pose = Rotation.from_quat(recorded.gripper_pose[frame, 3:])
        assert (pose.inv() * Rotation.from_quat(np.roll(gripper.wxyz, -1))).magnitude() < 1e-6
        assert len(drawn(panel, "/point cloud").points) == 2 * 8 * 8
        assert f"{frame} of 5" in panel._status.content


def test_layers_and_cameras_switch_on_and_off(episode: Path, show: Callable[..., Panel]) -> None:
    panel = show(episode)
    assert drawn(panel, "/voxels") is None  # not computed before someone wants it
    panel._layers["voxels"].value = True
    panel.spin()
    assert 0 < len(drawn(panel, "/voxels").batched_positions) <= 2 * 8 * 8
    panel._layers["point cloud"].value = False
    panel._layers["cameras"].value = False
    panel.spin()
    assert not drawn(panel, "/point cloud").visible and not drawn(panel, "/cameras/front").visible
    panel._layers["point cloud"].value = panel._layers["cameras"].value = True
    panel._cameras["wrist"].value = False
    panel._size.value = 8.0
    panel.spin()
    assert drawn(panel, "/point cloud").visible and len(drawn(panel, "/point cloud").points) == 8 * 8
    assert drawn(panel, "/point cloud").point_size == 0.008
    assert drawn(panel, "/cameras/front").visible and not drawn(panel, "/cameras/wrist").visible
    panel._cameras["front"].value = False
    panel.spin()
    assert drawn(panel, "/point cloud") is None and drawn(panel, "/voxels") is None


def test_play_runs_to_the_end_and_begins_anew(episode: Path, show: Callable[..., Panel]) -> None:
    panel = show(episode)
    panel._rate.value = 30
    panel._toggle()
    assert panel._play.label == "Pause"
    until(panel, lambda: not panel._playing)
    assert panel._slider.value == 5 and panel._play.label == "Play"
    panel._toggle()
    assert panel._slider.value < 5
    panel._toggle()
    frame = panel._slider.value
    time.sleep(0.1)
    panel.spin(0.0)
    assert panel._slider.value == frame


def test_a_late_frame_is_left_out(episode: Path, show: Callable[..., Panel]) -> None:
    panel = show(episode)
    panel._rate.value = 10
    panel._toggle()
    panel._due -= 0.25  # two and a half frames ago
    panel.spin()
    assert panel._slider.value == 3


def test_key_frames_are_marked_and_jumped_to(episode: Path, show: Callable[..., Panel]) -> None:
    panel = show(episode)
    assert panel._replay.keyframes == [3, 5]  # the gripper closes, the episode ends
    recorded = open_episode(episode)
    for number, frame in ((1, 3), (2, 5)):
        np.testing.assert_allclose(drawn(panel, f"/key-frames/{number}").position, recorded.gripper_pose[frame, :3])
    visited = []
    for direction in (1, 1, 1, -1, -1, -1):
        panel._jump(direction)
        visited.append(panel._slider.value)
    assert visited == [3, 5, 5, 3, 0, 0]
    assert len(drawn(panel, "/path/open").points) == 2 and len(drawn(panel, "/path/closed").points) == 3


def test_of_a_rollout_the_chosen_goals_are_drawn(episode: Path, show: Callable[..., Panel]) -> None:
    (episode / "manifield.json").write_text('{"actions": [[0.3, 0.2, 0.9, 1, 0, 0, 0, 0, 1]]}')
    panel = show(episode)
    assert panel._scene.names("/key-frames/") == ["/key-frames/1"]
    np.testing.assert_allclose(drawn(panel, "/key-frames/1").position, [0.3, 0.2, 0.9])
    panel._layers["key-frames"].value = False
    panel.spin()
    assert not drawn(panel, "/key-frames/1").visible


def test_the_chooser_changes_the_episode_and_survives_a_damaged_one(episode: Path, show: Callable[..., Panel]) -> None:
    other, broken = (episode.with_name(f"episode{number}") for number in (1, 2))
    shutil.copytree(episode, other)
    shutil.copytree(episode, broken)
    (broken / "low_dim_obs.pkl").write_bytes(b"")
    (other / "front_rgb" / "2.png").write_bytes(b"")
    panel = show(episode, other, broken, cameras=["front"])
    panel._episode.value = panel._labels[2]
    panel.spin()
    assert "low_dim_obs.pkl" in panel._about.content
    panel._episode.value = panel._labels[1]
    panel.spin()
    assert str(other) in panel._about.content
    assert [name for name, box in panel._cameras.items() if box.value] == ["front"]  # the choice stays
    panel._slider.value = 2
    panel.spin()
    assert "2.png" in panel._status.content
    panel._slider.value = 3
    panel.spin()
    assert "3 of 5" in panel._status.content


def test_a_camera_that_stands_nowhere_is_told(episode: Path, show: Callable[..., Panel]) -> None:
    panel = show(episode)
    panel._replay.episode._frames[2]["misc"]["wrist_camera_extrinsics"] = np.diag([1.0, 1.0, -1.0, 1.0])
    panel._slider.value = 2
    panel.spin()
    assert "/cameras/wrist: its pose is no rotation" in panel._status.content


def test_an_unknown_camera_is_refused(episode: Path, show: Callable[..., Panel]) -> None:
    with pytest.raises(InputError, match=r"cameras=\[side\].*front, wrist"):
        show(episode, cameras=["front", "side"])


class Somebody:
    """An overlay that says where it is asked."""

    layers = ("heat", "colours")

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []

    def voxels(self, layer: str, replay, frame: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        self.asked.append((layer, frame))
        return np.full((2, 3), 0.1 * frame, np.float32), np.full((2, 3), 200, np.uint8), np.full(3, 0.02)

    def goal(self, replay, frame: int) -> np.ndarray:
        return np.array([0.1, 0.2, 1.0 + frame, 0.0, 1.0, 0.0, 0.0, 1.0])


def test_an_overlay_is_drawn_for_the_frame_that_is_shown(server: viser.ViserServer, episode: Path) -> None:
    overlay = Somebody()
    panel = Panel(server, [episode], SIGHT, None, overlay)
    panel.spin(0.0)
    assert overlay.asked == [("heat", 0)] and drawn(panel, "/colours") is None  # only what is switched on
    assert drawn(panel, "/heat").visible and drawn(panel, "/agent's choice").position[2] == pytest.approx(1.0)
    panel._layers["colours"].value = True
    panel._slider.value = 2
    panel.draw()
    assert overlay.asked[1:] == [("heat", 2), ("colours", 2)]
    assert drawn(panel, "/agent's choice").position[2] == pytest.approx(3.0)
    panel._layers["heat"].value = False
    panel.draw()
    assert not drawn(panel, "/heat").visible and drawn(panel, "/colours").visible
