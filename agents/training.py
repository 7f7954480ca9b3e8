"""Training by behaviour cloning, in one process or several: `manifield train`.

A run is a function of its config and seed: what step n draws depends on (seed, n) only, so that a run that was stopped
goes on exactly as if it had not been.
"""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from omegaconf import DictConfig, OmegaConf

from agents.batching import Batcher
from agents.checkpoint import FIELD_FILE, load_meta, load_weights
from agents.config import AgentConfig
from agents.focus import WINDOW
from agents.measures import HELD_BACK, Validation
from agents.optimisers import OPTIMISERS, SCHEDULES
from agents.parallel import STRATEGIES, team
from agents.policy import Policy
from agents.resuming import checkpoint_to_resume
from agents.sampling import SAMPLING, Sampler
from agents.scene_field import SceneField, SceneFieldConfig, mean_target
from agents.snapshots import Snapshots
from agents.tracking import WANDB_MODES, Tracker
from agents.trainer import Learner, Trainer
from demos.dataset import KeyframeDataset
from demos.features import cache_folder
from demos.memory import GIB, Memory
from demos.target_views import FieldTargets
from demos.transitions import Conventions
from manifield.devices import find_device
from manifield.errors import InputError, choose, distinct, within
from manifield.files import only_writer, write_whole
from manifield.versions import versions
from perception.language import LanguageEncoder, make_language_encoder


def run(config: DictConfig) -> None:
    """Train as `configs/train.yaml` says; goes on where the run's folder stands."""
    _settings(config)  # what is wrong is said before other processes start
    with team(config, work) as fabric:
        work(config, fabric)


def _settings(config: DictConfig) -> dict[str, Any]:
    """The config as plain values, checked."""
    settings: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    settings["field"] = settings.get("field") or None
    choose(config.precision, ("bf16", "float32"), "precision")
    choose(config.wandb, WANDB_MODES, "wandb mode")
    within(config, steps=(1, 10**9), batch=(1, 10**5), threads=(1, 1024), seed=(0, 2**31), keep=(1, 10**6))
    within(config, log_every=(1, 10**9), checkpoint_every=(1, 10**9), learning_rate=(0, 10), warmup=(0, 10**9))
    within(config, first_keyframe_weight=(1e-3, 1e3), cache=(0, 10**6), loaders=(0, 256), nodes=(1, 10**5))
    if settings["tasks"] is not None:
        settings["tasks"] = [settings["tasks"]] if isinstance(settings["tasks"], str) else settings["tasks"]
        distinct(settings["tasks"], "tasks")
    find_device(config.device, config.processes)
    for key, options in (("optimiser", OPTIMISERS), ("strategy", STRATEGIES), ("sampling", SAMPLING)):
        choose(config[key], options, key)
    choose(config.schedule, SCHEDULES, "schedule")
    if not 0 <= config.focus <= 1:
        raise InputError(f"focus={config.focus}: give a share of samples, from 0 to 1")
    if config.focus and config.sampling != "balanced":
        raise InputError(f"focus={config.focus} draws some transitions more often: give 0, or sampling=balanced")
    if config.focus and config.loaders > WINDOW:
        raise InputError(
            f"loaders={config.loaders} draw further ahead than focus={config.focus} knows: at most {WINDOW}"
        )
    within(config, processes=(1, 4096), accumulate=(1, 10**4), ema=(0, 0.99999))
    count = config.processes * config.nodes
    words = f"processes={config.processes}" + (f" on each of nodes={config.nodes}" if config.nodes > 1 else "")
    if config.batch % count:
        raise InputError(f"batch={config.batch} cannot be shared evenly by {words}")
    if config.batch // count % config.accumulate:
        raise InputError(
            f"batch={config.batch} shared by {words} cannot be cut evenly into accumulate={config.accumulate} parts"
        )
    _check_watching(config, settings)
    return settings


def _check_watching(config: DictConfig, settings: dict[str, Any]) -> None:
    """What is measured, shown and kept on the way; `hold_back` becomes a list."""
    for key in ("pictures_every", "keep_every"):
        if config[key] is not None:
            within(config, **{key: (1, 10**9)})
    if isinstance(settings["hold_back"], int):
        settings["hold_back"] = [settings["hold_back"]]
    if config.best is not None:
        choose(config.best, ("loss", *HELD_BACK), "measure of best")
        if config.best != "loss" and not settings["hold_back"]:
            raise InputError(f"best={config.best} is measured on episodes that are not trained on: give hold_back=[…]")
    if config.strategy == "fsdp" and config.optimiser == "lamb":
        raise InputError("optimiser=lamb needs norms of whole tensors, which strategy=fsdp divides: strategy=ddp")
    if config.strategy == "fsdp" and config.pictures_every is not None:
        raise InputError("pictures_every needs the whole network in one process: strategy=ddp, or null")


def work(config: DictConfig, fabric: Fabric) -> None:
    """The part of one of the processes of a training."""
    settings, folder = _settings(config), Path(config.run)
    torch.set_num_threads(config.threads)
    torch.use_deterministic_algorithms(config.deterministic, warn_only=True)
    torch.backends.cudnn.benchmark = not config.deterministic
    agent = AgentConfig.from_mapping(settings["agent"])
    field_config = SceneFieldConfig.from_mapping(settings["field"])
    language = make_language_encoder(**agent.language)
    conventions = Conventions(horizon=agent.horizon, **settings["transitions"])
    targets = None if field_config is None else field_targets(field_config, Path(config.data))
    data, tasks, held_back = Path(config.data), settings["tasks"], settings["hold_back"] or []
    memory = Memory(int(config.cache * GIB) // config.processes)
    dataset = KeyframeDataset.open(data, agent, conventions, tasks, settings["select"], memory, targets, held_back)
    print(dataset.summary(), flush=True)
    held = None
    if held_back:
        rules = replace(conventions, every=None, weighting="distinct", time_feature="horizon")
        held = KeyframeDataset.open(data, agent, rules, tasks, held_back, memory, targets)
        print(f"held back: {held.summary().removeprefix('data: ')}", flush=True)
    torch.manual_seed(config.seed)
    policy = Policy(agent, language.width)
    field = None if field_config is None else _make_field(field_config, policy, language, dataset)
    learner = Learner(policy, field).to(fabric.device)
    with only_writer(folder, "train", "run") if fabric.is_global_zero else nullcontext():
        meta = {
            "language_identity": language.identity,
            "tasks": dataset.tasks,
            "cameras": list(dataset.cameras),
            "image_size": dataset.image_size,
            "features": dataset.feature_identity,
            "seed": config.seed,
            "config": {**settings, "episodes": [f"{e.task}/{e.path.name}" for e in dataset.episodes.values()]},
            "versions": versions(),
        }
        sampler = Sampler(
            dataset, config.seed, config.batch, config.first_keyframe_weight, config.sampling, config.focus
        )
        batcher, device = Batcher(agent, language), fabric.device
        checkpoint, first = checkpoint_to_resume(folder, meta["config"]), 0
        if checkpoint is not None:
            load_weights(policy, checkpoint)
            if field is not None:
                load_weights(field, checkpoint, FIELD_FILE)
            first = int(load_meta(checkpoint)["step"])
        size = config.batch // fabric.world_size // config.accumulate
        validation = Validation(held, batcher, size, device, config.precision == "bf16") if held else None
        snapshots = Snapshots(held or dataset, language, meta, device) if config.pictures_every else None
        sizes = learner.sizes()
        trainer = Trainer(config, fabric, learner, batcher, sampler, validation, snapshots)
        if checkpoint is not None:
            trainer.resume(checkpoint, first)
        fabric.barrier()  # nobody writes before all have read
        print(f"{sizes}, {config.steps} steps of {config.batch} samples", flush=True)
        if not fabric.is_global_zero:
            trainer.train(meta, first, None)
            return
        write_whole(folder / "config.yaml", OmegaConf.to_yaml(config))
        write_whole(folder / "versions.json", json.dumps(versions(), indent=1))
        with Tracker(folder, first, config.wandb, settings) as tracker:
            trainer.train(meta, first, tracker)


def field_targets(field: SceneFieldConfig, data: Path, identity: str | None = None) -> FieldTargets:
    """Which pictures of a data set a field learns from. identity: whose features they must have."""
    wanted = field.teacher != "none" and field.lambda_feat > 0
    features = cache_folder(data, field.teacher) if wanted else None
    return FieldTargets(field.views, "agent" if field.cameras else "none", features, identity)


def _make_field(
    config: SceneFieldConfig, policy: Policy, language: LanguageEncoder, dataset: KeyframeDataset
) -> SceneField:
    least = min(sum(isinstance(name, int) for name in moment.names) for moment in dataset.views.values())
    if config.views is not None and least < config.views:
        print(f"warning: field.views={config.views}, but some moments have only {least} field views", flush=True)
    picture, feature = mean_target(list(dataset.views.values()))
    channels = dataset.feature_channels
    field = SceneField(config, policy.config, language.width, channels, (picture.shape[0], picture.shape[1]))
    field.mean_picture.copy_(picture)
    if feature is not None:
        field.mean_feature.copy_(feature)
    print(f"field: {sum(map(len, dataset.views.values()))} pictures of {len(dataset.views)} moments", flush=True)
    return field
