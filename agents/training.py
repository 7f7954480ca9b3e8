"""Training by behaviour cloning on one process: `manifield train`.

A run is a function of its config and seed: what step n draws depends on (seed, n) only, so that a run that was stopped
goes on exactly as if it had not been.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from agents.batching import Batcher
from agents.checkpoint import FIELD_FILE, latest_checkpoint, load_meta, load_optimiser, load_weights, save_checkpoint
from agents.config import AgentConfig
from agents.losses import policy_losses
from agents.policy import Policy, decode_position
from agents.scene_field import SceneField, SceneFieldConfig, mean_target
from agents.tensors import UNKNOWN, Prediction, Targets
from agents.tracking import WANDB_MODES, Tracker
from demos.augment import augment, thin
from demos.dataset import KeyframeDataset, Sample
from demos.features import cache_folder
from demos.target_views import FieldTargets
from demos.transitions import Conventions
from manifield.configuration import differences
from manifield.errors import InputError, choose, distinct, within
from manifield.files import only_writer, write_whole
from manifield.interrupt import stop_politely
from manifield.progress import Progress
from manifield.versions import versions
from perception.language import LanguageEncoder, make_language_encoder

WHAT_A_RUN_IS = (
    *("agent", "field", "data", "episodes", "transitions", "augmentation", "first_keyframe_weight"),
    *("steps", "batch", "learning_rate", "weight_decay", "warmup", "clip", "precision", "threads", "seed"),
)
"""Config keys that a resumed run must share with the run it goes on from (`episodes` stands for tasks and select)."""


def run(config: DictConfig) -> None:
    """Train as `configs/train.yaml` says; goes on where the run's folder stands."""
    folder = Path(config.run)
    settings: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    settings["field"] = settings.get("field") or None
    choose(config.precision, ("bf16", "float32"), "precision")
    choose(config.wandb, WANDB_MODES, "wandb mode")
    within(config, steps=(1, 10**9), batch=(1, 10**5), threads=(1, 1024), seed=(0, 2**31), keep=(1, 10**6))
    within(config, log_every=(1, 10**9), checkpoint_every=(1, 10**9), learning_rate=(0, 10), warmup=(0, 10**9))
    within(config, first_keyframe_weight=(1e-3, 1e3))
    if settings["tasks"] is not None:
        settings["tasks"] = [settings["tasks"]] if isinstance(settings["tasks"], str) else settings["tasks"]
        distinct(settings["tasks"], "tasks")
    torch.set_num_threads(config.threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    agent = AgentConfig.from_mapping(settings["agent"])
    field_config = SceneFieldConfig.from_mapping(settings["field"])
    language = make_language_encoder(**agent.language)
    conventions = Conventions(horizon=agent.horizon, **settings["transitions"])
    targets = None if field_config is None else field_targets(field_config, Path(config.data))
    dataset = KeyframeDataset.open(
        Path(config.data), agent, conventions, settings["tasks"], settings["select"], config.cache, targets
    )
    print(dataset.summary(), flush=True)
    torch.manual_seed(config.seed)
    policy = Policy(agent, language.width)
    field = None if field_config is None else _make_field(field_config, policy, language, dataset)
    learner = Learner(policy, field)
    optimiser = torch.optim.AdamW(
        learner.parameters(), config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    with only_writer(folder, "train", "run"):
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
        first = _resume(folder, meta["config"], learner, optimiser)
        write_whole(folder / "config.yaml", OmegaConf.to_yaml(config))
        write_whole(folder / "versions.json", json.dumps(versions(), indent=1))
        print(f"{learner.sizes()}, {config.steps} steps of {config.batch} samples", flush=True)
        with Tracker(folder, first, config.wandb, settings) as tracker:
            _train(config, learner, optimiser, Batcher(agent, language), dataset, tracker, meta, first)


class Learner(nn.Module):
    """What is trained: the policy and, if there is one, the field over its volumes."""

    def __init__(self, policy: Policy, field: SceneField | None = None) -> None:
        super().__init__()
        self.policy, self.field = policy, field

    def sizes(self) -> str:
        """How many parameters, in words."""
        parts = {"agent": self.policy, "field": self.field}
        sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items() if part is not None}
        return ", ".join(f"{name}: {size / 1e6:.2f} M parameters" for name, size in sizes.items())


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


def _train(
    config: DictConfig,
    learner: Learner,
    optimiser: torch.optim.Optimizer,
    batcher: Batcher,
    dataset: KeyframeDataset,
    tracker: Tracker,
    meta: dict[str, Any],
    first: int,
) -> None:
    """The loop from step `first` on, with rows of metrics and checkpoints."""
    policy = learner.policy
    folder, agent, augmentation = Path(config.run), policy.config, meta["config"]["augmentation"]
    sampler = Sampler(dataset, config.seed, config.batch, config.first_keyframe_weight)
    begin = time.perf_counter()
    with stop_politely("this step") as stopping, Progress("train", config.steps, "steps", first) as progress:
        for step in range(first, config.steps):
            samples = sampler.draw(step, augmentation, agent)
            losses, prediction, targets = training_step(learner, optimiser, batcher, samples, step, config)
            total = float(losses.pop("loss"))
            if not math.isfinite(total):
                names = ", ".join(s.name for s in samples)
                raise InputError(f"loss is not finite at step {step + 1} (samples {names}); last checkpoint kept")
            progress.advance(1, loss=total)
            if (step + 1) % config.log_every == 0 or step + 1 == config.steps:
                rate = (step + 1 - first) * config.batch / (time.perf_counter() - begin)
                row = {"loss": total, **{f"loss_{k}": float(v) for k, v in losses.items()}}
                if "recon" in losses:
                    row["field_psnr"] = -10 * math.log10(max(float(losses["recon"]) / 2, 1e-10))
                row |= training_metrics(prediction, targets)
                tracker.log(step + 1, {**row, "learning_rate": _rate(step, config), "samples_per_second": rate})
            if (step + 1) % config.checkpoint_every == 0 or step + 1 == config.steps or stopping():
                save_checkpoint(folder, step + 1, policy, meta, optimiser, config.keep, learner.field)
            if stopping() and step + 1 < config.steps:
                raise KeyboardInterrupt


def training_step(
    learner: Learner,
    optimiser: torch.optim.Optimizer,
    batcher: Batcher,
    samples: list[Sample],
    step: int,
    config: DictConfig,
) -> tuple[dict[str, Tensor], Prediction, Targets]:
    """One update of the weights; what is random in it depends on (seed, step) only.

    Returns:
        the losses by kind and "loss", their weighted sum; what the policy predicted, and what it should have.
    """
    policy, field = learner.policy, learner.field
    generator = torch.Generator().manual_seed((config.seed << 32) + step)
    torch.manual_seed((config.seed << 32) + step)  # dropout
    texts = [s.descriptions[int(torch.randint(len(s.descriptions), (), generator=generator))] for s in samples]
    batch, targets = batcher.batch(samples, texts), batcher.targets(samples)
    for group in optimiser.param_groups:
        group["lr"] = _rate(step, config)
    learner.train()
    with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bf16"):
        prediction = policy(batch, targets.position, generator)
        rendered = {} if field is None else field.losses(batch, prediction, samples, generator)
    losses = policy_losses(prediction, targets, policy.config.soft_labels)
    weighted = [*losses.values()]
    if field is not None:
        weighted += [field.weights[kind] * loss for kind, loss in rendered.items() if field.weights[kind]]
    total = torch.stack(weighted).sum()
    optimiser.zero_grad(set_to_none=True)
    total.backward()
    torch.nn.utils.clip_grad_norm_(learner.parameters(), config.clip)
    optimiser.step()
    return {k: v.detach() for k, v in {**losses, **rendered, "loss": total}.items()}, prediction, targets


def _rate(step: int, config: DictConfig) -> float:
    """Learning rate: linear warm-up, then a cosine down to 2 %."""
    warm = min(1.0, (step + 1) / max(config.warmup, 1))
    return config.learning_rate * warm * max(0.02, 0.5 * (1 + math.cos(math.pi * step / config.steps)))


class Sampler:
    """Draws batches: a task uniformly, then one of its transitions by weight."""

    def __init__(self, dataset: KeyframeDataset, seed: int, batch: int, first_keyframe_weight: float) -> None:
        self.dataset, self.seed, self.batch = dataset, seed, batch
        weight = np.array(dataset.weights) * np.where(np.array(dataset.keyframe_numbers) == 0, first_keyframe_weight, 1)
        tasks = np.array(dataset.task_of)
        for task in dataset.tasks:
            weight[tasks == task] /= weight[tasks == task].sum() * len(dataset.tasks)
        self.probability = weight / weight.sum()

    def draw(self, step: int, augmentation: dict[str, Any], agent: AgentConfig) -> list[Sample]:
        """The augmented samples of a step."""
        rng = np.random.default_rng([self.seed, step])
        chosen = rng.choice(len(self.dataset), self.batch, p=self.probability, replace=self.batch > len(self.dataset))
        samples = []
        for index in chosen:
            sample = thin(self.dataset[int(index)], rng, augmentation["points"])
            yaw, shift = np.radians(augmentation["yaw"]), np.array(augmentation["shift"])
            samples.append(augment(sample, rng, np.array(agent.low), np.array(agent.high), yaw, shift))
        return samples


def training_metrics(prediction: Prediction, targets: Targets) -> dict[str, float]:
    """On the augmented batch: median error of the coarse position in cm, accuracy of gripper and collision."""
    with torch.no_grad():
        coarse = decode_position(prediction.q[0], prediction.low[0], prediction.high[0], soft=True)
        error = (coarse - targets.position).norm(dim=1)
        known = targets.collision != UNKNOWN
        collision = (prediction.collision.argmax(1) == targets.collision)[known]
        return {
            "train_coarse_cm": float(error.median()) * 100,
            "train_gripper": float((prediction.gripper.argmax(1) == targets.gripper).float().mean()),
            **({"train_collision": float(collision.float().mean())} if len(collision) else {}),
        }


def _resume(folder: Path, settings: dict[str, Any], learner: Learner, optimiser: torch.optim.Optimizer) -> int:
    """Load the run's newest checkpoint, if any; the number of steps done."""
    checkpoint = latest_checkpoint(folder)
    if checkpoint is None:
        if (folder / "metrics.csv").is_file():
            print(f"{folder} was stopped before its first checkpoint: starting at step 0", flush=True)
        return 0
    meta = load_meta(checkpoint)
    changes = _changes({k: meta["config"].get(k) for k in WHAT_A_RUN_IS}, {k: settings.get(k) for k in WHAT_A_RUN_IS})
    if changes:
        raise InputError(
            f"{folder} holds a run with {'; '.join(changes)}: repeat its settings to go on, or give another run="
        )
    load_weights(learner.policy, checkpoint)
    if learner.field is not None:
        load_weights(learner.field, checkpoint, FIELD_FILE)
    load_optimiser(optimiser, checkpoint)
    print(f"going on from {checkpoint}", flush=True)
    return int(meta["step"])


def _changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Every setting that differs; lists of episodes by what is gone and what is new."""
    changes = []
    old_episodes, new_episodes = set(before.pop("episodes")), set(now.pop("episodes"))
    for episodes, word in ((old_episodes - new_episodes, "more"), (new_episodes - old_episodes, "fewer")):
        if episodes:
            changes.append(f"{len(episodes)} episodes {word} (such as {min(episodes)})")
    if bool(before["field"]) != bool(now["field"]):  # rather than every key of it
        changes.append("a neural field, not field=none" if before.pop("field") else "field=none, not a neural field")
        now.pop("field")
        before.pop("field", None)
    return [*changes, *differences(before, now)]
