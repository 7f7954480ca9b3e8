"""Two processes that train together: the same as one, and one that is lost takes the other with it."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from agents import training
from agents.checkpoint import find_checkpoint, latest_checkpoint
from manifield.errors import InputError

ALONE = "from omegaconf import OmegaConf as C; import sys; from agents import training as t"
RUN = f"{ALONE}\nif __name__ == '__main__': t.run(C.load(sys.argv[1]))"


def column(run: Path, name: str) -> list[float]:
    with (run / "metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file)]


def start(config, folder: Path) -> subprocess.Popen[str]:
    """A process that trains as a user's would."""
    folder.mkdir(exist_ok=True)
    (folder / "run.py").write_text(RUN)
    OmegaConf.save(config, folder / "config.yaml")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, str(folder / "run.py"), str(folder / "config.yaml")]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_two_processes_learn_what_one_does_and_go_on_after_a_kill(train_config, tmp_path):
    both = ("steps=12", "batch=4", "processes=2", "checkpoint_every=1", "focus=0.5")
    whole = start(train_config(*both, f"run={tmp_path / 'whole'}"), tmp_path / "a")
    killed = start(train_config(*both, f"run={tmp_path / 'killed'}"), tmp_path / "b")
    deadline = time.monotonic() + 400
    while latest_checkpoint(tmp_path / "killed") is None and time.monotonic() < deadline:
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    reached = int(latest_checkpoint(tmp_path / "killed").name.removeprefix("step_"))
    assert 1 <= reached < 12
    assert whole.wait(timeout=400) == 0, whole.stderr.read()
    again = start(train_config(*both, f"run={tmp_path / 'killed'}"), tmp_path / "b")
    assert again.wait(timeout=400) == 0, again.stderr.read()
    assert column(tmp_path / "killed", "loss") == column(tmp_path / "whole", "loss")
    a, b = (load_file(find_checkpoint(tmp_path / n) / "model.safetensors") for n in ("whole", "killed"))
    assert all(torch.equal(a[k], b[k]) for k in a)
    # With every process holding a part of the network: from the same checkpoint to the same next one, which is whole.
    shutil.copytree(tmp_path / "whole", tmp_path / "parts")
    shutil.rmtree(tmp_path / "parts/checkpoints/step_000012")
    parts = start(train_config(*both, "strategy=fsdp", f"run={tmp_path / 'parts'}"), tmp_path / "c")
    assert parts.wait(timeout=400) == 0, parts.stderr.read()
    assert column(tmp_path / "parts", "loss")[-1] == pytest.approx(column(tmp_path / "whole", "loss")[-1], rel=1e-5)
    for name in ("model.safetensors", "training.safetensors"):
        a, b = (load_file(find_checkpoint(tmp_path / n) / name) for n in ("whole", "parts"))
        assert a.keys() == b.keys() and all(torch.allclose(a[k], b[k], rtol=1e-3, atol=1e-5) for k in a)
    training.run(train_config("steps=12", "batch=4", f"run={tmp_path / 'one'}"))
    # The same samples, moved alike; the crops' jitter and the phrasings differ.
    one, two = (np.array(column(tmp_path / n, "loss")) for n in ("one", "whole"))
    assert np.abs(one[0] - two[0]) < 0.05 * one[0]
    assert np.abs(one.mean() - two.mean()) < 0.1 * one.mean()
    assert column(tmp_path / "one", "loss_translation_0")[0] == pytest.approx(
        column(tmp_path / "whole", "loss_translation_0")[0], rel=0.05
    )


def test_an_error_in_another_process_is_told(train_config, tiny_data, tmp_path):
    data = shutil.copytree(tiny_data, tmp_path / "data")
    for picture in data.glob("*/all_variations/episodes/episode*/front_depth/*.png"):
        picture.write_bytes(picture.read_bytes()[:60])
    run = start(train_config("steps=20", "processes=2", f"data={data}"), tmp_path / "a")
    assert run.wait(timeout=400) != 0
    assert "front_depth" in run.stderr.read()


def test_a_batch_that_cannot_be_shared_is_refused(train_config):
    with pytest.raises(InputError, match="batch=2 cannot be shared evenly by processes=3"):
        training.run(train_config("steps=1", "processes=3"))
