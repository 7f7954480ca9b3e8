"""Reading and writing RLBench's format: the same things come back, and whatever is wrong is named in one line."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from demos import images
from demos.store import episode_directory, find_episodes, flip_axes, open_episode, write_episode
from demos.unpickle import StoredDemo, dump_pickle, read_pickle
from envs.interface import Observation
from manifield.errors import InputError
from perception.cameras import back_project


def same(a: Observation, b: Observation, depth_step: float = 0.0) -> None:
    """Assert that two observations are equal, depth within a step of its quantisation."""
    for field in dataclasses.fields(Observation):
        if field.name != "cameras":
            np.testing.assert_array_equal(getattr(a, field.name), getattr(b, field.name), err_msg=field.name)
    assert set(a.cameras) == set(b.cameras)
    for camera, view in a.cameras.items():
        for field in dataclasses.fields(view):
            ours, theirs = getattr(view, field.name), getattr(b.cameras[camera], field.name)
            tolerance = depth_step if field.name == "depth" else 0.0
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance, err_msg=f"{camera} {field.name}")
            if field.name != "depth":  # 24 bits do not fit the float32 that a simulator gives
                assert np.asarray(ours).dtype == np.asarray(theirs).dtype, field.name


HALF_STEP = 0.5 * (4.5 - 0.01) / (2**24 - 1) + 2.4e-7  # of 24 bits, and of float32 below 4.5 m


# Writing and reading back


def test_what_is_written_is_read(episode: Path, observation) -> None:
    read = open_episode(episode)
    assert (read.task, read.variation, read.descriptions) == ("open_jar", 3, ["open the jar", "unscrew it"])
    assert (len(read), read.cameras, read.image_size) == (6, ("front", "wrist"), (8, 8))
    for index in range(6):
        same(read.observation(index), observation(index), HALF_STEP)
        assert read.low_dim(index).cameras == {}
    np.testing.assert_array_equal(read.gripper_pose, [observation(i).gripper_pose for i in range(6)])
    np.testing.assert_array_equal(read.joint_velocities, [observation(i).joint_velocities for i in range(6)])
    assert read.gripper_open.tolist() == [1, 1, 1, 0, 0, 0]
    assert read.ignore_collisions is not None and read.ignore_collisions.tolist() == [False, True] * 3


def test_equal_episodes_are_equal_files(tmp_path: Path, episode: Path, observation) -> None:
    shared = observation(0).gripper_pose  # what frames share in memory must not show
    frames = [observation(index) for index in range(6)]
    frames[0].gripper_pose = shared
    again = write_episode(tmp_path / "again" / "episode0", iter(frames), ["open the jar", "unscrew it"], 3)
    files = sorted(path.relative_to(episode) for path in episode.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    assert all((episode / file).read_bytes() == (again / file).read_bytes() for file in files)


def test_real_episode_read_written_and_read(real_data: Path, tmp_path: Path) -> None:
    for source in ("open_drawer/all_variations/episodes/episode0", "reach_target/variation0/episodes/episode0"):
        real = open_episode(real_data / "rlbench" / source)
        chosen = range(0, len(real), 12)
        frames = (real.observation(index) for index in chosen)
        path = episode_directory(tmp_path, real.task, 0)
        ours = open_episode(write_episode(path, frames, real.descriptions, real.variation))
        assert (ours.task, ours.cameras, ours.image_size) == (real.task, real.cameras, real.image_size)
        for ours_index, real_index in enumerate(chosen):
            # A stored depth is a multiple of the step already, so only float32 can move it, by one step at most.
            same(ours.observation(ours_index), real.observation(real_index), 3e-7)


def test_our_pickle_holds_the_same_kinds_of_things_as_rlbench_s(real_data: Path, tmp_path: Path) -> None:
    source = real_data / "rlbench/open_drawer/all_variations/episodes/episode0"
    real = open_episode(source)
    path = write_episode(tmp_path / "episode0", [real.observation(0)], real.descriptions, real.variation)
    for name in ("low_dim_obs.pkl", "variation_number.pkl", "variation_descriptions.pkl"):
        ours, theirs = read_pickle(path / name), read_pickle(source / name)
        if isinstance(theirs, StoredDemo):
            assert list(vars(ours)) == list(vars(theirs))
            assert [type(x) for x in ours.random_seed] == [type(x) for x in theirs.random_seed]
            assert ours.random_seed[1].shape == theirs.random_seed[1].shape
            assert ours.random_seed[1].dtype == theirs.random_seed[1].dtype
            ours, theirs = vars(ours._observations[0]), vars(theirs._observations[0])
            assert list(ours) == list(theirs)
            assert set(ours["misc"]) == set(theirs["misc"])
            ours, theirs = ours | ours.pop("misc"), theirs | theirs.pop("misc")
            for key, value in theirs.items():
                assert type(ours[key]) is type(value), key
                assert np.shape(ours[key]) == np.shape(value), key
                if value is not None:
                    assert np.asarray(ours[key]).dtype == np.asarray(value).dtype, key
                    np.testing.assert_allclose(ours[key], value, atol=1e-6, err_msg=key)
        else:
            assert ours == theirs


def test_masks_are_optional(tmp_path: Path, observation) -> None:
    frame = observation(0)
    for view in frame.cameras.values():
        view.mask = None
    read = open_episode(write_episode(tmp_path / "episode0", [frame], ["do"], 0)).observation(0)
    assert all(view.mask is None for view in read.cameras.values())


def test_without_cameras(tmp_path: Path, observation) -> None:
    read = open_episode(write_episode(tmp_path / "episode0", [observation(0, cameras=())], ["do"], 0))
    assert read.cameras == () and read.observation(0).cameras == {}
    with pytest.raises(InputError, match="no pictures"):
        _ = read.image_size


def test_chosen_cameras_only(episode: Path) -> None:
    assert list(open_episode(episode).observation(2, ["wrist"]).cameras) == ["wrist"]


def test_opening_decodes_no_picture(episode: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "read_rgb", lambda *_: pytest.fail("a picture was decoded"))
    read = open_episode(episode)
    _ = (
        read.gripper_pose,
        read.gripper_open,
        read.joint_velocities,
        read.ignore_collisions,
        read.image_size,
        read.low_dim(0),
    )


def test_negative_frames_count_from_the_end(episode: Path) -> None:
    read = open_episode(episode)
    same(read.observation(-1), read.observation(5))
    with pytest.raises(IndexError):
        read.observation(6)


# Camera conventions


@given(st.integers(0, 2**32 - 1))
def test_flipped_axes_see_the_same_points(seed: int) -> None:
    rng = np.random.default_rng(seed)
    intrinsics = np.array(
        [[-rng.uniform(5, 20), 0, rng.uniform(1, 3)], [0, -rng.uniform(5, 20), rng.uniform(1, 3)], [0, 0, 1]]
    )
    extrinsics = np.eye(4)
    extrinsics[:3, :3] = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    extrinsics[:3, 3] = rng.normal(size=3)
    depth = rng.uniform(0.1, 4, (4, 5)).astype(np.float32)
    upright, T_world_camera = flip_axes(intrinsics, extrinsics)
    assert upright[0, 0] > 0 and upright[1, 1] > 0
    ours = back_project(depth, upright, T_world_camera)
    theirs = back_project(
        depth, intrinsics, extrinsics
    )  # RLBench's formula is the same, with its negative focal lengths
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    again = flip_axes(upright, T_world_camera)  # OpenCV's axes stay
    np.testing.assert_array_equal(again[0], upright)
    np.testing.assert_array_equal(again[1], T_world_camera)


def test_the_floor_of_a_real_scene_is_at_zero(real_data: Path) -> None:
    read = open_episode(real_data / "rlbench/open_drawer/all_variations/episodes/episode0")
    heights = []
    for view in read.observation(0).cameras.values():
        assert (np.diag(view.intrinsics) > 0).all()
        np.testing.assert_allclose(view.T_world_camera[:3, :3].T @ view.T_world_camera[:3, :3], np.eye(3), atol=1e-6)
        heights.append(back_project(view.depth, view.intrinsics, view.T_world_camera)[..., 2].ravel())
    floor = np.concatenate(heights)
    floor = floor[np.abs(floor) < 0.01]
    assert len(floor) > 100 and abs(np.median(floor)) < 1e-3


# Finding


def test_episodes_in_natural_order_of_both_layouts(tmp_path: Path, episode: Path) -> None:
    wanted = []
    for name in (
        "a_task/variation2/episodes/episode0",
        "a_task/variation10/episodes/episode9",
        "a_task/variation10/episodes/episode10",
    ):
        shutil.copytree(episode, tmp_path / name)
        wanted.append(tmp_path / name)
    (tmp_path / "open_jar/all_variations/episodes/.unfinished-episode1-x").mkdir()
    (tmp_path / "open_jar/all_variations/episodes/episode1.bak").mkdir()
    (tmp_path / "a_task/variation2/episodes/episodes.txt").touch()
    assert find_episodes(tmp_path) == [*wanted, episode]
    assert find_episodes(str(tmp_path), "open_jar") == [episode]


def test_nothing_to_find(tmp_path: Path, episode: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        find_episodes(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: holds no episode; expected ROOT/TASK"):
        find_episodes(tmp_path / "empty")
    with pytest.raises(InputError, match="unknown task .*'open_jra': did you mean open_jar"):
        find_episodes(tmp_path, "open_jra")


def test_variation_and_descriptions_one_level_up(tmp_path: Path, episode: Path) -> None:
    moved = tmp_path / "old_task/variation7/episodes/episode0"
    shutil.copytree(episode, moved)
    (moved / "variation_number.pkl").unlink()
    (moved / "variation_descriptions.pkl").rename(moved.parents[1] / "variation_descriptions.pkl")
    read = open_episode(moved)
    assert (read.variation, read.task, read.descriptions) == (7, "old_task", ["open the jar", "unscrew it"])


def test_old_schema(real_data: Path) -> None:
    read = open_episode(real_data / "rlbench/reach_target/variation0/episodes/episode0")
    assert (read.variation, len(read), read.ignore_collisions) == (0, 70, None)
    assert read.low_dim(3).ignore_collisions is None
    assert read.descriptions == ["reach target"]  # its file wrongly holds an observation


# Damage: each in one line that names the file


def damage(episode: Path, change) -> None:
    """Rewrite the low-dimensional file with `change(observations)` applied."""
    demo = read_pickle(episode / "low_dim_obs.pkl")
    change(demo._observations)
    for frame in demo._observations:
        for key, value in vars(frame).items():
            frame.__dict__[key] = np.asarray(value) if isinstance(value, np.ndarray) else value
        frame.misc = {k: np.asarray(v) if isinstance(v, np.ndarray) else v for k, v in (frame.misc or {}).items()}
    demo.random_seed = None
    (episode / "low_dim_obs.pkl").write_bytes(dump_pickle(demo))


def set_field(name: str, value):
    return lambda frames: vars(frames[2]).update({name: value})


DAMAGES = {
    "no episode": (lambda e: shutil.rmtree(e), "episode0: no such episode"),
    "no low_dim": (lambda e: (e / "low_dim_obs.pkl").unlink(), "low_dim_obs.pkl: no such file"),
    "cut low_dim": (
        lambda e: (e / "low_dim_obs.pkl").write_bytes((e / "low_dim_obs.pkl").read_bytes()[:-99]),
        "low_dim_obs.pkl: corrupt or truncated pickle",
    ),
    "no demo": (
        lambda e: (e / "low_dim_obs.pkl").write_bytes(dump_pickle([1, 2])),
        "low_dim_obs.pkl: is not a pickled",
    ),
    "no frames": (lambda e: (e / "low_dim_obs.pkl").write_bytes(dump_pickle([])), "low_dim_obs.pkl: holds no frame"),
    "cut picture": (
        lambda e: (e / "front_rgb/2.png").write_bytes((e / "front_rgb/2.png").read_bytes()[:60]),
        "front_rgb/2.png: truncated or not a PNG picture",
    ),
    "empty picture": (lambda e: (e / "wrist_depth/2.png").write_bytes(b""), "wrist_depth/2.png: truncated or not"),
    "missing picture": (
        lambda e: (e / "front_depth/4.png").unlink(),
        r"front_depth: 5 pictures for 6 frames \(missing or too many: 4.png\)",
    ),
    "too many pictures": (
        lambda e: shutil.copy(e / "front_mask/4.png", e / "front_mask/6.png"),
        r"front_mask: 7 pictures for 6 frames \(missing or too many: 6.png\)",
    ),
    "no depth": (lambda e: shutil.rmtree(e / "front_depth"), "front_depth: no pictures of this kind"),
    "other size": (
        lambda e: Image.new("RGB", (4, 4)).save(e / "wrist_rgb/2.png"),
        "wrist_rgb/2.png: picture of 4x4, but the episode's are 8x8",
    ),
    "all of other size": (
        lambda e: [Image.new("RGB", (64, 64)).save(path) for path in e.rglob("*.png")],
        r"front_rgb/2.png: 64x64 pictures, but the camera's centre is at \(3.5, 4\): resized",
    ),
    "grey": (lambda e: Image.new("L", (8, 8)).save(e / "wrist_rgb/2.png"), "wrist_rgb/2.png: picture of mode L"),
    "not finite": (
        lambda e: damage(e, set_field("gripper_pose", np.full(7, np.nan))),
        "low_dim_obs.pkl: frame 2 has a value in gripper_pose that is not finite",
    ),
    "no pose": (lambda e: damage(e, set_field("gripper_pose", None)), "frame 2 has no gripper_pose"),
    "short pose": (
        lambda e: damage(e, set_field("gripper_pose", np.zeros(3))),
        "frame 2 has 3 numbers in gripper_pose",
    ),
    "text pose": (lambda e: damage(e, set_field("gripper_pose", "here")), "frame 2 has no numbers in gripper_pose"),
    "no calibration": (lambda e: damage(e, set_field("misc", {})), "frame 2 has no calibration of camera 'front'"),
    "bad calibration": (
        lambda e: damage(e, lambda f: f[2].misc.update(front_camera_intrinsics=np.zeros(3))),
        "frame 2 has a calibration of wrong shape for camera 'front'",
    ),
    "nan calibration": (
        lambda e: damage(e, lambda f: f[2].misc.update(front_camera_far=np.nan)),
        "frame 2 has a calibration that is not finite for camera 'front'",
    ),
    "odd variation": (
        lambda e: (e / "variation_number.pkl").write_bytes(dump_pickle("two")),
        "variation_number.pkl: holds no variation's number",
    ),
    "odd descriptions": (
        lambda e: (e / "variation_descriptions.pkl").write_bytes(b"cos\nsystem\n."),
        "variation_descriptions.pkl: refused",
    ),
}


@pytest.mark.parametrize(("hurt", "message"), DAMAGES.values(), ids=DAMAGES.keys())
def test_damage_is_named_in_one_line(episode: Path, hurt, message: str) -> None:
    hurt(episode)
    with pytest.raises(InputError, match=message) as caught:
        read = open_episode(episode)
        _ = read.gripper_pose
        read.observation(2)
    assert str(episode) in str(caught.value) and "\n" not in str(caught.value)


def test_a_camera_that_is_not_there(episode: Path) -> None:
    with pytest.raises(InputError, match="no camera 'overhead'; present: front, wrist"):
        open_episode(episode).observation(0, ["overhead"])


def test_folders_of_cameras_that_were_off_are_no_cameras(episode: Path) -> None:
    for kind in ("rgb", "depth", "mask"):
        (episode / f"overhead_{kind}").mkdir()
    assert open_episode(episode).cameras == ("front", "wrist")
