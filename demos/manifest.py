"""`TASK/manifest.json`: how a task's recorded episodes came about, and which are there.

It is made from the episodes' own `manifield.json` files, which appear together with the episodes. So a kill between an
episode and the manifest loses nothing, and a resumed run ends with the same manifest as an uninterrupted one.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from demos.store import open_episode
from demos.writer import EXTRA, LOW_DIM, UNFINISHED, episode_directory, remove_unfinished
from manifield.errors import InputError
from manifield.versions import versions

NAME = "manifest.json"


class Manifest:
    """The recorded episodes of one task.

    Args:
        root: folder of all tasks.
        task: its name.
        seed: base seed.
        environment: the config of group `env`.
        overwrite: delete what an earlier collect recorded.

    Attributes:
        episodes: facts of the complete episodes by number.
        given_up: for numbers without any success, why each attempt was rejected.

    Raises:
        InputError: the folder holds episodes of another origin or made with other settings, or a damaged one.
    """

    def __init__(self, root: Path, task: str, seed: int, environment: dict[str, Any], overwrite: bool = False) -> None:
        self.root, self.task = root, task
        self.path = root / task / NAME
        self.settings = json.loads(json.dumps({"task": task, "split": "train", "seed": seed, "env": environment}))
        self.versions: list[dict[str, str]] = []
        self.episodes: dict[int, dict[str, Any]] = {}
        self.given_up: dict[int, list[str]] = {}
        folder = episode_directory(root, task, 0).parent
        recorded = self.path.exists()
        if folder.exists() and not recorded and any(folder.glob("episode*")):
            raise InputError(f"{folder}: holds episodes that `collect` has not recorded; choose another folder, data=…")
        if recorded and overwrite:
            if folder.exists():  # one step first, so that a kill cannot leave an episode with half of its files
                folder.rename(folder.with_name(f"{UNFINISHED}deletion"))
            self.path.unlink()
            recorded = False
        if recorded:
            self._resume()
        for directory in (folder, folder.parent):
            remove_unfinished(directory)
        present = versions()
        if present not in self.versions:
            self.versions.append(present)
        for path in folder.glob("episode*"):
            self._read(int(path.name.removeprefix("episode")))
        self._save()

    def add(self, index: int, rejected: list[str], success: bool) -> None:
        """Note the outcome of an episode, which must be on disk if it is a success."""
        if success:
            self._read(index)
        else:
            self.given_up[index] = rejected
        self._save()

    def all_rejected(self) -> list[str]:
        """Why attempts were rejected, those of recorded episodes and of given-up ones."""
        recorded = [reason for facts in self.episodes.values() for reason in facts["rejected"]]
        return recorded + [reason for reasons in self.given_up.values() for reason in reasons]

    def summary(self) -> str:
        """One line for people."""
        rejected = self.all_rejected()
        variations = len({facts["variation"] for facts in self.episodes.values()})
        frames = sum(facts["frames"] for facts in self.episodes.values())
        return (
            f"{self.task}: {len(self.episodes)} episodes of {variations} variations, {frames} frames, "
            f"{len(rejected)} of {len(self.episodes) + len(rejected)} attempts rejected{_counts(rejected)}"
        )

    def excuse(self) -> str:
        """Which episodes are missing, and why."""
        reasons = [reason for reasons in self.given_up.values() for reason in reasons]
        numbers = ", ".join(map(str, sorted(self.given_up)))
        return f"{self.task}: no success for episode {numbers} in {len(reasons)} attempts{_counts(reasons)}"

    def _resume(self) -> None:
        try:
            old = json.loads(self.path.read_text(encoding="utf-8"))
            self.versions = old["versions"]
            differing = [key for key, value in self.settings.items() if old[key] != value]
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{self.path}: not a manifest; restore it, or choose another folder, data=…") from None
        if differing:
            changes = ", ".join(f"{key}={_brief(old[key])}, not {_brief(self.settings[key])}" for key in differing)
            raise InputError(
                f"{self.path.parent}: was recorded with {changes}; choose another folder, data=…, or overwrite=true"
            )

    def _read(self, index: int) -> None:
        path = episode_directory(self.root, self.task, index)
        episode = open_episode(path)
        try:
            facts = json.loads((path / EXTRA).read_text(encoding="utf-8"))
            complete = facts["frames"] == len(episode) and facts["index"] == index and "rejected" in facts
        except (OSError, ValueError, KeyError, TypeError):
            complete = False
        if not complete:
            raise InputError(f"{path / EXTRA}: missing or not this episode's; delete the episode and collect again")
        facts["sha256"] = hashlib.sha256((path / LOW_DIM).read_bytes()).hexdigest()
        self.episodes[index] = facts

    def _save(self) -> None:
        content = self.settings | {
            "versions": self.versions,
            "rejected": dict(sorted(Counter(self.all_rejected()).items())),
            "given_up": {str(index): self.given_up[index] for index in sorted(self.given_up)},
            "episodes": [self.episodes[index] for index in sorted(self.episodes)],
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(f".{NAME}")
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        os.replace(temporary, self.path)


def _counts(reasons: list[str]) -> str:
    counted = ", ".join(f"{reason} {count}" for reason, count in Counter(reasons).most_common())
    return f" ({counted})" if counted else ""


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 100 else text[:97] + "..."
