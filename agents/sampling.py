"""Which samples a training step sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from agents.config import AgentConfig
from demos.augment import augment, thin
from demos.dataset import KeyframeDataset, Sample
from demos.recolour import recolour


class Sampler:
    """Draws batches: a task uniformly, then one of its transitions by weight.

    What step n draws depends on (seed, n) alone, and what augmentation does to a sample on its place in the batch, too:
    not on what was drawn before, nor on how many processes share the batch.
    """

    def __init__(self, dataset: KeyframeDataset, seed: int, batch: int, first_keyframe_weight: float) -> None:
        self.dataset, self.seed, self.batch = dataset, seed, batch
        weight = np.array(dataset.weights) * np.where(np.array(dataset.keyframe_numbers) == 0, first_keyframe_weight, 1)
        tasks = np.array(dataset.task_of)
        for task in dataset.tasks:
            weight[tasks == task] /= weight[tasks == task].sum() * len(dataset.tasks)
        self.probability = weight / weight.sum()

    def choose(self, step: int) -> list[int]:
        """Numbers of the transitions of a step's whole batch."""
        rng = np.random.default_rng([self.seed, step])
        few = self.batch > len(self.dataset)
        return [int(k) for k in rng.choice(len(self.dataset), self.batch, p=self.probability, replace=few)]

    def draw(
        self, step: int, augmentation: dict[str, Any], agent: AgentConfig, places: Sequence[int] | None = None
    ) -> list[Sample]:
        """The augmented samples of a step. places: in the batch, of those that are wanted; None for all."""
        chosen, samples = self.choose(step), []
        for place in range(self.batch) if places is None else places:
            rng = np.random.default_rng([self.seed, step, place])
            sample = thin(self.dataset[chosen[place]], rng, augmentation["points"])
            if augmentation["recolour"] and rng.random() < augmentation["recolour"]:
                sample = recolour(sample, rng)
            yaw, shift = np.radians(augmentation["yaw"]), np.array(augmentation["shift"])
            samples.append(augment(sample, rng, np.array(agent.low), np.array(agent.high), yaw, shift))
        return samples
