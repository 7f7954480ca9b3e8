"""Pictures against geometry that is known exactly."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from envs.mujoco.cameras import RLBENCH_CAMERAS, CameraMount
from envs.mujoco.rendering import Renderer
from envs.mujoco.scene import TABLE_HEIGHT, box, free_cube
from manifield.errors import InputError
from perception.cameras import back_project, project

CUBE = np.array([0.35, -0.2, TABLE_HEIGHT + 0.05])
HALF = 0.05
COLOR = (0.0, 0.2, 1.0)


@pytest.fixture
def cube_scene(simulate):
    """A blue cube on the table, drawn at 128 x 128 with masks: (simulation, renderer)."""
    simulation = simulate(lambda spec: box(spec.worldbody, [HALF] * 3, CUBE, COLOR, name="cube"))
    renderer = Renderer(128, with_masks=True)
    renderer.load(simulation, RLBENCH_CAMERAS)
    yield simulation, renderer
    renderer.close()


def interior(mask: np.ndarray) -> np.ndarray:
    """Pixels whose whole 3 x 3 neighbourhood is set."""
    padded = np.pad(mask, 1)
    shifted = [padded[i : i + mask.shape[0], j : j + mask.shape[1]] for i in range(3) for j in range(3)]
    return np.logical_and.reduce(shifted)


def test_shapes_types_and_poses(cube_scene):
    _, renderer = cube_scene
    for name, mount in RLBENCH_CAMERAS.items():
        view = renderer.view(name)
        assert view.rgb.shape == (128, 128, 3) and view.rgb.dtype == np.uint8
        assert view.depth.shape == (128, 128) and view.depth.dtype == np.float32
        assert view.mask.shape == (128, 128) and view.mask.dtype == np.int32
        assert view.near < view.depth.min() and view.depth.max() <= np.float32(view.far)
        rotation = view.T_world_camera[:3, :3]
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-6)
        assert np.linalg.det(rotation) == pytest.approx(1.0)
        if mount.body == "world":
            np.testing.assert_allclose(view.T_world_camera, mount.T_body_camera, atol=1e-6)


def test_focal_lengths_are_rlbenchs(cube_scene):
    _, renderer = cube_scene
    assert renderer.view("front").intrinsics[0, 0] == pytest.approx(175.8386, abs=1e-3)
    assert renderer.view("wrist").intrinsics[0, 0] == pytest.approx(110.8512, abs=1e-3)


def test_fused_table_top(cube_scene):
    simulation, renderer = cube_scene
    table = simulation.model.geom("table").id
    heights = []
    for name in RLBENCH_CAMERAS:
        view = renderer.view(name)
        points = back_project(view.depth, view.intrinsics, view.T_world_camera)
        on_top = interior(view.mask == table) & (points[..., 2] > TABLE_HEIGHT - 0.01)
        heights.append(points[on_top][:, 2])
        assert len(heights[-1]) > 100, name
    assert np.abs(np.concatenate(heights) - TABLE_HEIGHT).max() < 1e-4


def cast_depth(simulation, view) -> tuple[np.ndarray, np.ndarray]:
    """What rays through the middles of all pixels meet: depth (metres along the camera's z, inf for nothing) and geom.

    Rays meet everything that is drawn, also what nothing can collide with.
    """
    height, width = view.depth.shape
    rows, columns = np.indices((height, width))
    pixels = np.stack([columns.ravel(), rows.ravel(), np.ones(height * width)])
    rays = (view.T_world_camera[:3, :3] @ np.linalg.solve(view.intrinsics, pixels)).T
    normal = [np.zeros(3)] if "normal" in str(mujoco.mj_ray.__doc__).split("\n")[0] else []  # new in MuJoCo 3.4
    position, geom = view.T_world_camera[:3, 3].copy(), np.zeros(1, np.int32)
    depths, geoms = np.full(len(rays), np.inf), np.full(len(rays), -1)
    for k, ray in enumerate(rays):  # of depth 1, so that the multiple of it is the depth
        depth = mujoco.mj_ray(simulation.model, simulation.data, position, ray, None, 1, -1, geom, *normal)
        if depth >= 0:
            depths[k], geoms[k] = depth, geom[0]
    return depths.reshape(height, width), geoms.reshape(height, width)


@pytest.mark.parametrize("name", RLBENCH_CAMERAS)
def test_depth_agrees_with_ray_casts(cube_scene, name):
    """0.1 mm on flat faces, 2 mm on round ones, which are drawn as many-sided.

    Left out is what the camera does not measure (beyond its far plane) and silhouettes: pixels with another geom
    beside them, where a picture that is a fraction of a pixel off shows that one.
    """
    simulation, renderer = cube_scene
    view = renderer.view(name)
    depth, geom = cast_depth(simulation, view)
    inner = np.logical_or.reduce([interior(geom == shown) for shown in np.unique(geom)])
    assert inner.mean() > 0.85  # 3 x 3 neighbourhoods: about twice the outline's length in pixels is lost
    seen = inner & (depth < view.far)
    error = np.abs(view.depth - depth)
    is_flat = np.isin(simulation.model.geom_type, [int(mujoco.mjtGeom.mjGEOM_PLANE), int(mujoco.mjtGeom.mjGEOM_BOX)])
    flat, rounded = seen & is_flat[geom], seen & ~is_flat[geom]
    assert flat.sum() > 5000
    assert rounded.sum() > 500 or name == "wrist"  # which sees the table, the cube and the fingers
    assert error[flat].max() < 1e-4
    assert error[rounded].max(initial=0.0) < 2e-3


def test_fused_cloud_of_a_cube_lies_on_its_faces(simulate):
    """In the middle of the table, where all five cameras see it."""
    centre = np.array([0.3, 0.0, TABLE_HEIGHT + HALF])
    simulation = simulate(lambda spec: box(spec.worldbody, [HALF] * 3, centre, COLOR, name="cube"))
    renderer = Renderer(128, with_masks=True)
    renderer.load(simulation, RLBENCH_CAMERAS)
    cube = simulation.model.geom("cube").id
    points = []
    for name in RLBENCH_CAMERAS:
        view = renderer.view(name)
        points.append(back_project(view.depth, view.intrinsics, view.T_world_camera)[interior(view.mask == cube)])
        assert len(points[-1]) > 50, name
    renderer.close()
    offsets = np.abs(np.concatenate(points) - centre).max(axis=1)  # 0 in the middle, HALF on any face
    assert np.abs(offsets - HALF).max() < 2e-3


def test_projection_lands_on_the_cubes_pixels(cube_scene):
    simulation, renderer = cube_scene
    cube = simulation.model.geom("cube").id
    for name in ("front", "overhead"):
        view = renderer.view(name)
        uv, depth = project(CUBE + [0, 0, HALF], view.intrinsics, view.T_world_camera)
        column, row = np.rint(uv).astype(int)
        red, _, blue = view.rgb[row, column].astype(int)
        assert view.mask[row, column] == cube and blue > red + 60
        assert view.depth[row, column] == pytest.approx(depth, abs=5e-3)
        # The silhouette's bounding box is that of the projected corners, to the pixel.
        signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
        corners, _ = project(CUBE + HALF * signs, view.intrinsics, view.T_world_camera)
        rows, columns = np.nonzero(view.mask == cube)
        seen = np.array([columns.min(), rows.min(), columns.max(), rows.max()])
        expected = np.concatenate([corners.min(axis=0), corners.max(axis=0)])
        assert np.abs(seen - expected).max() < 1.0, (name, seen, expected)


def test_sky_is_clamped_to_far(cube_scene):
    _, renderer = cube_scene
    view = renderer.view("front")
    assert view.mask[0, 0] == -1
    assert view.depth[0, 0] == np.float32(view.far)


def test_wrist_camera_is_rlbenchs(simulate):
    """Relative to the tool as in RLBench's start pose: 5 cm in front of it, 9 cm up, looking along the fingers."""
    simulation = simulate()
    renderer = Renderer(16)
    renderer.load(simulation, RLBENCH_CAMERAS)
    T_world_camera = renderer.view("wrist").T_world_camera
    renderer.close()
    position, rotation = simulation.tool_pose()
    in_tool = rotation.T @ (T_world_camera[:3, 3] - position)
    np.testing.assert_allclose(in_tool, [-0.050, 0.002, -0.092], atol=1e-3)
    assert T_world_camera[:3, 2] @ rotation[:, 2] > 0.99
    np.testing.assert_allclose(T_world_camera[:3, 0], -rotation[:, 1], atol=1e-3)  # picture's right: world's -y


def test_turning_to_another_scene_keeps_pictures_exact(simulate):
    """One graphics context serves scenes that differ; a fresh one draws the same."""

    def with_cube(spec):
        free_cube(spec, "cube", CUBE, HALF, COLOR)

    reused, fresh = Renderer(64), Renderer(64)
    reused.load(simulate(), RLBENCH_CAMERAS)
    empty = reused.view("front").rgb
    reused.load(simulate(with_cube), RLBENCH_CAMERAS)
    fresh.load(simulate(with_cube), RLBENCH_CAMERAS)
    np.testing.assert_array_equal(reused.view("front").rgb, fresh.view("front").rgb)
    np.testing.assert_array_equal(reused.view("front").depth, fresh.view("front").depth)
    assert (reused.view("front").rgb != empty).any()
    reused.close()
    reused.close()
    fresh.close()


def test_looking_at_puts_the_target_in_the_middle(simulate):
    target = np.array([0.2, 0.1, 0.9])
    mount = CameraMount.looking_at(np.array([1.0, -0.7, 1.6]), target)
    uv, _ = project(target, np.array([[100.0, 0, 63.5], [0, 100.0, 63.5], [0, 0, 1]]), mount.T_body_camera)
    np.testing.assert_allclose(uv, [63.5, 63.5], atol=1e-9)
    assert mount.T_body_camera[2, 1] < 0  # picture's down is the world's down


def test_size_out_of_range():
    with pytest.raises(InputError, match="image_size 5000"):
        Renderer(5000)
