"""Training: the same numbers twice, going on after a stop, and refusals."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors import SafetensorError
from safetensors.torch import load_file

from agents import checkpoint, trainer, training
from agents.checkpoint import choose_checkpoints, find_checkpoint, latest_checkpoint, load_policy
from agents.config import AgentConfig
from agents.measures import HELD_BACK
from agents.optimisers import Average, learning_rate
from agents.policy import Policy
from agents.sampling import Sampler
from demos.dataset import KeyframeDataset
from demos.transitions import Conventions
from manifield.command import explain
from manifield.errors import InputError


def losses(run: Path) -> list[str]:
    with (run / "metrics.csv").open() as file:
        return [row["loss"] for row in csv.DictReader(file)]


def column(run: Path, name: str) -> list[float]:
    with (run / "metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file)]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(find_checkpoint(run) / "model.safetensors")


def test_same_seed_same_numbers_and_other_seed_other_numbers(train_config, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        training.run(train_config("steps=4", f"seed={seed}", f"run={tmp_path / name}"))
    assert losses(tmp_path / "a") == losses(tmp_path / "b") != losses(tmp_path / "c")
    a, b = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_a_stopped_run_goes_on_as_if_it_had_not_been(train_config, tmp_path, stop_and_go_on):
    training.run(train_config("steps=6", f"run={tmp_path / 'whole'}"))
    config = train_config("steps=6", f"run={tmp_path / 'stopped'}", "checkpoint_every=2")
    stop_and_go_on(config, 4)
    assert losses(tmp_path / "stopped") == losses(tmp_path / "whole")
    a, b = weights(tmp_path / "stopped"), weights(tmp_path / "whole")
    assert all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize(
    "words", [["ema=0.9"], ["optimiser=lamb"], ["optimiser=lamb", "ema=0.9", "accumulate=2", "schedule=constant"]]
)
def test_every_way_to_update_goes_on_exactly(train_config, tmp_path, stop_and_go_on, words):
    training.run(train_config("steps=6", *words, f"run={tmp_path / 'whole'}"))
    stop_and_go_on(train_config("steps=6", *words, f"run={tmp_path / 'stopped'}", "checkpoint_every=2"), 4)
    assert losses(tmp_path / "stopped") == losses(tmp_path / "whole")
    a, b = weights(tmp_path / "stopped"), weights(tmp_path / "whole")
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_the_average_is_what_a_checkpoint_holds(train_config, tmp_path):
    training.run(train_config("steps=6", f"run={tmp_path / 'last'}"))
    training.run(train_config("steps=6", "ema=0.9", f"run={tmp_path / 'average'}"))
    assert losses(tmp_path / "last") == losses(tmp_path / "average")  # training goes on with the last weights
    last, average = weights(tmp_path / "last"), weights(tmp_path / "average")
    assert any(not torch.equal(last[k], average[k]) for k in last)
    stored = load_file(find_checkpoint(tmp_path / "average") / "training.safetensors")
    assert all(torch.equal(stored[f"last.policy.{k}"], last[k]) for k in last)


def test_an_average_forgets_where_it_began():
    module = torch.nn.Linear(1, 1, bias=False)
    module.weight.data.fill_(0.0)
    average = Average(module, 0.9)
    for step in range(200):
        module.weight.data.fill_(1.0)
        average.update(step)
    assert average.weights["weight"].item() == pytest.approx(1.0, abs=1e-4)
    assert module.weight.item() == 1.0


def test_a_batch_in_parts_is_the_same_batch(train_config, tmp_path):
    for name, words in (("whole", []), ("parts", ["accumulate=2"])):
        training.run(train_config("steps=3", "batch=4", "augmentation.yaw=0", f"run={tmp_path / name}", *words))
    first = [float(losses(tmp_path / name)[0]) for name in ("whole", "parts")]
    assert first[0] == pytest.approx(first[1], rel=0.05)  # jitter and phrasings are drawn part by part
    with pytest.raises(InputError, match="batch=4 shared by processes=1 cannot be cut evenly into accumulate=3"):
        training.run(train_config("steps=3", "batch=4", "accumulate=3"))


def test_the_learning_rate_warms_up_and_falls():
    cosine = [learning_rate(step, 100, 2.0, 10, "cosine") for step in range(100)]
    assert cosine[0] == pytest.approx(0.2) and max(cosine) == pytest.approx(2.0, rel=0.05) and cosine[-1] < 0.05
    assert learning_rate(99, 100, 2.0, 10, "constant") == 2.0


def test_loss_falls(train_config, tmp_path):
    training.run(train_config("steps=40", "learning_rate=0.01", "warmup=5", "augmentation.yaw=0"))
    values = [float(v) for v in losses(tmp_path / "run")]
    assert sum(values[-5:]) < 0.8 * sum(values[:5])


def test_another_config_is_refused(train_config):
    training.run(train_config("steps=2"))
    with pytest.raises(InputError, match="a run with steps=2, not 3; batch=2, not 3: repeat"):
        training.run(train_config("steps=3", "batch=3"))
    with pytest.raises(InputError, match="2 episodes more .such as push_buttons/episode0.*: repeat"):
        training.run(train_config("steps=2", "tasks=open_drawer"))


def test_naming_the_tasks_that_are_there_anyway_is_the_same_run(train_config, capsys):
    training.run(train_config("steps=2"))
    training.run(train_config("steps=2", "tasks=[open_drawer,push_buttons]"))
    assert "going on from" in capsys.readouterr().out


def test_wrong_words_are_refused_before_any_work(train_config):
    for words, message in (
        (["tasks=[open_drawer,open_drawer]"], "tasks names open_drawer twice"),
        (["tasks=[]"], "tasks=..: give at least one"),
    ):
        with pytest.raises(InputError, match=message):
            training.run(train_config(*words))
    config = train_config("data=/nowhere")
    config.agent.language = {"name": "minillm"}
    with pytest.raises(InputError, match="unknown agent.language.name 'minillm': did you mean minilm"):
        training.run(config)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_loses_no_step(train_config, tmp_path, monkeypatch, number):
    step = training.Trainer.step

    def interrupted(self, samples, at):
        if at == 2:
            signal.raise_signal(number)
        return step(self, samples, at)

    monkeypatch.setattr(training.Trainer, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        training.run(train_config("steps=6"))
    assert find_checkpoint(tmp_path / "run").name == "step_000003"
    monkeypatch.setattr(training.Trainer, "step", step)
    training.run(train_config("steps=6"))
    training.run(train_config("steps=6", f"run={tmp_path / 'whole'}"))
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")


def test_a_run_without_a_checkpoint_says_that_it_starts_over(train_config, tmp_path, monkeypatch, capsys):
    def broken(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "save_checkpoint", broken)
    with pytest.raises(KeyboardInterrupt):
        training.run(train_config("steps=2"))
    monkeypatch.undo()
    training.run(train_config("steps=2"))
    assert "starting at step 0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("poison", "message"),
    [
        (lambda x: x * float("nan"), r"loss is not finite at step 4 \(samples .* frame .*the last checkpoint is kept"),
        # Finite going forward, infinite going back: a checkpoint right after this update would be spoiled.
        (lambda x: x + (x - x.detach()).abs().sqrt(), r"gradient is not finite at step 4 \(one of samples .* frame"),
    ],
)
def test_nonsense_stops_before_it_reaches_the_weights(train_config, tmp_path, monkeypatch, poison, message):
    losses_of, calls = trainer.policy_losses, []

    def poisoned(*arguments):
        found = losses_of(*arguments)
        calls.append(None)
        return found | ({"gripper": poison(found["gripper"])} if len(calls) == 4 else {})

    monkeypatch.setattr(trainer, "policy_losses", poisoned)
    with pytest.raises(InputError, match=message):
        training.run(train_config("steps=6", "checkpoint_every=1"))
    assert latest_checkpoint(tmp_path / "run").name == "step_000003"
    monkeypatch.undo()
    training.run(train_config("steps=6", "checkpoint_every=1"))  # goes on from it
    assert latest_checkpoint(tmp_path / "run").name == "step_000006"


def test_a_full_disk_is_one_line_and_loses_nothing(train_config, tmp_path, monkeypatch, capsys):
    """safetensors says why only in its text; the half checkpoint goes away, the one before stays."""
    save, calls = checkpoint.save_file, []

    def full(tensors, path):
        calls.append(path)
        if len(calls) > 2:  # the second checkpoint's
            Path(path).write_bytes(b"half")
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
        save(tensors, path)

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError) as raised:
        training.run(train_config("steps=4", "checkpoint_every=2"))
    assert explain(raised.value).startswith(f"the disk is full: {tmp_path / 'run/checkpoints'}")
    assert [p.name for p in (tmp_path / "run/checkpoints").iterdir()] == ["step_000002"]
    monkeypatch.undo()
    training.run(train_config("steps=4", "checkpoint_every=2"))
    training.run(train_config("steps=4", f"run={tmp_path / 'whole'}"))
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")


def test_goal_outside_the_box_is_named(train_config):
    config = train_config()
    config.agent.high = [0.7, 0.5, 0.75]
    with pytest.raises(InputError, match="episode0 frame .* outside the agent's box"):
        training.run(config)


def test_checkpoint_of_another_agent_or_truncated_is_refused(train_config, tmp_path):
    from agents.agent import Agent

    training.run(train_config("steps=1"))
    folder = find_checkpoint(tmp_path / "run")
    meta = json.loads((folder / "agent.json").read_text())
    (folder / "agent.json").write_text(json.dumps({**meta, "agent": {**meta["agent"], "hidden": [64, 16]}}))
    with pytest.raises(InputError, match="weights of another agent"):
        Agent.load(tmp_path / "run")
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:100])
    with pytest.raises(InputError, match="model.safetensors cannot be read"):
        Agent.load(folder)
    with pytest.raises(InputError, match="no checkpoint in.*manifield train"):
        Agent.load(tmp_path / "nowhere")


def test_kill_9_leaves_no_half_checkpoint_and_the_run_goes_on(train_config, tmp_path):
    """The real thing: SIGKILL at a random moment of a process that writes checkpoints all the time."""
    config = train_config("steps=120", "checkpoint_every=1", f"run={tmp_path / 'killed'}")
    OmegaConf.save(config, tmp_path / "config.yaml")
    code = (
        "import sys; from omegaconf import OmegaConf as C; from agents import training as t; t.run(C.load(sys.argv[1]))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "config.yaml")]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env={**os.environ})
    deadline = time.monotonic() + 120
    while latest_checkpoint(tmp_path / "killed") is None and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    reached = int(latest_checkpoint(tmp_path / "killed").name.removeprefix("step_"))
    training.run(config)
    training.run(train_config("steps=120", "checkpoint_every=120", f"run={tmp_path / 'whole'}"))
    assert 1 <= reached < 120
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")


def test_a_batch_holds_as_many_samples_as_asked_for(train_config, monkeypatch):
    """Regression for the published defect 9: the batch was 1 whatever the config said."""
    sizes = []
    forward = Policy.forward

    def count(self, batch, *rest):
        sizes.append((len(batch.words), len(batch.batch_index.unique())))
        return forward(self, batch, *rest)

    monkeypatch.setattr(Policy, "forward", count)
    training.run(train_config("steps=2", "batch=3"))
    assert sizes == [(3, 3), (3, 3)]


def test_an_error_in_loading_stops_the_training_and_names_the_file(train_config, tiny_data, tmp_path):
    """Regression for the published defect 9: exceptions in data loading were swallowed."""
    data = shutil.copytree(tiny_data, tmp_path / "data")
    for picture in data.glob("push_buttons/all_variations/episodes/episode0/front_depth/*.png"):
        picture.write_bytes(picture.read_bytes()[:60])
    with pytest.raises(InputError, match=r"episode0/front_depth/\d+\.png"):
        training.run(train_config("steps=20", f"data={data}"))


def test_sampling_is_balanced_and_needs_no_memory_of_earlier_steps(train_config, tiny_data):
    config = train_config()
    settings = OmegaConf.to_container(config)
    agent = AgentConfig.from_mapping(settings["agent"])
    dataset = KeyframeDataset.open(tiny_data, agent, Conventions(every=None))
    sampler = Sampler(dataset, seed=0, batch=2, first_keyframe_weight=3.0)
    for task in dataset.tasks:
        chosen = [p for p, t in zip(sampler.probability, dataset.task_of, strict=True) if t == task]
        assert sum(chosen) == pytest.approx(0.5)
    shared = [sampler.draw(7, settings["augmentation"], agent, [place])[0] for place in (0, 1)]
    whole = sampler.draw(7, settings["augmentation"], agent)
    assert all((a.points == b.points).all() and a.name == b.name for a, b in zip(shared, whole, strict=True))
    late = [s.name for s in sampler.draw(7, settings["augmentation"], agent)]
    assert late == [s.name for s in Sampler(dataset, 0, 2, 3.0).draw(7, settings["augmentation"], agent)]


def test_what_is_held_back_is_measured_and_the_best_is_kept(field_config, tmp_path, stop_and_go_on):
    words = ["steps=6", "checkpoint_every=1", "hold_back=[1]", "keep=1", "keep_every=2", "best=val_loss"]
    training.run(field_config({}, *words, "pictures_every=4", "loaders=2", f"run={tmp_path / 'watched'}"))
    stop_and_go_on(field_config({}, *words, f"run={tmp_path / 'stopped'}"), 4)
    training.run(field_config({}, "steps=6", "select=[0]", f"run={tmp_path / 'plain'}"))
    run = tmp_path / "watched"
    assert losses(run) == losses(tmp_path / "plain") == losses(tmp_path / "stopped")  # to watch changes nothing
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    measured = {"loss", "val_loss_rotation", "val_loss_recon", *HELD_BACK, "gradient_norm", "memory_gib"}
    assert measured | {"train_rotation", "train_translation_cm", "samples_per_second"} <= rows[0].keys()
    assert all(float(row[name]) >= 0 for row in rows for name in measured)
    assert column(run, "val_loss") == column(tmp_path / "stopped", "val_loss")
    best = min(range(6), key=column(run, "val_loss").__getitem__) + 1
    for folder in (run, tmp_path / "stopped"):
        kept = {int(p.name.removeprefix("step_")) for p in (folder / "checkpoints").iterdir()}
        assert kept == {2, 4, 6, best}
    meta = json.loads((choose_checkpoints(run, "best")[0] / "agent.json").read_text())
    assert meta["step"] == best and round(meta["metrics"]["val_loss"], 6) == min(column(run, "val_loss"))
    pictures = sorted(str(p.relative_to(run / "pictures")) for p in (run / "pictures").rglob("*.png"))
    assert pictures == [
        f"{task}_{what}/step_00000{step}.png"
        for task in ("open_drawer", "push_buttons")
        for what in ("field", "q")
        for step in (4, 6)
    ]


def test_measures_of_what_is_not_held_back_are_refused(train_config):
    with pytest.raises(InputError, match=r"best=val_loss is measured on episodes .*: give hold_back="):
        training.run(train_config("best=val_loss"))
    with pytest.raises(InputError, match="unknown measure of best 'val_los': did you mean val_loss"):
        training.run(train_config("best=val_los", "hold_back=1"))
    with pytest.raises(InputError, match="has no episode 7, only 0 to 1"):
        training.run(train_config("hold_back=[7]"))
    with pytest.raises(InputError, match="keep_every=0: give a number from 1"):
        training.run(train_config("keep_every=0"))


def test_a_checkpoint_says_how_its_inputs_are_scaled(train_config, tmp_path):
    training.run(train_config("steps=1"))
    file = find_checkpoint(tmp_path / "run") / "agent.json"
    meta = json.loads(file.read_text())
    for key in ("agent", "normalisation", "language_identity", "features", "cameras", "config", "metrics", "versions"):
        assert key in meta
    file.write_text(json.dumps(meta | {"normalisation": {"colour": 255.0}}))
    with pytest.raises(InputError, match=r"scaled by .*255.*use the version that trained it"):
        load_policy(file.parent)


def test_only_networks_of_fixed_shape_are_compiled(train_config, tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(type(self).__name__))
    training.run(train_config("steps=1", "compile=true"))
    assert compiled == ["UNet", "TokenMixer", "LightDecoder", "UNet", "LightDecoder"]


def test_deterministic_is_a_switch(train_config, tmp_path):
    for value in (False, True):  # ends as the other tests expect it
        training.run(train_config("steps=1", f"deterministic={str(value).lower()}", f"run={tmp_path / str(value)}"))
        assert torch.are_deterministic_algorithms_enabled() is value
        assert torch.backends.cudnn.benchmark is not value


def test_weights_and_biases_offline_goes_on_as_the_same_run(train_config, tmp_path, stop_and_go_on):
    stop_and_go_on(train_config("steps=2", "checkpoint_every=1", "pictures_every=1", "wandb=offline"), 1)
    name = (tmp_path / "run/wandb.id").read_text().strip()
    files = list((tmp_path / "run/wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == 2 and all(name in file.name for file in files)
    images = {p.name for p in (tmp_path / "run/wandb").rglob("*.png")}
    assert any("push_buttons_q" in image for image in images)


def test_weights_and_biases_mode_is_checked(train_config):
    with pytest.raises(InputError, match="wandb mode.*did you mean offline"):
        training.run(train_config("wandb=ofline"))
