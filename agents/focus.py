"""Which key-frames are still missed, and how much more often they are drawn.

Most key-frames follow from where the tool is. A few are choices (which jar, which square, from which side), and these
need many more samples than their share: of a task with six key-frames among ten tasks, one batch of 8 in eight has one.
(Not published.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

WINDOW = 50
"""Steps with the same probabilities. They follow from what was missed until one window before: batches may be drawn up
to so many steps ahead, and whoever resumes draws the same."""
FAR = 0.04
"""Metres from the goal at which the coarse look at a scene has missed it."""
TRUST = 4
"""Samples that the former estimate of a group counts as much as."""


class Focus:
    """How often the goal was missed, by task and number of the key-frame.

    Args:
        share: of the samples that are drawn by misses, 0 to 1; the others are drawn by `probability`.
        probability: [N] of every transition. groups: [N] what they are alike in.
    """

    def __init__(self, share: float, probability: np.ndarray, groups: Sequence[tuple[str, int]]) -> None:
        self.share, self.probability = share, probability
        self.names = sorted(set(groups))
        self._group = np.array([self.names.index(group) for group in groups])
        self.counts = np.zeros((2, len(self.names)), np.int64)  # looked at and missed in this window, by this process
        self._missed = {0: np.ones(len(self.names)), 1: np.ones(len(self.names))}  # by window: this one, the next

    def probabilities(self, step: int) -> np.ndarray:
        """[N] of the transitions in a step's window."""
        by_misses = self.probability * self._missed[step // WINDOW][self._group]
        return (1 - self.share) * self.probability + self.share * by_misses / by_misses.sum()

    def observe(self, numbers: Sequence[int], distances: np.ndarray) -> None:
        """What this process has seen: transitions, and how far from their goals (metres) it would have gone."""
        for group, distance in zip(self._group[list(numbers)], distances, strict=True):
            self.counts[:, group] += 1, distance > FAR

    def turn(self, done: int, total: Callable[[np.ndarray], np.ndarray]) -> None:
        """After so many steps: at the end of a window, think again. total: sums up over all processes."""
        if done % WINDOW:
            return
        (looked, missed), window = total(self.counts), done // WINDOW
        new = (TRUST * self._missed[window] + missed) / (TRUST + looked)
        self._missed = {window: self._missed[window], window + 1: np.maximum(new, 1e-3)}
        self.counts[:] = 0

    def state(self, total: Callable[[np.ndarray], np.ndarray], first: bool) -> dict[str, np.ndarray]:
        """To go on from. The first process has then what all have counted."""
        counts = total(self.counts)
        self.counts = counts if first else np.zeros_like(counts)
        return {"counts": counts.copy(), "missed": np.stack([self._missed[w] for w in sorted(self._missed)])}

    def load(self, state: dict[str, np.ndarray], step: int, first: bool) -> None:
        """Go on from a state that was saved after so many steps."""
        window = step // WINDOW
        self._missed = {window + i: missed for i, missed in enumerate(state["missed"])}
        self.counts = state["counts"].astype(np.int64) if first else np.zeros_like(self.counts)
