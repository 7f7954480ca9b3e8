"""Which checkpoints of a run stay: the newest, the best, and one now and then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SMALL_IS_GOOD = ("loss", "cm", "deg")
"""Words in the names of measures that should fall; others should rise."""


@dataclass(frozen=True)
class Keeping:
    """The rule. newest: how many of the last ones. every: those after a multiple of so many steps too; None for none.
    best: the measure by which the best one stays too; None for none."""

    newest: int = 2
    every: int | None = None
    best: str | None = None

    def staying(self, found: Mapping[int, Mapping[str, float]]) -> set[int]:
        """The steps of the checkpoints that stay. found: of each checkpoint's step its measures."""
        steps = sorted(found)
        stay = set(steps[-self.newest :])
        if self.every:
            stay |= {step for step in steps if step % self.every == 0}
        if self.best is not None:
            stay |= set(best_first(found, self.best)[:1])
        return stay


def best_first(found: Mapping[int, Mapping[str, float]], measure: str) -> Sequence[int]:
    """Steps of the checkpoints that have a measure, the best first; of equals the earlier."""
    sign = 1 if any(word in SMALL_IS_GOOD for word in measure.split("_")) else -1
    return sorted((s for s in found if measure in found[s]), key=lambda step: (sign * found[step][measure], step))
