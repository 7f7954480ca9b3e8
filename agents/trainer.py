"""The loop of a training: batches in, updates of the weights, rows of numbers and checkpoints out."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from omegaconf import DictConfig
from torch import Tensor, nn

from agents.ahead import ahead
from agents.batching import Batcher
from agents.checkpoint import load_training, save_checkpoint, training_state
from agents.keeping import Keeping
from agents.losses import policy_losses
from agents.measures import Validation, coarse_distances, field_psnr, training_metrics
from agents.optimisers import Average, learning_rate, make_optimiser
from agents.parallel import anyone, mean_over, sum_over
from agents.policy import Policy
from agents.sampling import Sampler
from agents.scene_field import SceneField
from agents.sharding import alone, is_sharded, like, whole
from agents.snapshots import Snapshots
from agents.tensors import Batch, Prediction, Targets
from agents.tracking import Tracker
from demos.dataset import Sample
from manifield.devices import moved, peak_memory
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
        """What the policy predicts (told the target, see `Policy`), the losses by kind, and their weighted sum."""
        prediction = self.policy(batch, targets.position, generator)
        rendered = {} if self.field is None else self.field.losses(batch, prediction, samples, generator)
        with torch.autocast(targets.position.device.type, enabled=False):
            losses = policy_losses(prediction, targets, self.policy.config.soft_labels)
        weighted = [*losses.values()]
        if self.field is not None:
            weighted += [self.field.weights[kind] * loss for kind, loss in rendered.items() if self.field.weights[kind]]
        return prediction, losses | rendered, torch.stack(weighted).sum()

    def predict(self, batch: Batch) -> Prediction:
        """What the policy predicts by itself."""
        prediction: Prediction = self.policy(batch)
        return prediction

    def compile_networks(self) -> None:
        """Let torch.compile translate what has the same shapes in every step; points, words and rays have not."""
        for stage in self.policy.stages:
            parts: list[nn.Module | None] = [stage.encoder, stage.mixer, stage.decoder]  # type: ignore[list-item]
            for part in parts:
                if part is not None:
                    part.compile()

    def sizes(self) -> str:
        """How many parameters, in words."""
        parts = {"agent": self.policy, "field": self.field}
        sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items() if part is not None}
        return ", ".join(f"{name}: {size / 1e6:.2f} M parameters" for name, size in sizes.items())


class Trainer:
    """The loop over steps.

    Args:
        config: of `manifield train`. fabric: this process's place among those that train. batcher: makes tensors of
            samples. sampler: draws whole batches, of which this process takes its share. validation: measures on what
            is held back; snapshots: draws pictures now and then; None for neither.
    """

    def __init__(
        self,
        config: DictConfig,
        fabric: Fabric,
        learner: Learner,
        batcher: Batcher,
        sampler: Sampler,
        validation: Validation | None = None,
        snapshots: Snapshots | None = None,
    ) -> None:
        self.config, self.fabric, self.learner, self.batcher, self.sampler = config, fabric, learner, batcher, sampler
        self.validation, self.snapshots = validation, snapshots
        c = config
        if c.compile:
            learner.compile_networks()
        # The strategy's own wrapper, without Fabric's, which copies what passes through it.
        self.shared = learner if fabric.world_size == 1 else fabric.strategy.setup_module(learner)
        self.sharded = is_sharded(self.shared)
        self.optimiser = make_optimiser(c.optimiser, learner.parameters(), c.learning_rate, c.weight_decay)
        self.average = Average(learner, c.ema) if c.ema else None
        self.places = range(fabric.global_rank, config.batch, fabric.world_size)

    def train(self, meta: dict[str, Any], first: int, tracker: Tracker | None) -> None:
        """Steps from `first` on, with checkpoints and rows of metrics by the process that has a tracker."""
        c, agent, augmentation = self.config, self.learner.policy.config, meta["config"]["augmentation"]
        begin = time.perf_counter()
        row: dict[str, float] = {}
        with ExitStack() as stack:
            progress, stopping = None, _never
            if tracker is not None:
                stopping = stack.enter_context(stop_politely("this step"))
                progress = stack.enter_context(Progress("train", c.steps, "steps", first))
            steps = range(first, c.steps)
            batches = ahead(lambda n: self.sampler.draw(n, augmentation, agent, self.places), steps, c.loaders)
            for step, samples in zip(steps, stack.enter_context(closing(batches)), strict=True):
                losses, prediction, targets = self.step(samples, step)
                done, stop = step + 1, anyone(stopping(), self.fabric)
                self._refocus(step, prediction, targets)
                last, measured = done == c.steps, {}
                saving = done % c.checkpoint_every == 0 or last or stop
                if done % c.log_every == 0 or last:
                    own = {**_row(losses), **training_metrics(prediction, targets, agent.soft_labels)}
                    rate = (done - first) * c.batch / (time.perf_counter() - begin)
                    speed = {"learning_rate": self._rate(step), "samples_per_second": rate}
                    measured = {**mean_over(own, self.fabric), **speed, "memory_gib": peak_memory(self.fabric.device)}
                if self.validation is not None and saving and (tracker is not None or self.sharded):
                    measured |= self.validation.measure(self.learner)
                if tracker is not None and measured:
                    tracker.log(done, measured)
                    row |= measured
                if tracker is not None and self.snapshots is not None and (done % c.pictures_every == 0 or last):
                    tracker.show(done, self.snapshots.draw(self.learner))
                if progress is not None:
                    progress.advance(1, loss=float(losses["loss"]))
                if saving:
                    self._save(done, meta | {"metrics": row}, tracker is not None)
                if stop and not last:
                    raise KeyboardInterrupt

    def step(self, samples: list[Sample], step: int) -> tuple[dict[str, Tensor], Prediction, Targets]:
        """One update of the weights; what is random in it depends on (seed, step) and this process's number only.

        Returns:
            this process's losses by kind, "loss", their weighted sum, and "gradient_norm", before clipping; what the
            policy predicted, and what it should have.

        Raises:
            InputError: loss or gradient is not finite; the weights are as they were before.
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
            with alone(self.shared, first + size < len(samples)):
                with torch.autocast(device.type, torch.bfloat16, enabled=c.precision == "bf16"):
                    prediction, losses, total = self.shared(batch, targets, part, generator)
                (total / c.accumulate).backward()
            for kind, loss in {**losses, "loss": total}.items():
                sums[kind] = sums.get(kind, 0.0) + loss.detach() / c.accumulate
        sums["gradient_norm"] = whole(torch.nn.utils.clip_grad_norm_(self.learner.parameters(), c.clip))
        self._refuse_nonsense(sums, samples, step)
        self.optimiser.step()
        if self.average is not None:
            self.average.update(step)
        return sums, prediction, targets

    def resume(self, checkpoint: Path, step: int) -> None:
        """Load what a checkpoint of the same run holds beside the weights, which the learner has already."""
        last, focus = load_training(checkpoint, self.optimiser)
        if self.sampler.focus is not None:
            state = {name: value.numpy() for name, value in focus.items()}
            self.sampler.focus.load(state, step, self.fabric.is_global_zero)
        if self.average is not None:  # what the checkpoint holds as weights is the average
            self.average = Average(self.learner, self.config.ema)
            with torch.no_grad():
                for name, parameter in self.learner.named_parameters():
                    parameter.copy_(like(last[name], parameter))

    def _refocus(self, step: int, prediction: Prediction, targets: Targets) -> None:
        """Draw more of what is still missed, where that is wanted."""
        if self.sampler.focus is None:
            return
        chosen = self.sampler.choose(step)
        numbers = [chosen[place] for place in self.places][-len(targets.position) :]  # of the last part of a batch
        self.sampler.focus.observe(numbers, coarse_distances(prediction, targets).cpu().numpy())
        self.sampler.focus.turn(step + 1, self._total)

    def _total(self, counts: np.ndarray) -> np.ndarray:
        """Whole numbers, summed over all processes."""
        return sum_over(torch.from_numpy(counts), self.fabric).numpy()

    def _refuse_nonsense(self, sums: dict[str, Tensor], samples: list[Sample], step: int) -> None:
        kept = "the last checkpoint is kept; try a lower learning_rate, or precision=float32"
        if not math.isfinite(sums["loss"]):
            names = ", ".join(s.name for s in samples)
            raise InputError(f"loss is not finite at step {step + 1} (samples {names}): {kept}")
        if not math.isfinite(sums["gradient_norm"]):  # all processes have the same
            names = ", ".join(self.sampler.names(step))
            raise InputError(f"gradient is not finite at step {step + 1} (one of samples {names}): {kept}")

    def _save(self, step: int, meta: dict[str, Any], writes: bool) -> None:
        """A checkpoint, by the process that writes; under FSDP the others lend their parts to it."""
        focus = {}
        if self.sampler.focus is not None:
            state = self.sampler.focus.state(self._total, self.fabric.is_global_zero)
            focus = {name: torch.from_numpy(value) for name, value in state.items()}
        if not (writes or self.sharded):
            return
        c, last = self.config, {}
        weights = {name: whole(value.detach()) for name, value in self.learner.state_dict().items()}
        if self.average is not None:
            last = {name: weights[name] for name, _ in self.learner.named_parameters()}
            weights |= {name: whole(value) for name, value in self.average.weights.items()}
        training = training_state(self.optimiser, last, focus)
        if writes:
            keeping = Keeping(c.keep, c.keep_every, c.best)
            save_checkpoint(Path(c.run), step, self.learner.policy.config, weights, meta, training, keeping)

    def _rate(self, step: int) -> float:
        c = self.config
        return learning_rate(step, c.steps, c.learning_rate, c.warmup, c.schedule)


def _never() -> bool:
    return False


def _drawn(texts: Sequence[str], generator: torch.Generator) -> str:
    return texts[int(torch.randint(len(texts), (), generator=generator, device=generator.device))]


def _row(losses: dict[str, Tensor]) -> dict[str, float]:
    row = {k if k in ("loss", "gradient_norm") else f"loss_{k}": float(v) for k, v in losses.items()}
    row = {"loss": row.pop("loss"), **row}
    if "recon" in losses:
        row["field_psnr"] = field_psnr(row["loss_recon"])
    return row
