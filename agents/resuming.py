"""Which checkpoint a training goes on from, and whether it may."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agents.checkpoint import latest_checkpoint, load_meta
from manifield.configuration import differences
from manifield.errors import InputError

WHAT_A_RUN_IS = (
    *(
        "agent",
        "field",
        "data",
        "episodes",
        "transitions",
        "augmentation",
        "first_keyframe_weight",
        "focus",
        "sampling",
    ),
    *("steps", "batch", "accumulate", "optimiser", "learning_rate", "schedule", "weight_decay", "warmup", "clip"),
    *("ema", "precision", "threads", "seed"),
)
"""Config keys that a resumed run must share with the run it goes on from (`episodes` stands for tasks and select)."""
ADDED = {"sampling": "balanced", "focus": 0.0, "named": 0}
"""Of keys that older runs do not have, wherever they stand, what these did."""
REMOVED = {"recolour": 0.0}
"""Keys that only older runs have, and values that change nothing."""


def checkpoint_to_resume(folder: Path, settings: dict[str, Any]) -> Path | None:
    """The run's newest checkpoint, if any.

    Raises:
        InputError: it was made with other settings.
    """
    checkpoint = latest_checkpoint(folder)
    if checkpoint is None:
        if (folder / "metrics.csv").is_file():
            print(f"{folder} was stopped before its first checkpoint: starting at step 0", flush=True)
        return None
    meta = load_meta(checkpoint)
    now = {k: settings.get(k) for k in WHAT_A_RUN_IS}
    before = _completed(meta["config"], now)
    changes = _changes({k: before.get(k) for k in WHAT_A_RUN_IS}, now)
    if changes:
        raise InputError(
            f"{folder} holds a run with {'; '.join(changes)}: repeat its settings to go on, or give another run="
        )
    print(f"going on from {checkpoint}", flush=True)
    return checkpoint


def _completed(before: Any, now: Any) -> Any:
    """An older config with the keys that it lacks, and without those that are gone and changed nothing."""
    if isinstance(before, dict) and isinstance(now, dict):
        before = {k: v for k, v in before.items() if k not in REMOVED or v != REMOVED[k]}
        missing = {k: ADDED[k] for k in now if k in ADDED and k not in before}
        return {k: _completed(v, now.get(k)) for k, v in {**before, **missing}.items()}
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        return [_completed(*pair) for pair in zip(before, now, strict=True)]
    return before


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
