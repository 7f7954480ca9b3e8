"""Extra views: where they stand, what they show, and their files."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from demos import images
from demos.field_views import DEPTH_BITS, write_field_views
from demos.keyframes import find_keyframes
from demos.record import record_episode
from demos.store import open_episode, write_episode
from demos.viewpoints import TARGET, FieldViewPlan
from envs.interface import CameraView
from envs.mujoco.environment import MujocoEnvironment
from manifield.configuration import compose
from manifield.errors import InputError
from perception.cameras import back_project, intrinsics_from_fov, look_at, project

CONFIG = OmegaConf.to_container(compose("collect").field_views) | {"count": 20}


def plan(**changes) -> FieldViewPlan:
    made = FieldViewPlan.from_config(CONFIG | changes)
    assert made is not None
    return made


# Where they stand


@pytest.mark.parametrize("layout", ["arc", "hemisphere"])
def test_viewpoints_surround_the_workspace(layout: str) -> None:
    viewpoints = plan(layout=layout).viewpoints(seed=5, frame=40)
    poses = np.stack([viewpoint.T_world_camera for viewpoint in viewpoints])
    offsets = poses[:, :3, 3] - TARGET
    np.testing.assert_allclose(np.linalg.norm(offsets, axis=1), 1.3)
    assert (poses[:, 2, 3] >= 1.0).all() and (poses[:, 2, 3] <= 1.9).all()
    np.testing.assert_allclose(poses[:, :3, 2], -offsets / 1.3, atol=1e-9)  # they look at the middle
    fovs = np.degrees([viewpoint.fov for viewpoint in viewpoints])
    assert (fovs >= 45).all() and (fovs <= 60).all() and len(set(fovs)) == 20
    azimuths = np.degrees(np.arctan2(offsets[:, 1], offsets[:, 0]))
    if layout == "arc":
        assert (np.diff(azimuths) > 0).all() and np.abs(azimuths).max() <= 100 and np.abs(azimuths).max() > 90
    else:
        assert np.diff(np.sort(azimuths)).max() < 60, "no side is left out"


def test_viewpoints_are_a_function_of_scene_and_frame() -> None:
    def places(seed: int, frame: int) -> np.ndarray:
        return np.stack([viewpoint.T_world_camera for viewpoint in plan().viewpoints(seed, frame)])

    np.testing.assert_array_equal(places(3, 0), places(3, 0))
    assert (places(3, 0) != places(3, 1)).any() and (places(3, 0) != places(4, 0)).any()


def test_no_views_no_plan() -> None:
    assert FieldViewPlan.from_config(CONFIG | {"count": 0}) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": -1}, "field_views.count=-1: give a number"),
        ({"layout": "arch"}, "unknown field_views.layout 'arch': did you mean arc"),
        ({"frames": "all"}, "field_views.frames=all: give keyframes, or a number k"),
        ({"frames": 0}, "field_views.frames=0"),
        ({"radius": 0.0}, "field_views.radius=0.0"),
        ({"height": [1.0, 2.5]}, r"field_views.height=\[1,2.5\]: give heights from 0 to 2.3 m"),
        ({"height": [1.5, 1.0]}, r"field_views.height=\[1.5, 1.0\]: give the lowest and the highest"),
        ({"fov": [45.0]}, r"field_views.fov=\[45.0\]: give the lowest and the highest"),
        ({"fov": [0.0, 60.0]}, r"field_views.fov=\[0,60\]: give degrees"),
        ({"image_size": 2000}, "field_views.image_size=2000"),
    ],
)
def test_plans_that_mean_nothing(changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan(**changes)


def test_every_key_frame_may_be_wanted(observation) -> None:
    """Whatever the motion: what is wanted in the end was drawn on the way."""
    for seed in range(200):
        rng = np.random.default_rng(seed)
        length = int(rng.integers(2, 30))
        speeds = rng.choice([0.0, 0.05, 0.1, 0.11, 1.0], (length, 7), p=[0.3, 0.3, 0.3, 0.05, 0.05])
        gripper = np.cumsum(rng.random(length) < 0.2) % 2
        frames = [
            dataclasses.replace(observation(0), joint_velocities=v, gripper_open=g)
            for v, g in zip(speeds, gripper, strict=True)
        ]
        drawn = {n - 1 for n in range(1, length + 1) if plan().may_want(frames[:n], complete=n == length)}
        assert set(plan().wanted(find_keyframes(speeds, gripper), length)) <= drawn


# What they show


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A demonstration of the embedded simulator with field views, on disk."""
    environment = MujocoEnvironment("push_buttons", cameras=("front",), image_size=64)
    recording, _ = record_episode(environment, 0, 1, 1, plan=plan(count=6, layout="hemisphere"))
    assert recording is not None
    path = tmp_path_factory.mktemp("data") / "push_buttons/all_variations/episodes/episode1"
    write_episode(path, recording.observations, ["push"], 0, recording.facts, recording.field_views)
    yield open_episode(path), recording
    environment.close()


def test_what_is_recorded_is_read(recorded) -> None:
    episode, recording = recorded
    assert episode.field_frames == (0, *recording.facts["keyframes"]) == tuple(recording.facts["field_views"]["frames"])
    for frame in episode.field_frames:
        read, drawn = episode.field_views(frame), recording.field_views[frame]
        assert len(read) == len(drawn) == 6
        for ours, theirs in zip(read, drawn, strict=True):
            np.testing.assert_array_equal(ours.rgb, theirs.rgb)
            np.testing.assert_allclose(ours.depth, theirs.depth, atol=0.5 * 9.99 / 2**DEPTH_BITS + 1e-6)
            np.testing.assert_allclose(ours.T_world_camera, theirs.T_world_camera, atol=1e-9)
            np.testing.assert_allclose(ours.intrinsics, theirs.intrinsics, atol=1e-7)
            assert (np.diag(ours.intrinsics) > 0).all()


def test_the_table_lies_where_it_lies(recorded) -> None:
    episode, _ = recorded
    for frame in episode.field_frames:
        for view in episode.field_views(frame):
            points = back_project(view.depth, view.intrinsics, view.T_world_camera)
            # Beside the workspace, where nothing stands, and short of the table's edges.
            x, y, z = np.moveaxis(points, -1, 0)
            table = points[(x > -0.2) & (x < 0.75) & (np.abs(y) > 0.45) & (np.abs(y) < 0.74) & (z > 0.7) & (z < 0.8)]
            assert len(table) > 100
            assert np.abs(table[:, 2] - 0.752).max() < 0.002


def test_a_coloured_thing_has_its_pixel() -> None:
    environment = MujocoEnvironment("push_buttons", cameras=(), image_size=64)
    environment.reset(7, 1)
    simulation = environment.simulation
    names = [f"plate{i}" for i in range(3)]
    drawn = plan(count=12, layout="arc", height=[1.6, 1.9]).viewpoints(7, 0)
    seen = 0
    for view in environment.draw(drawn):
        for name in names:
            centre = simulation.data.geom(name).xpos + [0, 0, simulation.model.geom(name).size[1]]
            (u, v), depth = project(centre, view.intrinsics, view.T_world_camera)
            if not (0 <= round(u) < 128 and 0 <= round(v) < 128):
                continue
            if abs(view.depth[round(v), round(u)] - depth) < 0.004:  # not hidden by the arm
                seen += 1
                red, green, blue = view.rgb[round(v), round(u)].astype(int)
                assert red > 2 * max(green, blue), "a plate at rest is red"
    assert seen > 10
    environment.close()


def test_drawing_disturbs_nothing() -> None:
    def states(draw: bool) -> list[np.ndarray]:
        environment = MujocoEnvironment("push_buttons", cameras=("front",), image_size=32)
        environment.reset(3, 1)
        found: list[np.ndarray] = []

        def keep(observation) -> None:
            found.extend(
                [observation.joint_positions, observation.cameras["front"].rgb, observation.cameras["front"].depth]
            )
            if draw:
                environment.draw(plan(count=2, image_size=24).viewpoints(3, len(found)))

        for action in environment.expert():
            environment.step(action, keep)
        environment.close()
        return found

    for without, with_views in zip(states(False), states(True), strict=True):
        np.testing.assert_array_equal(without, with_views)


def test_a_drawn_view_equals_that_of_a_camera_in_its_place() -> None:
    environment = MujocoEnvironment("push_buttons", cameras=("front", "wrist"), image_size=64)
    start = environment.reset(3, 1).observation
    for name, fov in (("front", 40.0), ("wrist", 60.0)):
        view = start.cameras[name]
        viewpoint = plan().viewpoints(0, 0)[0]
        again = dataclasses.replace(
            viewpoint, T_world_camera=view.T_world_camera, fov=np.radians(fov), size=64, near=view.near, far=view.far
        )
        (drawn,) = environment.draw([again])
        for field in dataclasses.fields(CameraView):
            if field.name != "mask":
                np.testing.assert_array_equal(getattr(drawn, field.name), getattr(view, field.name), err_msg=field.name)
    environment.close()


# Their files


def made_up(size: int = 8) -> CameraView:
    rng = np.random.default_rng(0)
    pose = look_at(np.array([1.0, 0.5, 1.5]), TARGET)
    rgb = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
    return CameraView(rgb, rng.uniform(0.5, 3.0, (size, size)), intrinsics_from_fov(1.0, size, size), pose)


def test_files_are_those_of_gnfactor(tmp_path: Path) -> None:
    view = made_up()
    write_field_views(tmp_path, 12, [view, view])
    names = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert names == {
        f"nerf_data/12/{kind}/{number}.{suffix}"
        for kind, suffix in (("images", "png"), ("depths", "png"), ("poses", "txt"))
        for number in (0, 1)
    }
    lines = (tmp_path / "nerf_data/12/poses/1.txt").read_text().split("\n")
    assert [len(line.split()) for line in lines] == [4, 4, 4, 4, 0, 3, 3, 3, 0]
    extrinsics = np.array([line.split() for line in lines[:4]], float)
    intrinsics = np.array([line.split() for line in lines[5:8]], float)
    assert intrinsics[0, 0] < 0 and intrinsics[1, 1] < 0
    # RLBench's rule: a pixel's point is depth * ((u - cx) / fx, (v - cy) / fy, 1), then camera to world.
    theirs = back_project(view.depth, intrinsics, extrinsics)
    np.testing.assert_allclose(theirs, back_project(view.depth, view.intrinsics, view.T_world_camera), atol=1e-6)
    stored = images.read_rgb(tmp_path / "nerf_data/12/depths/0.png").astype(int) @ [65536, 256, 1] / (2**24 - 1)
    np.testing.assert_allclose(0.01 + stored * 9.99, view.depth, atol=0.5 * 9.99 / 2**DEPTH_BITS + 1e-6)


def gnfactor_pose(path: Path) -> None:
    """A pose as GNFactor's recorder writes it: six digits, a blank at the end of every line."""
    extrinsics = np.eye(4)
    extrinsics[:3, 3] = [1.35, 0.0, 1.58]
    intrinsics = np.array([[-110.851252, 0, 64], [0, -110.851252, 64], [0, 0, 1]])
    path.write_text(
        "".join("".join(f"{x:.6f} " for x in row) + "\n" for row in extrinsics)
        + "\n"
        + "".join("".join(f"{x:.6f} " for x in row) + "\n" for row in intrinsics)
    )


def test_gnfactor_s_own_files_are_read(tmp_path: Path, observation) -> None:
    path = write_episode(tmp_path / "episode0", [observation(0)], ["do"], 0)
    for kind in ("images", "depths", "poses"):
        (path / "nerf_data/0" / kind).mkdir(parents=True)
    for number in range(11):  # 10 comes after 9
        colour = np.full((128, 128, 3), number, np.uint8)
        (path / f"nerf_data/0/images/{number}.png").write_bytes(images.encode_rgb(colour))
        (path / f"nerf_data/0/depths/{number}.png").write_bytes(images.encode_depth(np.ones((128, 128)), 0.01, 10))
        gnfactor_pose(path / f"nerf_data/0/poses/{number}.txt")
    (path / "nerf_data/0/description.txt").write_text("open the drawer\n")
    views = open_episode(path).field_views(0)
    assert [int(view.rgb[0, 0, 0]) for view in views] == list(range(11))
    assert views[0].intrinsics[0, 0] == views[0].intrinsics[1, 1] == 110.851252
    np.testing.assert_array_equal(np.diag(views[0].T_world_camera), [-1, -1, 1, 1])
    np.testing.assert_allclose(views[0].depth, 1.0, atol=1e-6)


DAMAGES = {
    "picture": (lambda f: (f / "images/1.png").write_bytes(b"x"), r"images/1\.png: truncated or not a PNG"),
    "no depth": (lambda f: (f / "depths/1.png").unlink(), r"nerf_data/3/depths: 1 views, but 2 pictures; restore"),
    "size": (
        lambda f: (f / "depths/1.png").write_bytes(images.encode_depth(np.ones((4, 4)), 0.01, 10)),
        r"depths/1\.png: picture of 4x4, but the episode's are 8x8",
    ),
    "pose": (lambda f: (f / "poses/0.txt").write_text("1 2 3"), r"poses/0\.txt: missing, or not 4 rows"),
    "nan": (lambda f: (f / "poses/0.txt").write_text("nan " * 25), r"poses/0\.txt: missing, or not 4 rows"),
    "scaled": (
        lambda f: [
            (f / kind / "0.png").write_bytes(images.encode_rgb(np.zeros((64, 64, 3), np.uint8)))
            for kind in ("images", "depths")
        ],
        r"images/0\.png: 64x64 pictures, but the camera's centre is at \(3.5, 3.5\): resized",
    ),
    "empty": (lambda f: [path.unlink() for path in f.rglob("*.*")], r"images: 0 views, but 0 pictures"),
}


@pytest.mark.parametrize(("hurt", "message"), DAMAGES.values(), ids=DAMAGES.keys())
def test_damage_is_named_in_one_line(episode: Path, hurt, message: str) -> None:
    write_field_views(episode, 3, [made_up(), made_up()])
    hurt(episode / "nerf_data/3")
    with pytest.raises(InputError, match=message) as caught:
        open_episode(episode).field_views(3)
    assert "\n" not in str(caught.value)


def test_frames_without_views_are_named(episode: Path) -> None:
    assert open_episode(episode).field_frames == ()
    with pytest.raises(InputError, match="frame 2 has no field views; frames that have: none"):
        open_episode(episode).field_views(2)
    write_field_views(episode, 3, [made_up()])
    write_field_views(episode, 0, [made_up()])
    with pytest.raises(InputError, match="frame 5 has no field views; frames that have: 0, 3"):
        open_episode(episode).field_views(-1)
    write_field_views(episode, 6, [made_up()])
    with pytest.raises(InputError, match="field views of frame 6, but 6 frames"):
        _ = open_episode(episode).field_frames


def test_views_that_do_not_fit_are_refused_and_leave_nothing(tmp_path: Path, observation) -> None:
    bad = dataclasses.replace(made_up(), depth=np.full((8, 8), np.nan))
    for views, message in (({0: [bad]}, "episode0: frame 0, field view 0: depth is nan"), ({7: []}, "frame 7, but 1")):
        with pytest.raises(InputError, match=message):
            write_episode(tmp_path / "episode0", [observation(0)], ["do"], 0, field_views=views)
        assert not list(tmp_path.iterdir())
