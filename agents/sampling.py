"""Which samples a training step sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from agents.config import AgentConfig
from agents.focus import Focus
from demos.augment import augment, thin
from demos.dataset import KeyframeDataset, Sample
from manifield.errors import choose

SAMPLING = ("balanced", "epochs")


class Sampler:
    """Draws batches: "balanced", a task uniformly, then one of its transitions by weight; or in "epochs", in each of
    which every transition comes once, in another order.

    What step n draws depends on (seed, n) alone (and with `focus` on what was missed before), and what augmentation
    does to a sample on its place in the batch, too: not on how many processes share the batch.
    """

    def __init__(
        self,
        dataset: KeyframeDataset,
        seed: int,
        batch: int,
        first_keyframe_weight: float,
        sampling: str = "balanced",
        focus: float = 0.0,
    ) -> None:
        self.dataset, self.seed, self.batch = dataset, seed, batch
        self.sampling = choose(sampling, SAMPLING, "sampling")
        weight = np.array(dataset.weights) * np.where(np.array(dataset.keyframe_numbers) == 0, first_keyframe_weight, 1)
        tasks = np.array(dataset.task_of)
        for task in dataset.tasks:
            weight[tasks == task] /= weight[tasks == task].sum() * len(dataset.tasks)
        self.probability = weight / weight.sum()
        groups = list(zip(dataset.task_of, dataset.keyframe_numbers, strict=True))
        self.focus = Focus(focus, self.probability, groups) if focus else None

    def choose(self, step: int) -> list[int]:
        """Numbers of the transitions of a step's whole batch."""
        if self.sampling == "epochs":
            count, first = len(self.dataset), step * self.batch
            epochs = range(first // count, (first + self.batch - 1) // count + 1)
            order = np.concatenate([np.random.default_rng([self.seed, e]).permutation(count) for e in epochs])
            start = first - epochs[0] * count
            return [int(k) for k in order[start : start + self.batch]]
        rng = np.random.default_rng([self.seed, step])
        few = self.batch > len(self.dataset)
        probability = self.probability if self.focus is None else self.focus.probabilities(step)
        return [int(k) for k in rng.choice(len(self.dataset), self.batch, p=probability, replace=few)]

    def names(self, step: int) -> list[str]:
        """Which episodes and frames a step's whole batch shows."""
        items = [self.dataset.items[number] for number in self.choose(step)]
        return [f"{item.episode} frame {item.source}" for item in items]

    def draw(
        self, step: int, augmentation: dict[str, Any], agent: AgentConfig, places: Sequence[int] | None = None
    ) -> list[Sample]:
        """The augmented samples of a step. places: in the batch, of those that are wanted; None for all."""
        chosen, samples = self.choose(step), []
        for place in range(self.batch) if places is None else places:
            rng = np.random.default_rng([self.seed, step, place])
            sample = thin(self.dataset[chosen[place]], rng, augmentation["points"])
            yaw, shift = np.radians(augmentation["yaw"]), np.array(augmentation["shift"])
            samples.append(augment(sample, rng, np.array(agent.low), np.array(agent.high), yaw, shift))
        return samples
