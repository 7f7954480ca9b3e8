"""Training by behaviour cloning, in one process or several: `manifield train`.

A run is a function of its config and seed: what step n draws depends on (seed, n) only, so that a run that was stopped
goes on exactly as if it had not been.
"""

from __future__ import annotations

import json
import math
import time
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from agents.batching import Batcher
from agents.checkpoint import FIELD_FILE, latest_checkpoint, load_meta, load_optimiser, load_weights, save_checkpoint
from agents.config import AgentConfig
from agents.losses import policy_losses
from agents.parallel import anyone, share, team
from agents.policy import Policy, decode_position
from agents.sampling import Sampler
from agents.scene_field import SceneField, SceneFieldConfig, mean_target
from agents.tensors import UNKNOWN, Batch, Prediction, Targets
from agents.tracking import WANDB_MODES, Tracker
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
    settings = _settings(config)
    with team(config, work) as fabric:
        _work(config, settings, fabric)


def work(config: DictConfig, fabric: Fabric) -> None:
    """The part of one of the processes of a training."""
    _work(config, _settings(config), fabric)


def _settings(config: DictConfig) -> dict[str, Any]:
    """The config as plain values, checked."""
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
    within(config, processes=(1, 4096))
    if config.batch % config.processes:
        raise InputError(f"batch={config.batch} cannot be shared evenly by processes={config.processes}")
    return settings


def _work(config: DictConfig, settings: dict[str, Any], fabric: Fabric) -> None:
    folder = Path(config.run)
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
        first = _resume(folder, meta["config"], learner, optimiser)
        fabric.barrier()  # nobody writes before all have read
        print(f"{learner.sizes()}, {config.steps} steps of {config.batch} samples", flush=True)
        sampler = Sampler(dataset, config.seed, config.batch, config.first_keyframe_weight)
        trainer = Trainer(config, fabric, learner, optimiser, Batcher(agent, language), sampler)
        if not fabric.is_global_zero:
            trainer.train(meta, first, None)
            return
        write_whole(folder / "config.yaml", OmegaConf.to_yaml(config))
        write_whole(folder / "versions.json", json.dumps(versions(), indent=1))
        with Tracker(folder, first, config.wandb, settings) as tracker:
            trainer.train(meta, first, tracker)


class Learner(nn.Module):
    """What is trained: the policy and, if there is one, the field over its volumes."""

    def __init__(self, policy: Policy, field: SceneField | None = None) -> None:
        super().__init__()
        self.policy, self.field = policy, field

    def forward(
        self, batch: Batch, targets: Targets, samples: list[Sample], generator: torch.Generator
    ) -> tuple[Prediction, dict[str, Tensor], Tensor]:
        """What the policy predicts, the losses by kind, and their weighted sum."""
        prediction = self.policy(batch, targets.position, generator)
        rendered = {} if self.field is None else self.field.losses(batch, prediction, samples, generator)
        with torch.autocast("cpu", enabled=False):
            losses = policy_losses(prediction, targets, self.policy.config.soft_labels)
        weighted = [*losses.values()]
        if self.field is not None:
            weighted += [self.field.weights[kind] * loss for kind, loss in rendered.items() if self.field.weights[kind]]
        return prediction, losses | rendered, torch.stack(weighted).sum()

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


class Trainer:
    """The loop over steps.

    Args:
        config: of `manifield train`. fabric: this process's place among those that train. sampler: of whole batches.
    """

    def __init__(
        self,
        config: DictConfig,
        fabric: Fabric,
        learner: Learner,
        optimiser: torch.optim.Optimizer,
        batcher: Batcher,
        sampler: Sampler,
    ) -> None:
        self.config, self.fabric, self.learner, self.optimiser = config, fabric, learner, optimiser
        self.batcher, self.sampler = batcher, sampler
        self.places = share(list(range(config.batch)), fabric)
        # The strategy's own wrapper, without Fabric's, which copies what passes through it.
        self.shared = learner if fabric.world_size == 1 else fabric.strategy.setup_module(learner)

    def train(self, meta: dict[str, Any], first: int, tracker: Tracker | None) -> None:
        """Steps from `first` on, with checkpoints and rows of metrics by the process that has a tracker."""
        c, agent, augmentation = self.config, self.learner.policy.config, meta["config"]["augmentation"]
        begin = time.perf_counter()
        with ExitStack() as stack:
            progress, stopping = None, _never
            if tracker is not None:
                stopping = stack.enter_context(stop_politely("this step"))
                progress = stack.enter_context(Progress("train", c.steps, "steps", first))
            for step in range(first, c.steps):
                samples = self.sampler.draw(step, augmentation, agent, self.places)
                losses, prediction, targets = self.step(samples, step)
                if not math.isfinite(losses["loss"]):
                    names = ", ".join(s.name for s in samples)
                    raise InputError(f"loss is not finite at step {step + 1} (samples {names}); last checkpoint kept")
                stop, last = anyone(stopping(), self.fabric), step + 1 == c.steps
                if (step + 1) % c.log_every == 0 or last:
                    row = mean_over({**_row(losses), **training_metrics(prediction, targets)}, self.fabric)
                    rate = (step + 1 - first) * c.batch / (time.perf_counter() - begin)
                    if tracker is not None:
                        tracker.log(step + 1, {**row, "learning_rate": _rate(step, c), "samples_per_second": rate})
                if progress is not None:
                    progress.advance(1, loss=float(losses["loss"]))
                    if (step + 1) % c.checkpoint_every == 0 or last or stop:
                        policy, field = self.learner.policy, self.learner.field
                        save_checkpoint(Path(c.run), step + 1, policy, meta, self.optimiser, c.keep, field)
                if stop and not last:
                    raise KeyboardInterrupt

    def step(self, samples: list[Sample], step: int) -> tuple[dict[str, Tensor], Prediction, Targets]:
        """One update of the weights; what is random in it depends on (seed, step) and this process's number only.

        Returns:
            this process's losses by kind and "loss", their weighted sum; what the policy predicted, and what it should
            have.
        """
        c = self.config
        seeds = np.random.SeedSequence([c.seed, step, self.fabric.global_rank]).generate_state(2, np.uint32)
        generator = torch.Generator().manual_seed(int(seeds[0]))
        torch.manual_seed(int(seeds[1]))  # dropout
        texts = [s.descriptions[int(torch.randint(len(s.descriptions), (), generator=generator))] for s in samples]
        batch, targets = self.batcher.batch(samples, texts), self.batcher.targets(samples)
        for group in self.optimiser.param_groups:
            group["lr"] = _rate(step, c)
        self.learner.train()
        with torch.autocast("cpu", torch.bfloat16, enabled=c.precision == "bf16"):
            prediction, losses, total = self.shared(batch, targets, samples, generator)
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(self.learner.parameters(), c.clip)
        self.optimiser.step()
        return {k: v.detach() for k, v in {**losses, "loss": total}.items()}, prediction, targets


def _never() -> bool:
    return False


def _row(losses: dict[str, Tensor]) -> dict[str, float]:
    row = {"loss": float(losses["loss"]), **{f"loss_{k}": float(v) for k, v in losses.items() if k != "loss"}}
    if "recon" in losses:
        row["field_psnr"] = -10 * math.log10(max(row["loss_recon"] / 2, 1e-10))
    return row


def mean_over(row: dict[str, float], fabric: Fabric) -> dict[str, float]:
    """Numbers averaged over all processes."""
    if fabric.world_size == 1:
        return row
    values = fabric.all_reduce(torch.tensor(list(row.values()), dtype=torch.float64), reduce_op="mean")
    assert isinstance(values, Tensor)
    return dict(zip(row, values.tolist(), strict=True))


def _rate(step: int, config: DictConfig) -> float:
    """Learning rate: linear warm-up, then a cosine down to 2 %."""
    warm = min(1.0, (step + 1) / max(config.warmup, 1))
    return config.learning_rate * warm * max(0.02, 0.5 * (1 + math.cos(math.pi * step / config.steps)))


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
