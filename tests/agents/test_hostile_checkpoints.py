"""A stranger's checkpoint: loading it runs nothing, takes no memory that it does not fill, and ends in one line."""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from agents.checkpoint import load_field, load_meta, load_policy, load_training
from agents.report.run_folder import read_run
from agents.report.strips import strips_section
from manifield.errors import InputError
from perception import language


class Payload:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


META = {
    "step": 1,
    "agent": {},
    "language_identity": "x",
    "tasks": ["a"],
    "cameras": ["front"],
    "image_size": [16, 16],
    "config": {"field": {"teacher": "none"}},
}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    (tmp_path / "agent.json").write_text(json.dumps(META))
    return tmp_path


def loaders(checkpoint: Path) -> list[Callable[[], object]]:
    module = torch.nn.Linear(2, 2)
    optimiser = torch.optim.AdamW(module.parameters())
    return [
        lambda: __import__("agents.checkpoint", fromlist=["x"]).load_weights(module, checkpoint),
        lambda: load_training(checkpoint, optimiser),
        lambda: load_field(checkpoint, None, 384),  # type: ignore[arg-type]
    ]


@pytest.mark.parametrize("kind", ["torch", "pickle"])
def test_weights_that_are_a_pickle_are_not_run(checkpoint: Path, tmp_path: Path, kind: str) -> None:
    trace = tmp_path / "trace"
    for name in ("model.safetensors", "training.safetensors", "field.safetensors"):
        if kind == "torch":
            torch.save({"weight": Payload(trace)}, checkpoint / name)
        else:
            (checkpoint / name).write_bytes(pickle.dumps(Payload(trace)))
    for load in loaders(checkpoint):
        with pytest.raises(InputError, match=r"safetensors cannot be read"):
            load()
    assert not trace.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 8,
        struct.pack("<Q", 2**40) + b"{}",
        struct.pack("<Q", 100) + b"[" * 100,
        struct.pack("<Q", 2) + b"{}",
        struct.pack("<Q", 63) + b'{"w":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4]}}'[:63],
    ],
    ids=["empty", "header of 16 EB", "header of 1 TB", "nested", "nothing in it", "tensor of 4 TB"],
)
def test_damaged_weights(checkpoint: Path, data: bytes) -> None:
    for name in ("model.safetensors", "training.safetensors", "field.safetensors"):
        (checkpoint / name).write_bytes(data)
    model, training, field = loaders(checkpoint)
    with pytest.raises(InputError, match="model.safetensors (cannot be read|holds the weights of another agent)"):
        model()
    with pytest.raises(InputError, match="field.safetensors cannot be read"):
        field()
    if data != struct.pack("<Q", 2) + b"{}":
        with pytest.raises(InputError, match="training.safetensors cannot be read"):
            training()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{" * 100_000,
        "[" * 100_000,
        "NaN",
        json.dumps({**META, "tasks": "open_drawer"}),
        *(json.dumps({key: value for key, value in META.items() if key != gone}) for gone in META),
    ],
    ids=lambda text: text[:40],
)
def test_descriptions_that_are_none(checkpoint: Path, text: str) -> None:
    (checkpoint / "agent.json").write_text(text)
    for load in (load_meta, load_policy):
        with pytest.raises(InputError, match="agent.json") as caught:
            load(checkpoint)
        assert "\n" not in str(caught.value)


def test_a_description_that_names_a_program(checkpoint: Path, tmp_path: Path) -> None:
    """Hydra would make whatever `_target_` says; a checkpoint's configs never get there."""
    trace = tmp_path / "trace"
    evil = {"_target_": "os.system", "command": f"touch {trace}"}
    for meta in (
        {**META, "agent": evil},
        {**META, "agent": {"language": evil, "low": [0, 0, 0], "high": [1, 1, 1], "stages": [{"shape": [4, 4, 4]}]}},
        {**META, "config": {"field": evil, "env": evil, "teacher": evil}},
    ):
        (checkpoint / "agent.json").write_text(json.dumps(meta))
        for load in (lambda: load_policy(checkpoint), lambda: load_field(checkpoint, None, 384)):  # type: ignore
            with pytest.raises(InputError):
                load()
    assert not trace.exists()


def test_a_description_that_names_a_stranger_s_language_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """open_clip fetches and loads what hf-hub:… or a path names: only its own models' names get there."""
    asked = []
    fake = type("OpenClip", (), {})
    fake.list_models = staticmethod(lambda: ["RN50", "ViT-B-32"])  # type: ignore[attr-defined]
    fake.create_model = staticmethod(lambda *a, **k: asked.append((a, k)))  # type: ignore[attr-defined]
    monkeypatch.setitem(__import__("sys").modules, "open_clip", fake)
    monkeypatch.setattr(language, "mend_torchvision", lambda: None)
    for model in ("hf-hub:stranger/model", "local-dir:/tmp/evil", "../evil"):
        with pytest.raises(InputError, match="unknown CLIP model"):
            language.make_language_encoder("clip", model=model, weights="openai")
    assert not asked
    with pytest.raises(InputError):  # what this stand-in returns is no model, but it was asked in the safe way
        language.make_language_encoder("clip", model="RN50", weights="openai")
    assert asked[0][1]["load_weights_only"] is True


def test_a_report_shows_no_pictures_from_elsewhere(tmp_path: Path) -> None:
    """Reports are passed on: one must not carry along what a stranger's results name."""
    from PIL import Image

    run = tmp_path / "run"
    folder = run / "evaluation" / "trained"
    folder.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    (folder / "results.json").write_text(json.dumps({"tasks": {"a": {"episodes": 1, "successes": 1}}}))
    for strip in ("../../../secret.png", str(tmp_path / "secret.png")):
        line = {"task": "a", "index": 0, "success": True, "strip": strip}
        (folder / "episodes.jsonl").write_text(json.dumps(line) + "\n")
        with pytest.raises(InputError, match="leads out of it"):
            strips_section(read_run(run), 3)


def test_whole_files_still_load(checkpoint: Path) -> None:
    """So that the refusals above mean something."""
    save_file({"weight": torch.eye(2), "bias": torch.ones(2)}, checkpoint / "model.safetensors")
    loaders(checkpoint)[0]()
    assert load_file(checkpoint / "model.safetensors")["bias"].tolist() == [1, 1]
    assert load_meta(checkpoint)["tasks"] == ["a"]
