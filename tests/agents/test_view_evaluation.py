"""Rendered views are measured beside their targets, and shown: `evaluate data=…` and `render`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from agents import evaluation, render, training
from agents.rendering import SceneRenderer
from agents.report.page import write_report
from demos.store import find_episodes, open_episode
from manifield.configuration import compose
from manifield.errors import InputError


@pytest.fixture
def run(trained_field: Path) -> Path:
    return trained_field


def test_views_are_measured_beside_their_targets(run, view_data, capsys):
    evaluation.run(compose("evaluate", [f"run={run}", f"data={view_data}"]))
    found = json.loads((run / "offline" / "results.json").read_text())["views"]
    assert found["tasks"]["all"]["views"] == 8 and found["tasks"]["open_drawer"]["views"] == 4
    for key in ("psnr", "psnr_mean_picture", "psnr_reprojection", "ssim", "depth_cm_median", "cosine", "cosine_mean"):
        assert np.isfinite(found["tasks"]["all"][key]), key
    assert len(found["strips"]) == 8 and not any(strip["given"] for strip in found["strips"])
    for strip in found["strips"]:
        with Image.open(run / "offline" / strip["file"]) as picture:
            assert picture.width > 7 * 16  # target, rendered, carried over, two depths, two features
    assert found["tasks"]["all"]["psnr"] == pytest.approx(np.mean([s["psnr"] for s in found["strips"]]), abs=1e-3)
    assert "pictures never given to the agent" in capsys.readouterr().out
    page = write_report(run).read_text()
    assert "Views never given" in page and page.count("data:image/webp") == 6  # three a task


def test_the_renderings_are_the_fields(run, view_data):
    """The same numbers come out of the renderer by hand, and rays in portions are rays at once."""
    import agents.rendering as rendering
    from agents.view_evaluation import judge
    from demos.dataset import make_sample
    from demos.target_views import FieldTargets, TargetViews

    renderer = SceneRenderer.load(run)
    episode = open_episode(find_episodes(view_data)[0])
    observation = episode.observation(0)
    sample = make_sample(observation, 1.0, renderer.agent.sight, episode.descriptions)
    views = TargetViews(episode, 0, FieldTargets(None, "all"), ["front"], None)
    scene = renderer.look(sample, episode.descriptions[0])
    whole = judge(renderer, scene, sample, views, 1)
    rendering.RAYS_AT_ONCE, before = 50, rendering.RAYS_AT_ONCE
    try:
        parts = judge(renderer, scene, sample, views, 1)
    finally:
        rendering.RAYS_AT_ONCE = before
    np.testing.assert_allclose(parts.rendered.rgb, whole.rendered.rgb, atol=2e-2)  # bfloat16, summed in another order
    assert judge(renderer, scene, sample, views, 0).given and not whole.given
    error = np.square(whole.rendered.rgb - views[1].picture.rgb / 255).mean()
    assert whole.numbers["psnr"] == pytest.approx(-10 * np.log10(error), abs=1e-4)


def test_what_cannot_be_measured_is_said(run, view_data, tiny_data, tmp_path, capsys):
    evaluation.run(compose("evaluate", [f"run={run}", f"data={tiny_data}", "name=bare"]))
    assert "rendering is not measured" in capsys.readouterr().out
    assert "views" not in json.loads((run / "bare" / "results.json").read_text())
    copy = tmp_path / "copy"
    shutil.copytree(view_data, copy)
    shutil.rmtree(copy / "features")
    evaluation.run(compose("evaluate", [f"run={run}", f"data={copy}", "name=colour", "views=1"]))
    assert "features are not measured" in capsys.readouterr().out
    table = json.loads((run / "colour" / "results.json").read_text())["views"]["tasks"]["all"]
    assert table["views"] == 4 and table["cosine"] is None and table["psnr"] > 0
    evaluation.run(compose("evaluate", [f"run={run}", f"data={view_data}", "name=none", "views=0"]))
    assert "views" not in json.loads((run / "none" / "results.json").read_text())


def test_render_writes_a_page_and_an_orbit(run, view_data, capsys):
    episode = find_episodes(view_data)[0]
    render.run(compose("render", [str(episode), f"run={run}", "orbit=3", "size=16"]))
    out = capsys.readouterr().out
    assert out.count("never given ") == 3 and "given        front" in out
    page = (run / "renders" / "open_drawer_episode0_0.html").read_text()
    assert "Views never given" in page and "Given views" in page and page.count("data:image/png") == 4
    with Image.open(run / "renders" / "open_drawer_episode0_0_orbit.webp") as orbit:
        assert orbit.n_frames == 3 and orbit.width == 3 * 32 + 2 * 4


def test_a_task_that_is_not_recorded_is_left_out(run, view_data, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(view_data / "open_drawer", copy / "open_drawer")
    evaluation.run(compose("evaluate", [f"run={run}", f"data={copy}", "name=one", "views=0"]))
    assert list(json.loads((run / "one" / "results.json").read_text())["tasks"]) == ["open_drawer", "all"]
    (copy / "open_drawer").rename(copy / "something_else")
    with pytest.raises(InputError, match="holds something_else, the agent was trained on open_drawer, push_buttons"):
        evaluation.run(compose("evaluate", [f"run={run}", f"data={copy}", "name=other"]))


def test_render_shows_features_of_those_views_that_have_them(run, view_data, tmp_path, capsys):
    from demos.features import Features, cache_file, save_features

    copy = tmp_path / "copy"
    shutil.copytree(view_data, copy)
    file = cache_file(copy / "features" / "made_up", find_episodes(copy)[0])
    old = Features(file)
    kept = {name: old[name] for name in old if name[1] != "front"}
    save_features(file, kept, {name: old.hashes[name] for name in kept}, "made up", "", "")
    render.run(compose("render", [str(find_episodes(copy)[0]), f"run={run}", "orbit=0"]))
    lines = capsys.readouterr().out.splitlines()
    assert sum("cosine" in line for line in lines if line.startswith("never given ")) == 3
    assert not any("cosine" in line for line in lines if line.startswith("given "))


def test_render_refuses_in_one_line(run, train_config, tiny_data, view_data, tmp_path):
    episode = find_episodes(view_data)[0]
    with pytest.raises(InputError, match=r"frame=99: .* has frames 0 to"):
        render.run(compose("render", [str(episode), f"run={run}", "frame=99"]))
    training.run(train_config("steps=1", f"run={tmp_path / 'plain'}"))
    with pytest.raises(InputError, match="was trained without a neural field: train with field=laptop"):
        render.run(compose("render", [str(episode), f"run={tmp_path / 'plain'}"]))
    with pytest.raises(InputError, match="no such episode"):
        render.run(compose("render", [str(tmp_path / "nowhere"), f"run={run}"]))


def test_features_of_another_teacher_are_refused(run, view_data):
    checkpoint = next((run / "checkpoints").iterdir())
    meta = json.loads((checkpoint / "agent.json").read_text())
    (checkpoint / "agent.json").write_text(json.dumps(meta | {"features": "somebody else"}))
    with pytest.raises(InputError, match="features of another teacher: made up, not somebody else"):
        evaluation.run(compose("evaluate", [f"run={run}", f"data={view_data}"]))
    with pytest.raises(InputError, match="features of another teacher"):
        render.run(compose("render", [str(find_episodes(view_data)[0]), f"run={run}", "orbit=0"]))


def test_a_damaged_field_is_one_line(run, view_data):
    checkpoint = next((run / "checkpoints").iterdir())
    (checkpoint / "field.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"field\.safetensors cannot be read"):
        SceneRenderer.load(run)


def test_settings_of_render_fit_its_config():
    config = compose("render", ["somewhere"])
    assert OmegaConf.to_container(config)["episode"] == "somewhere"
