"""Switches change what they say, and nothing else."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from envs.colors import COLORS
from envs.make import make_environment as make_from_config
from envs.mujoco import distractors
from envs.mujoco.cameras import RLBENCH_CAMERAS
from envs.mujoco.rendering import Renderer
from envs.mujoco.scene import TABLE_HEIGHT
from envs.mujoco.tasks.open_drawer import OpenDrawer
from envs.mujoco.tasks.push_buttons import PushButtons
from envs.mujoco.tasks.slide_block_to_color_target import TARGETS, SlideBlockToColorTarget
from envs.mujoco.unseen import SETTINGS
from manifield.configuration import CONFIGS
from manifield.errors import InputError
from perception.cameras import back_project

SLIDE = "slide_block_to_color_target"
LOOKS = ("background", "camera_pose", "light", "object_color", "object_texture", "table_color", "table_texture")


@pytest.fixture
def recolorable_block(monkeypatch):
    monkeypatch.setattr(SlideBlockToColorTarget, "recolorable", ("block",))


def test_scenes_are_plain_without_switches(make_environment):
    environment = make_environment(SLIDE)
    environment.reset(0, 0)
    model = environment.simulation.model
    shown = {model.material(i).name for i in model.geom_matid if i >= 0}
    assert shown == {"white", "grey", "dark"}  # the robot's
    assert not [body for body in range(model.nbody) if "distractor" in model.body(body).name]


def test_looks_change_pictures(make_environment, recolorable_block):
    renderer = Renderer(64)

    def see(*unseen):
        environment = make_environment(SLIDE, unseen=unseen)
        told = environment.reset(3, 1).descriptions
        renderer.load(environment.simulation, RLBENCH_CAMERAS)
        return renderer.view("front"), told

    usual, told = see()
    for switch in LOOKS:
        other, told_now = see(switch)
        assert told_now == told
        assert (other.rgb != usual.rgb).any(axis=-1).sum() > 10, switch
        assert (other.depth == usual.depth).all() == (switch != "camera_pose")
    renderer.close()


def test_looks_change_no_motion(make_environment, recolorable_block):
    usual, other = make_environment(SLIDE), make_environment(SLIDE, unseen=LOOKS)
    for environment in (usual, other):
        environment.reset(3, 1)
    for action in usual.expert():
        outcomes = [environment.step(action) for environment in (usual, other)]
        np.testing.assert_array_equal(*(environment.simulation.data.qpos for environment in (usual, other)))
    assert all(outcome.success for outcome in outcomes)


def test_draws_depend_on_the_seed_and_on_nothing_else(make_environment, recolorable_block):
    everything = make_environment(SLIDE, unseen=["distractors", *LOOKS])
    alone = [make_environment(SLIDE, unseen=[switch]) for switch in ("distractors", "light", "table_color")]
    for environment in (everything, *alone):
        environment.reset(5, 0)
    np.testing.assert_array_equal(_spots(everything), _spots(alone[0]))
    np.testing.assert_array_equal(*(e.simulation.model.light_dir for e in (everything, alone[1])))
    np.testing.assert_array_equal(_table(everything), _table(alone[2]))
    spots, table = _spots(everything), _table(everything)
    everything.reset(6, 0)
    assert (_spots(everything)[:, :2] != spots[:, :2]).all() and (_table(everything) != table).all()
    everything.reset(5, 0)
    np.testing.assert_array_equal(_spots(everything), spots)


def _spots(environment) -> np.ndarray:
    return np.stack([environment.simulation.position(f"distractor{i}") for i in range(distractors.COUNT)])


def _table(environment) -> np.ndarray:
    return environment.simulation.model.geom("table").rgba[:3].copy()


@pytest.mark.parametrize("task", ["open_drawer", "push_buttons", SLIDE])
def test_distractors_stand_apart_and_move_nothing(make_environment, task):
    usual, other = make_environment(task), make_environment(task, unseen=["distractors"])
    for seed in range(8):
        states = [e.reset(seed, seed % 3).observation.task_low_dim_state for e in (usual, other)]
        np.testing.assert_allclose(*states, atol=1e-6)
        model, data = other.simulation.model, other.simulation.data
        added = [model.body(f"distractor{i}").id for i in range(distractors.COUNT)]
        ours = np.isin(model.geom_bodyid, added)
        theirs = [g for g in range(model.ngeom) if distractors.is_on_table(other.simulation, g) and not ours[g]]
        distance = min(
            mujoco.mj_geomDistance(model, data, i, j, 1.0, None) for i in np.flatnonzero(ours) for j in theirs
        )
        assert distance > distractors.CLEARANCE - 1e-3
        for body in added:
            assert abs(data.body(body).xpos[2] - TABLE_HEIGHT) < 2e-3  # upright, not fallen
            assert data.body(body).xmat[8] > 0.999 and np.abs(data.body(body).cvel).max() < 0.02


def test_distractors_never_have_a_color_that_is_named(make_environment):
    environment = make_environment("push_buttons", unseen=["distractors"])
    for seed in range(10):
        start = environment.reset(seed, 11)  # three colours are named
        model = environment.simulation.model
        shades = {
            tuple(model.geom_rgba[g, :3].round(3)) for g in range(model.ngeom) if _owner(model, g).startswith("distr")
        }
        named = {tuple(np.round(rgb, 3)) for name, rgb in COLORS.items() if f" {name} " in f"{start.descriptions[0]} "}
        assert len(named) == len(shades) == 3 and not named & shades


def _owner(model, geom: int) -> str:
    return model.body(model.geom_bodyid[geom]).name


def test_object_color_leaves_the_instructions_colors_alone(make_environment, recolorable_block):
    environment = make_environment(SLIDE, unseen=["object_color"])
    for seed in range(10):
        environment.reset(seed, 0)
        model = environment.simulation.model
        block = model.geom("block").rgba[:3]
        squares = [g for g in range(model.ngeom) if model.geom_size[g, 2] == 0.0005]
        colors = [color for _, color in TARGETS]
        np.testing.assert_allclose(model.geom_rgba[squares, :3], colors, atol=1e-6)
        assert min(np.linalg.norm(block - other) for other in [*colors, (0.85, 0.1, 0.1)]) > 0.4


@pytest.mark.parametrize("switch", ["object_color", "object_texture"])
def test_what_looked_alike_looks_alike_again(make_environment, monkeypatch, switch):
    drawers = [f"drawer{i}" for i in range(3)]
    monkeypatch.setattr(OpenDrawer, "recolorable", ("cabinet", *drawers))
    looks = []
    for environment in (make_environment("open_drawer"), make_environment("open_drawer", unseen=[switch])):
        environment.reset(1, 0)
        model = environment.simulation.model
        geoms = [g for g in range(model.ngeom) if _owner(model, g) in ("cabinet", *drawers)]
        looks.append([(model.geom_matid[g], *model.geom_rgba[g]) for g in geoms])
    assert len(set(looks[0])) == len(set(looks[1])) == len(set(zip(*looks, strict=True))) > 2
    assert not set(looks[0]) & set(looks[1])


def test_moved_cameras_report_where_they_are(make_environment):
    names = tuple(RLBENCH_CAMERAS)
    environment = make_environment(SLIDE, names, image_size=96, with_masks=True, unseen=["camera_pose"])
    views = environment.reset(2, 0).observation.cameras
    table = environment.simulation.model.geom("table").id
    for name, view in views.items():
        points = back_project(view.depth, view.intrinsics, view.T_world_camera)
        on_top = (view.mask == table) & (np.abs(points[..., 2] - TABLE_HEIGHT) < 0.01)
        assert on_top.sum() > 100
        heights = points[on_top][:, 2]
        assert np.median(np.abs(heights - TABLE_HEIGHT)) < 1e-4
        if name != "wrist":
            shift = view.T_world_camera[:3, 3] - RLBENCH_CAMERAS[name].T_body_camera[:3, 3]
            turn = view.T_world_camera[:3, :3] @ RLBENCH_CAMERAS[name].T_body_camera[:3, :3].T
            assert 0.01 < np.abs(shift).max() <= 0.1
            assert 0.005 < np.arccos((np.trace(turn) - 1) / 2) < 0.05 * 3**0.5
    usual = make_environment(SLIDE, ("wrist",), image_size=96).reset(2, 0).observation.cameras["wrist"]
    np.testing.assert_array_equal(views["wrist"].rgb, usual.rgb)


def test_table_and_block_stay_visible(make_environment):
    """A table in the colour of what lies on it would hide it."""
    environment = make_environment(SLIDE, unseen=["table_color"])
    for seed in range(20):
        environment.reset(seed, 0)
        gaps = [np.linalg.norm(_table(environment) - color) for _, color in TARGETS]
        assert min(gaps) > 0.4


@pytest.mark.parametrize(
    ("switch", "scale", "moved"), [("smaller", 0.8, False), ("larger", 1.3, False), ("new_position", 1.0, True)]
)
def test_the_task_is_told_before_it_builds(make_environment, monkeypatch, switch, scale, moved):
    told = []
    build = PushButtons.build

    def listen(task, *args):
        told.append((task.scale, task.new_position))
        build(task, *args)

    monkeypatch.setattr(PushButtons, "scales", (0.8, 1.3))
    monkeypatch.setattr(PushButtons, "has_new_position", True)
    monkeypatch.setattr(PushButtons, "build", listen)
    make_environment("push_buttons", unseen=[switch]).reset(0, 0)
    assert told[-1] == (scale, moved)
    make_environment("push_buttons").reset(0, 0)
    assert told[-1] == (1.0, False)


@pytest.mark.parametrize(
    ("unseen", "message"),
    [
        (["larger"], r"^env.unseen=\[larger\]: pushy has no size that may change; it can have background, camera_pose"),
        (["new_position", "light"], r"^env.unseen=\[light,new_position\]: pushy has no other positions"),
        (["object_color"], "no things whose colour means nothing"),
        (["distracters"], "^unknown unseen setting 'distracters': did you mean distractors"),
    ],
)
def test_refusals_are_one_line(monkeypatch, unseen, message):
    for name, value in (("scales", None), ("has_new_position", False), ("recolorable", ())):
        monkeypatch.setattr(PushButtons, name, value)
    config = {"_target_": "envs.mujoco.environment.MujocoEnvironment", "cameras": [], "unseen": unseen}
    with pytest.raises(InputError, match=message.replace("pushy", "push_buttons")) as error:
        make_from_config(config, "push_buttons")
    assert "\n" not in str(error.value)


def test_larger_and_smaller_exclude_each_other(make_environment):
    with pytest.raises(InputError, match="larger and smaller exclude each other"):
        make_environment("push_buttons", unseen=["larger", "smaller"])


def test_every_switch_is_in_the_config():
    text = (CONFIGS / "env" / "mujoco.yaml").read_text().replace("\n# ", " ")
    assert ", ".join(sorted(SETTINGS)) in text
