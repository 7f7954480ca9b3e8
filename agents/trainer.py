"""The loop of a training: batches in, updates of the weights, rows of numbers and checkpoints out."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from agents.batching import Batcher
from agents.checkpoint import FIELD_FILE, load_training, load_weights, save_checkpoint, training_state
from agents.losses import policy_losses
from agents.optimisers import Average, learning_rate, make_optimiser
from agents.parallel import anyone
from agents.policy import Policy, decode_position
from agents.sampling import Sampler
from agents.scene_field import SceneField
from agents.tensors import UNKNOWN, Batch, Prediction, Targets
from agents.tracking import Tracker
from demos.dataset import Sample
from manifield.devices import moved
from manifield.errors import InputError
from manifield.interrupt import stop_politely
from manifield.progress import Progress


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
        with torch.autocast(targets.position.device.type, enabled=False):
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


class Trainer:
    """The loop over steps.

    Args:
        config: of `manifield train`. fabric: this process's place among those that train. batcher: makes tensors of
            samples. sampler: draws whole batches, of which this process takes its share.
    """

    def __init__(
        self,
        config: DictConfig,
        fabric: Fabric,
        learner: Learner,
        batcher: Batcher,
        sampler: Sampler,
    ) -> None:
        self.config, self.fabric, self.learner, self.batcher, self.sampler = config, fabric, learner, batcher, sampler
        c = config
        self.optimiser = make_optimiser(c.optimiser, learner.parameters(), c.learning_rate, c.weight_decay)
        self.average = Average(learner, c.ema) if c.ema else None
        self.places = range(fabric.global_rank, config.batch, fabric.world_size)
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
                        tracker.log(step + 1, {**row, "learning_rate": self._rate(step), "samples_per_second": rate})
                if progress is not None:
                    progress.advance(1, loss=float(losses["loss"]))
                    if (step + 1) % c.checkpoint_every == 0 or last or stop:
                        self._save(step + 1, meta)
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
        device = self.fabric.device
        generator = torch.Generator(device).manual_seed(int(seeds[0]))
        torch.manual_seed(int(seeds[1]))  # dropout
        for group in self.optimiser.param_groups:
            group["lr"] = self._rate(step)
        self.learner.train()
        self.optimiser.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        size = len(samples) // c.accumulate
        for first in range(0, len(samples), size):
            part = samples[first : first + size]
            texts = [_drawn(s.descriptions, generator) for s in part]
            batch, targets = moved((self.batcher.batch(part, texts), self.batcher.targets(part)), device)
            shared = self.shared if isinstance(self.shared, DistributedDataParallel) else None
            with shared.no_sync() if shared is not None and first + size < len(samples) else nullcontext():
                with torch.autocast(device.type, torch.bfloat16, enabled=c.precision == "bf16"):
                    prediction, losses, total = self.shared(batch, targets, part, generator)
                (total / c.accumulate).backward()
            for kind, loss in {**losses, "loss": total}.items():
                sums[kind] = sums.get(kind, 0.0) + loss.detach() / c.accumulate
        torch.nn.utils.clip_grad_norm_(self.learner.parameters(), c.clip)
        self.optimiser.step()
        if self.average is not None:
            self.average.update(step)
        return sums, prediction, targets

    def resume(self, checkpoint: Path) -> None:
        """Load what a checkpoint of the same run holds."""
        load_weights(self.learner.policy, checkpoint)
        if self.learner.field is not None:
            load_weights(self.learner.field, checkpoint, FIELD_FILE)
        last = load_training(checkpoint, self.optimiser)
        if self.average is not None:  # what the checkpoint holds as weights is the average
            self.average = Average(self.learner, self.config.ema)
            with torch.no_grad():
                for name, parameter in self.learner.named_parameters():
                    parameter.copy_(last[name])

    def _save(self, step: int, meta: dict[str, Any]) -> None:
        c, last = self.config, {}
        if self.average is not None:
            last = {name: p.detach().clone() for name, p in self.learner.named_parameters()}
            self.average.swap()
        training = training_state(self.optimiser, last)
        save_checkpoint(Path(c.run), step, self.learner.policy, meta, training, c.keep, self.learner.field)
        if self.average is not None:
            self.average.swap()

    def _rate(self, step: int) -> float:
        c = self.config
        return learning_rate(step, c.steps, c.learning_rate, c.warmup, c.schedule)


def _never() -> bool:
    return False


def _drawn(texts: Sequence[str], generator: torch.Generator) -> str:
    return texts[int(torch.randint(len(texts), (), generator=generator, device=generator.device))]


def _row(losses: dict[str, Tensor]) -> dict[str, float]:
    row = {"loss": float(losses["loss"]), **{f"loss_{k}": float(v) for k, v in losses.items() if k != "loss"}}
    if "recon" in losses:
        row["field_psnr"] = -10 * math.log10(max(row["loss_recon"] / 2, 1e-10))
    return row


def mean_over(row: dict[str, float], fabric: Fabric) -> dict[str, float]:
    """Numbers averaged over all processes."""
    if fabric.world_size == 1:
        return row
    values = fabric.all_reduce(
        torch.tensor(list(row.values()), dtype=torch.float64, device=fabric.device), reduce_op="mean"
    )
    assert isinstance(values, Tensor)
    return dict(zip(row, values.tolist(), strict=True))


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
