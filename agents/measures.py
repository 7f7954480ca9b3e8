"""What is measured while training: errors of every head, on the batch and on what is held back."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from agents.actions import rotation_error
from agents.batching import Batcher
from agents.policy import decode_position
from agents.tensors import UNKNOWN, Prediction, Targets
from demos.dataset import KeyframeDataset
from manifield.devices import moved

if TYPE_CHECKING:
    from agents.trainer import Learner

HELD_BACK = ("val_loss", "val_translation_cm", "val_rotation_deg", "val_gripper", "val_collision", "val_field_psnr")
"""Columns by which a checkpoint can be the best one, of those that `Validation` measures."""


@torch.no_grad()
def training_metrics(prediction: Prediction, targets: Targets, soft: bool) -> dict[str, float]:
    """On the augmented batch, of which later stages are shown the right crop: median error of the coarse and of the
    last position in cm, and how often all angles, the gripper and the collision flag (NaN where unknown) are right.

    Args:
        soft: whether labels are; a class beside the right one (5° for 72 of them) then counts as right, too.
    """
    last = decode_position(prediction.q[-1], prediction.low[-1], prediction.high[-1], soft)
    label = targets.rotation.gather(2, prediction.rotation.argmax(dim=2, keepdim=True))[..., 0]
    known = targets.collision != UNKNOWN
    collision = (prediction.collision.argmax(1) == targets.collision)[known]
    return {
        "train_coarse_cm": 100 * float(coarse_distances(prediction, targets).median()),
        "train_translation_cm": 100 * float((last - targets.position).norm(dim=1).median()),
        "train_rotation": float((label > 0.5 * targets.rotation.amax(dim=2)).all(dim=1).float().mean()),
        "train_gripper": float((prediction.gripper.argmax(1) == targets.gripper).float().mean()),
        "train_collision": float(collision.float().mean()) if len(collision) else math.nan,
    }


@torch.no_grad()
def coarse_distances(prediction: Prediction, targets: Targets) -> Tensor:
    """[B] metres from what the first look at the scene finds to the goal."""
    coarse = decode_position(prediction.q[0], prediction.low[0], prediction.high[0], soft=True)
    return (coarse - targets.position).norm(dim=1)


class Validation:
    """Measures on held-back demonstrations, as they are (not augmented), always with the same random numbers.

    Args:
        dataset: the held-back transitions. batcher: makes tensors of them. size: samples at a time. device: of the
            learner. bf16: the arithmetic.
    """

    def __init__(self, dataset: KeyframeDataset, batcher: Batcher, size: int, device: torch.device, bf16: bool) -> None:
        self.dataset, self.batcher, self.size, self.device, self.bf16 = dataset, batcher, size, device, bf16

    @torch.no_grad()
    def measure(self, learner: Learner) -> dict[str, float]:
        """Losses as in training ("val_loss", "val_loss_…", "val_field_psnr"), and of what the agent would do: median
        errors "val_translation_cm" and "val_rotation_deg", and how often "val_gripper" and "val_collision" are
        right."""
        learner.eval()
        sums: dict[str, float] = {}
        errors: list[tuple[float, float, bool]] = []
        collisions: list[bool] = []
        generator = torch.Generator(self.device).manual_seed(0)
        for first in range(0, len(self.dataset), self.size):
            samples = [self.dataset[i] for i in range(first, min(first + self.size, len(self.dataset)))]
            batch = self.batcher.batch(samples, [s.descriptions[0] for s in samples])
            batch, targets = moved((batch, self.batcher.targets(samples)), self.device)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                _, losses, total = learner(batch, targets, samples, generator)
                prediction = learner.predict(batch)
            for kind, loss in {"": total, **losses}.items():
                sums[kind] = sums.get(kind, 0.0) + float(loss) * len(samples) / len(self.dataset)
            bins = prediction.rotation.argmax(dim=-1).cpu().numpy()
            distances = (prediction.position - targets.position).norm(dim=1).tolist()
            grippers = (prediction.gripper.argmax(1) == targets.gripper).tolist()
            flags = prediction.collision.argmax(1).tolist()
            for i, sample in enumerate(samples):
                turn = rotation_error(self.batcher.rotations.decode(bins[i]), sample.quaternion)
                errors.append((100 * distances[i], math.degrees(turn), grippers[i]))
                if sample.ignore_collisions is not None:
                    collisions.append(bool(flags[i]) == sample.ignore_collisions)
        centimetres, degrees, right = np.array(errors, float).T
        row = {f"val_loss_{kind}" if kind else "val_loss": value for kind, value in sums.items()}
        if "recon" in sums:
            row["val_field_psnr"] = field_psnr(sums["recon"])
        row |= {"val_translation_cm": float(np.median(centimetres)), "val_rotation_deg": float(np.median(degrees))}
        row["val_gripper"] = float(right.mean())
        return row | ({"val_collision": sum(collisions) / len(collisions)} if collisions else {})


def field_psnr(recon: float) -> float:
    """PSNR in dB of L_rgb, which is the sum of the coarse and the fine samples' squared errors."""
    return -10 * math.log10(max(recon / 2, 1e-10))
