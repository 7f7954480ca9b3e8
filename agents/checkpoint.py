"""Checkpoints: one folder each, safe to load from anyone (safetensors and JSON, no code), written whole or not at all.

RUN/checkpoints/step_000400/
    model.safetensors      weights of the policy
    field.safetensors      weights of the neural field over its volumes, if it was trained with one
    agent.json             agent config, normalisation, language encoder's and teacher's identity, cameras, tasks,
                           training config, measures at this step, versions
    training.safetensors   `training_state`, to go on from here
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from agents.batching import NORMALISATION
from agents.config import AgentConfig
from agents.keeping import Keeping, best_first
from agents.policy import Policy
from agents.scene_field import SceneField, SceneFieldConfig
from agents.sharding import like, whole
from manifield.errors import InputError
from manifield.files import read_whole
from perception.language import LanguageEncoder, make_language_encoder

NAME = re.compile(r"step_(\d+)$")
POLICY_FILE, FIELD_FILE = "model.safetensors", "field.safetensors"
META_FILE, LARGEST_META = "agent.json", 64 * 1024**2  # bytes
META_KEYS = {
    "step": int,
    "agent": dict,
    "language_identity": str,
    "tasks": list,
    "cameras": list,
    "image_size": list,
    "config": dict,
}
"""What agent.json must hold."""


def save_checkpoint(
    run: Path,
    step: int,
    config: AgentConfig,
    weights: dict[str, Tensor],
    meta: dict[str, Any],
    training: dict[str, Tensor] | None,
    keeping: Keeping | None = None,
) -> Path:
    """Write RUN/checkpoints/step_N and forget those that need not stay. The folder appears complete or not at all: what
    was there before stays if writing fails.

    Args:
        weights: of an `agents.trainer.Learner` by their names in it. meta: further content of agent.json.
    """
    folder = run / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(".writing_*"):  # of a process that was killed in here
        shutil.rmtree(leftover)
    final, draft = folder / f"step_{step:06d}", folder / f".writing_{step:06d}"
    draft.mkdir()
    try:
        for prefix, name in (("policy.", POLICY_FILE), ("field.", FIELD_FILE)):
            part = {k.removeprefix(prefix): v.contiguous() for k, v in weights.items() if k.startswith(prefix)}
            if part:
                _write_tensors(part, draft / name)
        if training is not None:
            _write_tensors(training, draft / "training.safetensors")
        description = {"step": step, "agent": config.to_mapping(), "normalisation": NORMALISATION, **meta}
        (draft / "agent.json").write_text(json.dumps(description, indent=1))
        for path in draft.iterdir():
            with path.open("rb+") as file:
                os.fsync(file.fileno())
    except BaseException:  # the disk is full, say: half a checkpoint would only take more of it
        shutil.rmtree(draft, ignore_errors=True)
        raise
    _remove(final)
    draft.rename(final)
    keeping, found = keeping or Keeping(), dict(_checkpoints(run))
    for old in found.keys() - keeping.staying(_measures(found)):
        _remove(found[old])
    return final


def _write_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    try:
        save_file(tensors, path)
    except SafetensorError as error:  # says why as text only
        code = re.search(r"os error (\d+)", str(error))
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from error


def _measures(found: dict[int, Path]) -> dict[int, dict[str, float]]:
    return {step: load_meta(path).get("metrics", {}) for step, path in found.items()}


def _remove(checkpoint: Path) -> None:
    """Delete under another name: a kill in the middle leaves no half folder that looks like a checkpoint."""
    if checkpoint.exists():
        doomed = checkpoint.with_name(f".writing_old_{checkpoint.name}")
        checkpoint.rename(doomed)
        shutil.rmtree(doomed)


def _checkpoints(run: Path) -> list[tuple[int, Path]]:
    found = [(int(m[1]), p) for p in (run / "checkpoints").glob("step_*") if (m := NAME.search(p.name))]
    return sorted(found)


def latest_checkpoint(run: Path) -> Path | None:
    """Newest complete checkpoint of a run, None if it has none yet."""
    found = _checkpoints(run)
    return found[-1][1] if found else None


def find_checkpoint(path: Path) -> Path:
    """A checkpoint from what a user gave: the checkpoint's folder itself, or a run's folder (then its newest)."""
    if (path / "agent.json").is_file():
        return path
    newest = latest_checkpoint(path)
    if newest is None:
        runs = sorted(str(folder.parent) for folder in path.glob("*/checkpoints") if latest_checkpoint(folder.parent))
        if runs:
            raise InputError(f"no checkpoint in '{path}', but in {', '.join(runs)}: give one of them")
        raise InputError(f"no checkpoint in '{path}': train it first, manifield train run={path}")
    return newest


def choose_checkpoints(path: Path, which: list[int | str] | int | str | None) -> list[Path]:
    """Some checkpoints of a run, oldest first.

    Args:
        path: as for `find_checkpoint`. which: None or "last": the newest; "best": by the measure that the training kept
            it for (`best`); "all"; steps; or a list of these.

    Raises:
        InputError: a checkpoint that is not there, or `path` is a single one and others are asked for.
    """
    newest = find_checkpoint(path)
    if which is None or newest == path:
        if which not in (None, "last"):
            raise InputError(f"checkpoints={which}: '{path}' is one checkpoint; give the run's folder")
        return [newest]
    found, chosen = dict(_checkpoints(path)), set[int]()
    for one in which if isinstance(which, list) else [which]:
        if one == "all":
            chosen |= found.keys()
        elif one == "last":
            chosen.add(max(found))
        elif one == "best":
            measure = load_meta(newest)["config"].get("best")
            if measure is None:
                raise InputError(f"checkpoints=best: '{path}' was trained without best=…, so that none was kept for it")
            chosen.add(best_first(_measures(found), measure)[0])
        elif one in found:
            chosen.add(int(one))
        else:
            there = ", ".join(map(str, sorted(found)))
            raise InputError(f"checkpoints={one}: '{path}' has those of steps {there}; or give last, best or all")
    return [found[step] for step in sorted(chosen)]


def load_meta(checkpoint: Path) -> dict[str, Any]:
    """What agent.json says.

    Raises:
        InputError: it is missing or damaged, or lacks something.
    """
    path, mending = checkpoint / META_FILE, "choose another checkpoint"
    try:
        meta = json.loads(read_whole(path, LARGEST_META, mending))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read ({error}): {mending}") from None
    for key, kind in META_KEYS.items():
        if not isinstance(meta, dict) or not isinstance(meta.get(key), kind):
            raise InputError(f"{path} is not a checkpoint's description, it has no {key}: {mending}")
    return meta


def load_policy(checkpoint: Path, untrained: bool = False) -> tuple[Policy, LanguageEncoder, dict[str, Any]]:
    """The policy, its language encoder, and agent.json's content.

    Args:
        untrained: leave the weights as initialised, for a baseline.

    Raises:
        InputError: the weights are missing, truncated or of another agent, or the encoder is not the one trained with.
    """
    meta = load_meta(checkpoint)
    if meta.get("normalisation", NORMALISATION) != NORMALISATION:
        versions = meta.get("versions")
        version = versions.get("manifield", "unknown") if isinstance(versions, dict) else "unknown"
        raise InputError(
            f"{checkpoint} was trained on inputs scaled by {meta['normalisation']}, this version of manifield scales "
            f"by {NORMALISATION}: use the version that trained it, {version}"
        )
    try:
        config = AgentConfig.from_mapping(meta["agent"])
        language = make_language_encoder(**config.language)
    except (TypeError, ValueError, KeyError, AttributeError) as error:  # of a description that is none
        raise InputError(f"{checkpoint / META_FILE} describes no agent ({error}): choose another checkpoint") from error
    if language.identity != meta["language_identity"]:
        raise InputError(
            f"{checkpoint} was trained with the language encoder {meta['language_identity']}, "
            f"agent.json asks for {language.identity}"
        )
    torch.manual_seed(meta.get("seed", 0))
    policy = Policy(config, language.width)
    if not untrained:
        load_weights(policy, checkpoint)
    return policy.eval(), language, meta


def load_field(checkpoint: Path, policy: Policy, words: int) -> SceneField | None:
    """The field that the policy was trained with, or None. words: channels of a language token.

    Raises:
        InputError: as `load_policy`.
    """
    try:
        config = SceneFieldConfig.from_mapping(load_meta(checkpoint)["config"].get("field"))
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{checkpoint / META_FILE} describes no field ({error}): choose another checkpoint") from error
    if config is None:
        return None
    path = checkpoint / FIELD_FILE
    try:
        with safe_open(path, framework="pt") as content:
            picture = content.get_slice("mean_picture").get_shape()
            features = content.get_slice("mean_feature").get_shape()[0]
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be read ({error}): choose another checkpoint") from error
    field = SceneField(config, policy.config, words, features, (picture[0], picture[1]))
    load_weights(field, checkpoint, FIELD_FILE)
    return field.eval()


def load_weights(module: nn.Module, checkpoint: Path, name: str = POLICY_FILE) -> None:
    """Read a checkpoint's file of weights into a policy or a field of the same config."""
    path = checkpoint / name
    try:
        module.load_state_dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be read ({error}): choose another checkpoint") from error
    except RuntimeError as error:
        raise InputError(f"{path} holds the weights of another agent: {str(error).splitlines()[-1].strip()}") from error


LAST, GROUP, FOCUS = "last.", "group.", "focus."


def training_state(
    optimiser: torch.optim.Optimizer, last: dict[str, Tensor], focus: dict[str, Tensor]
) -> dict[str, Tensor]:
    """What going on needs beside the weights: the optimiser's state; if what is stored as the weights is an average,
    the last ones; and what `agents.focus` has seen, if it is used. Under FSDP every process has to ask."""
    state = optimiser.state_dict()
    flat = {
        f"{i}.{name}": whole(torch.as_tensor(v)) for i, values in state["state"].items() for name, v in values.items()
    }
    groups = enumerate(state["param_groups"])
    flat |= {f"{GROUP}{i}": torch.tensor(group["step"]) for i, group in groups if "step" in group}
    flat |= {LAST + name: value for name, value in last.items()}
    flat |= {FOCUS + name: value for name, value in focus.items()}
    return {name: value.contiguous() for name, value in flat.items()}


def load_training(checkpoint: Path, optimiser: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Read training.safetensors into an optimiser over the same parameters. Returns the last weights by name and what
    `agents.focus` has seen, each empty if there is none."""
    path = checkpoint / "training.safetensors"
    try:
        flat = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be read ({error}): start anew with another run=") from error
    state: dict[int, dict[str, Tensor]] = {}
    last, focus, known = {}, {}, optimiser.state_dict()
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    for key, value in flat.items():
        number, name = key.split(".", 1)
        if key.startswith(LAST):
            last[name] = value
        elif key.startswith(FOCUS):
            focus[name] = value
        elif key.startswith(GROUP):
            known["param_groups"][int(name)]["step"] = int(value)
        else:
            state.setdefault(int(number), {})[name] = like(value, parameters[int(number)])
    known["state"] = state
    optimiser.load_state_dict(known)
    return last, focus
