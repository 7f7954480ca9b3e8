"""What the viewer finds below a path, and that its cloud and voxels are those of the recorded frame."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from demos.store import episode_directory, write_episode
from demos.view import words
from demos.view.replay import Replay, Sight, find_shown
from envs.interface import CameraView, Observation
from manifield.errors import InputError
from perception.cameras import intrinsics_from_fov, look_at
from perception.voxels import fuse, peract_grid

TABLE = 0.752
SIGHT = Sight((-0.3, -0.5, 0.6), (0.7, 0.5, 1.6), 1.0, 0.0, 100_000, 0.05)


def table_view(position: tuple[float, float, float], shade: int, size: int = 24) -> CameraView:
    """A camera that sees nothing but the table's plane; left half of the picture darker than the right one."""
    T_world_camera = look_at(np.array(position), np.array([0.2, 0.0, TABLE]))
    intrinsics = intrinsics_from_fov(0.7, size, size)
    u, v = np.meshgrid(np.arange(size), np.arange(size))
    rays = np.stack(
        [(u - intrinsics[0, 2]) / intrinsics[0, 0], (v - intrinsics[1, 2]) / intrinsics[1, 1], u * 0 + 1.0], -1
    )
    depth = (TABLE - position[2]) / (rays @ T_world_camera[:3, :3].T)[..., 2]
    rgb = np.full((size, size, 3), shade, np.uint8)
    rgb[:, : size // 2] //= 2
    return CameraView(rgb, depth, intrinsics, T_world_camera)


@pytest.fixture
def table(tmp_path: Path, observation: Callable[..., Observation]) -> Path:
    """An episode of eight frames whose two cameras look at the bare table."""
    views = {"above": table_view((0.2, 0.0, 1.9), 200), "beside": table_view((0.7, -0.4, 1.7), 100)}
    frames = [replace(observation(index), cameras=views) for index in range(8)]
    return write_episode(
        episode_directory(tmp_path / "data", "see_table", 0), frames, ["look at <the> table", "look"], 2
    )


def test_the_table_is_where_it_stands(table: Path) -> None:
    replay = Replay(table, SIGHT)
    for cameras in (["above"], ["beside"], ["above", "beside"]):
        points, colours = replay.cloud(3, cameras)
        np.testing.assert_allclose(points[:, 2], TABLE, atol=1e-5)
        assert len(points) == len(colours) == 24 * 24 * len(cameras)
    assert set(np.unique(replay.cloud(3, ["beside"])[1])) == {50, 100}
    assert len(replay.cloud(3, [])[0]) == 0


def test_the_cloud_ends_at_the_margin_and_at_the_most_points(table: Path) -> None:
    narrow = replace(SIGHT, low=(0.1, -0.1, 0.6), high=(0.3, 0.1, 1.6), margin=0.05)
    points, _ = Replay(table, narrow).cloud(0, ["above", "beside"])
    assert len(points) > 50
    assert (points[:, :2] >= [0.05, -0.15]).all() and (points[:, :2] < [0.35, 0.15]).all()
    assert np.abs(points[:, 1]).max() > 0.1  # the margin is used
    points, colours = Replay(table, replace(SIGHT, max_points=300)).cloud(0, ["above", "beside"])
    assert 100 < len(points) <= 300 and len(colours) == len(points)


def test_voxels_are_those_that_an_agent_is_given(table: Path) -> None:
    replay = Replay(table, SIGHT)
    centres, colours, size = replay.voxels(0, ["above", "beside"])
    np.testing.assert_allclose(size, 0.05, rtol=1e-6)
    low, high = torch.tensor([SIGHT.low]), torch.tensor([SIGHT.high])
    points, seen = fuse(replay.observation(0, ["above", "beside"]), np.array(SIGHT.low), np.array(SIGHT.high))
    batch = torch.zeros(len(points), dtype=torch.int64)
    grid = peract_grid(torch.from_numpy(points), torch.from_numpy(seen), batch, low, high, (20, 20, 20))[0]
    occupied = grid[9].nonzero().numpy()
    assert len(occupied) > 100
    cells = np.floor((centres - np.array(SIGHT.low)) / size).astype(int)
    np.testing.assert_array_equal(cells, occupied)
    expected = (grid[3:6, *occupied.T].T.numpy() + 1) * 127.5
    np.testing.assert_allclose(colours, expected, atol=0.51)
    assert [len(part) for part in replay.voxels(0, [])[:2]] == [0, 0]


def test_frames_are_decoded_when_asked_for_and_kept_for_a_while(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("demos.view.replay.CACHE_BYTES", 1)  # four frames are kept all the same
    (table / "above_rgb" / "5.png").write_bytes(b"no picture")
    replay = Replay(table, SIGHT)
    decoded: list[int] = []
    view = replay.episode.view
    monkeypatch.setattr(replay.episode, "view", lambda index, *words: decoded.append(index) or view(index, *words))
    for index in (0, 1, 0, 1, 2, 3, 4, 0):
        replay.cloud(index, ["above"])
        replay.voxels(index, ["above"])
    assert decoded == [0, 1, 2, 3, 4, 0]
    with pytest.raises(InputError, match=r"above_rgb/5\.png"):
        replay.cloud(5, ["above"])
    assert len(replay.cloud(5, ["beside"])[0]) == 24 * 24  # the others' pictures are sound


@pytest.mark.parametrize("level", range(5))
def test_every_folder_above_an_episode_is_a_path(table: Path, level: int) -> None:
    assert find_shown([table, *table.parents][level]) == [table]


def test_episodes_come_in_the_order_of_their_numbers(table: Path) -> None:
    data = table.parents[3]
    for name in ("see_table/all_variations/episodes/episode10", "see_table/all_variations/episodes/episode9"):
        shutil.copytree(table, data / name)
    for folder in ("variation10", "variation2"):
        shutil.copytree(table, data / "a_task" / folder / "episodes" / "episode0")
    (data / "see_table/all_variations/episodes/.unfinished-episode3-x").mkdir()
    assert [str(path.relative_to(data)) for path in find_shown(data)] == [
        "a_task/variation2/episodes/episode0",
        "a_task/variation10/episodes/episode0",
        "see_table/all_variations/episodes/episode0",
        "see_table/all_variations/episodes/episode9",
        "see_table/all_variations/episodes/episode10",
    ]


def test_kept_rollouts_are_found_below_a_run_and_an_evaluation(table: Path, tmp_path: Path) -> None:
    rollouts = tmp_path / "run" / "evaluation" / "trained" / "rollouts"
    shutil.copytree(table.parents[3], rollouts)
    kept = rollouts / table.relative_to(table.parents[3])
    goal = [0.2, 0.1, 0.9, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    facts = {"success": False, "failure": "no path", "instruction": "look", "actions": [goal, [0.0] * 9]}
    (kept / "manifield.json").write_text(json.dumps(facts))
    for path in (tmp_path / "run", rollouts.parent, rollouts):
        assert find_shown(path) == [kept]
    assert words.label(kept) == "trained · see_table · episode0 · no path"
    np.testing.assert_array_equal(Replay(kept, SIGHT).goals, [goal])  # one without a direction cannot be drawn
    assert len(Replay(table, SIGHT).goals) == 0
    about = words.about(Replay(kept, SIGHT))
    assert about.index("“look”") < about.index("“look at &lt;the&gt; table”")
    assert "no path" in about and "<the>" not in about


def test_what_cannot_be_shown_is_said_in_one_line(table: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        find_shown(tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds no episode"):
        find_shown(table / "above_rgb")
    with pytest.raises(InputError, match="must lie below"):
        replace(SIGHT, high=(0.0, 0.0, 0.6))
    (table / "manifield.json").write_text("[1")
    assert Replay(table, SIGHT).facts == {}
    (table / "manifield.json").write_text('{"actions": [[1, 2], "x"]}')
    assert len(Replay(table, SIGHT).goals) == 0
    shutil.rmtree(table / "beside_rgb")
    with pytest.raises(InputError, match="beside_rgb"):
        Replay(table, SIGHT)


def test_real_episodes_of_both_schemas(real_data: Path) -> None:
    paths = find_shown(real_data / "rlbench")
    assert {path.parents[2].name for path in paths} == {"open_drawer", "reach_target"}
    for path in (paths[0], paths[-1]):
        replay = Replay(path, replace(SIGHT, spacing=0.004))
        points, _ = replay.cloud(0, replay.episode.cameras)
        heights = np.histogram(points[:, 2], bins=np.arange(0.4, 1.8, 0.01))
        table_top = heights[1][heights[0].argmax()]
        assert abs(table_top - TABLE) < 0.01  # by far the most points lie on the table
        assert "frame" in words.moment(replay, 0) and words.about(replay)
