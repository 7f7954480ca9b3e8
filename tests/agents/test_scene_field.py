"""Agent and field trained together: geometry under augmentation, what is learned, what is saved, what is refused."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from agents import training
from agents.batching import Batcher
from agents.checkpoint import FIELD_FILE, find_checkpoint, load_field, load_policy
from agents.config import AgentConfig
from agents.policy import Policy
from agents.scene_field import SceneField, SceneFieldConfig, mean_target
from demos.augment import transform
from demos.dataset import KeyframeDataset
from demos.target_views import FieldTargets
from demos.transitions import Conventions
from manifield.configuration import compose
from manifield.errors import InputError
from perception.cameras import back_project
from perception.field.views import whole_view
from perception.language import make_language_encoder


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def dataset(config, targets: FieldTargets) -> KeyframeDataset:
    agent = AgentConfig.from_mapping(OmegaConf.to_container(config.agent))
    return KeyframeDataset.open(Path(config.data), agent, Conventions(horizon=10), targets=targets)


# Geometry


def test_target_views_move_with_the_scene(field_config, tiny_field):
    """Regression (defect 3): the scene was augmented, the cameras of the rendered views stayed where they were."""
    config = field_config()
    data = dataset(config, FieldTargets())
    sample = data[0]
    agent = AgentConfig.from_mapping(OmegaConf.to_container(config.agent))
    field = SceneField(SceneFieldConfig.from_mapping(tiny_field), agent, 8, 5, (16, 16))
    rng = np.random.default_rng(0)
    moved = sample
    for _ in range(2):  # twice, to see that motions add up
        T = np.eye(4)
        T[:3, :3] = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        T[:3, :3] *= np.sign(np.linalg.det(T[:3, :3]))
        T[:3, 3] = rng.uniform(-0.2, 0.2, 3)
        moved = transform(moved, T)
    for view in moved.views:
        target = whole_view(view)
        rays = field.rays(target, moved.motion[None])
        seen = rays.points(target.depth[..., None])[0, :, 0].numpy()
        measured = back_project(view.picture.depth, view.picture.intrinsics, view.picture.T_world_camera).reshape(-1, 3)
        np.testing.assert_allclose(seen, measured @ moved.motion[:3, :3].T + moved.motion[:3, 3], atol=1e-5)
        still = field.rays(target, np.eye(4)[None])
        torch.testing.assert_close(rays.unmoved, still.unmoved)
    np.testing.assert_allclose(
        moved.points, sample.points @ moved.motion[:3, :3].T + moved.motion[:3, 3], atol=1e-5
    )  # by the same motion


def test_the_mean_target_is_the_mean(field_config, view_data):
    data = dataset(field_config(), FieldTargets(None, "none", view_data / "features" / "made_up"))
    moments = list(data.views.values())
    picture, feature = mean_target(moments)
    every = [view for moment in moments for view in moment]
    np.testing.assert_allclose(picture, np.mean([v.picture.rgb / 255 for v in every], axis=0), atol=1e-6)
    np.testing.assert_allclose(feature, np.mean([v.feature for v in every], axis=(0, 1, 2), dtype=float), atol=1e-5)
    assert mean_target(moments, most=2)[0].shape == (16, 16, 3)


# Learning


def test_it_trains_saves_and_loads(field_config, tmp_path, capsys):
    training.run(field_config({"lambda_empty": 0.2}, "steps=5", f"run={tmp_path / 'run'}"))
    assert "12 pictures of 4 moments" in capsys.readouterr().out
    table = rows(tmp_path / "run")
    for name in ("loss_recon", "loss_feat", "loss_depth", "loss_empty", "field_psnr"):
        assert np.isfinite(float(table[-1][name])), name
    weights = {"loss_feat": 0.1, "loss_depth": 0.1, "loss_empty": 0.2}
    expected = sum(weights.get(k, 1.0) * float(value) for k, value in table[0].items() if k.startswith("loss_"))
    assert float(table[0]["loss"]) == pytest.approx(expected, rel=1e-4)
    checkpoint = find_checkpoint(tmp_path / "run")
    policy, language, meta = load_policy(checkpoint)
    assert meta["features"] == "made up" and not any("field" in name for name in policy.state_dict())
    field = load_field(checkpoint, policy, language.width)
    stored = load_file(checkpoint / FIELD_FILE)
    assert all(torch.equal(stored[name], value) for name, value in field.state_dict().items())
    assert field.mean_picture.std() > 0 and field.features == 5


def test_without_a_field_it_is_the_same_agent(field_config, train_config, view_data, tmp_path):
    """The field takes no random number from the policy: before the first update both act alike."""
    training.run(field_config({}, "steps=1", f"run={tmp_path / 'with'}"))
    training.run(train_config("steps=1", f"data={view_data}", f"run={tmp_path / 'without'}"))
    both = rows(tmp_path / "with")[0], rows(tmp_path / "without")[0]
    names = [name for name in both[1] if name.startswith(("loss_", "train_"))]
    assert len(names) > 5
    assert all(both[0][name] == both[1][name] for name in names)
    assert not (find_checkpoint(tmp_path / "without") / FIELD_FILE).exists()
    with_field, without = (load_file(find_checkpoint(tmp_path / n) / "model.safetensors") for n in ("with", "without"))
    assert with_field.keys() == without.keys()
    assert any(not torch.equal(with_field[k], without[k]) for k in without)  # the field's gradient moved the encoder


def test_a_stopped_run_with_a_field_goes_on_as_if_it_had_not_been(field_config, tmp_path, stop_and_go_on):
    training.run(field_config({}, "steps=4", f"run={tmp_path / 'whole'}"))
    config = field_config({}, "steps=4", f"run={tmp_path / 'stopped'}", "checkpoint_every=2")
    stop_and_go_on(config, 3)
    assert [row["loss"] for row in rows(tmp_path / "stopped")] == [row["loss"] for row in rows(tmp_path / "whole")]
    whole, stopped = (load_file(find_checkpoint(tmp_path / n) / FIELD_FILE) for n in ("whole", "stopped"))
    assert all(torch.equal(whole[k], stopped[k]) for k in whole)


def test_pictures_teach_the_agents_encoder(field_config, tiny_field):
    """Gradients of each loss reach the volume that the agent acts on, and only those that count do."""
    config = field_config()
    agent = AgentConfig.from_mapping(OmegaConf.to_container(config.agent))
    language = make_language_encoder(**agent.language)
    data = dataset(config, FieldTargets(None, "none", Path(config.data) / "features" / "made_up"))
    samples = [data[0], data[1]]
    torch.manual_seed(0)
    policy = Policy(agent, language.width)
    for changes, kinds in (
        ({}, {"recon", "feat", "depth"}),
        ({"language": True}, {"recon", "feat", "depth"}),
        ({"pictures": False, "guided": 0, "fine": 0, "background": "constant"}, {"recon", "feat", "depth"}),
    ):
        config = SceneFieldConfig.from_mapping(tiny_field | changes)
        field = SceneField(config, agent, language.width, 5, (16, 16))
        batcher = Batcher(agent, language)
        batch, aims = batcher.batch(samples, [s.descriptions[0] for s in samples]), batcher.targets(samples)
        generator = torch.Generator().manual_seed(0)
        losses = field.losses(batch, policy(batch, aims.position, generator), samples, generator)
        assert set(losses) == kinds
        for kind in kinds:
            policy.zero_grad()
            losses[kind].backward(retain_graph=True)
            for stage in policy.stages:
                assert stage.encoder.entry.convolution.weight.grad.abs().sum() > 0, (changes, kind)


def test_language_can_tell_the_field(field_config, tiny_field):
    config = field_config()
    agent = AgentConfig.from_mapping(OmegaConf.to_container(config.agent))
    language = make_language_encoder(**agent.language)
    data = dataset(config, FieldTargets())
    policy = Policy(agent, language.width).eval()
    batch = Batcher(agent, language).batch([data[0]] * 2, ["open the drawer", "push the red button"])
    with torch.no_grad():
        prediction = policy(batch)
        silent = SceneField(SceneFieldConfig.from_mapping(tiny_field), agent, language.width, 0, (16, 16))
        assert silent.look(batch, prediction, [data[0]] * 2).context is None
        told = SceneField(
            SceneFieldConfig.from_mapping(tiny_field | {"language": True}), agent, language.width, 0, (16, 16)
        )
        context = told.look(batch, prediction, [data[0]] * 2).context
    assert context.shape == (2, 16) and not torch.allclose(context[0], context[1])


def test_its_own_box_may_be_wider_than_the_agents(field_config, tiny_field):
    config = field_config()
    agent = AgentConfig.from_mapping(OmegaConf.to_container(config.agent))
    target = whole_view(dataset(config, FieldTargets())[0].views[0])

    def way(changes: dict) -> float:
        field = SceneField(SceneFieldConfig.from_mapping(tiny_field | changes), agent, 8, 0, (16, 16))
        rays = field.rays(target, np.eye(4)[None])
        return float((rays.far - rays.near).clamp(min=0).sum())

    own = way({})
    assert own == pytest.approx(way({"low": list(agent.low), "high": list(agent.high)}))
    assert way({"low": [-0.6, -0.9, 0.5], "high": [0.9, 0.9, 1.9]}) > own > 0


def test_the_given_pictures_move_with_the_scene(field_config, tiny_field):
    """What a picture shows at a point it still shows there after augmentation, and cached samples hold no more
    pictures than are needed."""
    config = field_config()
    agent = AgentConfig.from_mapping(OmegaConf.to_container(config.agent))
    sample = dataset(config, FieldTargets())[0]
    assert (
        set(sample.pictures) == {"front"}
        and not KeyframeDataset.open(Path(config.data), agent, Conventions(horizon=10))[0].pictures
    )
    language = make_language_encoder(**agent.language)
    policy = Policy(agent, language.width).eval()
    field = SceneField(SceneFieldConfig.from_mapping(tiny_field), agent, language.width, 0, (16, 16))
    T = np.eye(4)
    T[:2, :2], T[:3, 3] = [[0.6, -0.8], [0.8, 0.6]], [0.1, -0.05, 0.02]
    found = []
    for one in (sample, transform(sample, T)):
        batch = Batcher(agent, language).batch([one], ["go"])
        with torch.no_grad():
            told = field.look(batch, policy(batch), [one])
        found.append(told.pictures.at(torch.from_numpy(one.points[None])))
    torch.testing.assert_close(found[0], found[1], atol=1e-3, rtol=0)
    assert (found[0][..., 3] > 0.9).all()  # all points lie on what the picture measured


# Configuration and refusals


def test_presets_are_complete_and_none_is_none():
    assert SceneFieldConfig.from_mapping(compose("train").get("field")) is None
    for name in ("laptop", "gnfactor"):
        values = OmegaConf.to_container(compose("train", [f"field={name}"]).field)
        config = SceneFieldConfig.from_mapping(values)
        assert config.to_mapping().keys() == values.keys()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"widht": 3}, "unknown key in field 'widht': did you mean width"),
        ({"guided": 5}, "field.guided=5: these are some of the field.fine=4"),
        ({"lambda_recon": 0.0, "lambda_feat": 0.0, "lambda_depth": 0.0}, "all 0: give field=none"),
        ({"lambda_recon": -1.0}, "field.lambda_recon=-1.0: give a weight from 0 on"),
        ({"high": [1.0, 2.0]}, "field.high=.1.0, 2.0.: give three numbers"),
        ({"low": [0.0, 0.0, 2.0]}, "field.low .* must lie below field.high"),
        ({"coarse": 1}, "field.coarse=1: give a number from 2 on"),
        ({"views": 0}, "field.views=0"),
        ({"background": "black"}, "unknown field.background 'black'"),
        ({"teacher": "dino"}, "no features; run `manifield features data=.*/data teacher=dino`"),
    ],
)
def test_wrong_settings_are_one_line(field_config, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        training.run(field_config(changes, "steps=1", f"run={tmp_path / 'run'}"))


def test_frames_without_views_are_named_before_training(field_config, tiny_data, tmp_path):
    config = field_config({}, "steps=1", f"run={tmp_path / 'run'}")
    config.data = str(tiny_data)
    with pytest.raises(InputError, match="frame 0: no field views to learn from"):  # rather than no features
        training.run(config)
    config.field.cameras, config.field.teacher = True, "none"
    training.run(config)


def test_more_views_than_there_are_is_said(field_config, tmp_path, capsys):
    training.run(field_config({"views": 9}, "steps=1", f"run={tmp_path / 'run'}"))
    assert "warning: field.views=9, but some moments have only 3 field views" in capsys.readouterr().out
    training.run(field_config({"views": 2}, "steps=1", f"run={tmp_path / 'two'}"))
    out = capsys.readouterr().out
    assert "warning" not in out and "8 pictures of 4 moments" in out


def test_features_of_one_teacher_only(field_config, view_data, tmp_path):
    import shutil

    from demos.features import Features, cache_file, save_features
    from demos.store import find_episodes

    copy = tmp_path / "data"
    shutil.copytree(view_data, copy)
    file = cache_file(copy / "features" / "made_up", find_episodes(copy)[-1])
    old = Features(file)
    save_features(file, dict(old), old.hashes, "another", "", "")
    config = field_config({}, "steps=1", f"run={tmp_path / 'run'}")
    config.data = str(copy)
    with pytest.raises(InputError, match="another teacher than those before: another, not made up"):
        training.run(config)


def test_a_run_with_a_field_does_not_go_on_without(field_config, train_config, view_data, tmp_path):
    training.run(field_config({}, "steps=2", f"run={tmp_path / 'run'}"))
    with pytest.raises(InputError, match="holds a run with a neural field, not field=none: repeat"):
        training.run(train_config("steps=2", f"data={view_data}", f"run={tmp_path / 'run'}"))
