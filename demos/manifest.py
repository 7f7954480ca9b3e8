"""`TASK/manifest.json`: how a task's recorded episodes came about, and which are there.

It is made from the episodes' own `manifield.json` files, which appear together with the episodes. So a kill between an
episode and the manifest loses nothing, and a resumed run ends with the same manifest as an uninterrupted one.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

from demos.record import SPLIT
from demos.store import open_episode
from demos.writer import EXTRA, LOW_DIM, UNFINISHED, episode_directory, remove_unfinished
from manifield.configuration import differences
from manifield.errors import InputError
from manifield.files import write_whole
from manifield.versions import versions

NAME = "manifest.json"
LOW_DIM_SHA256 = "low_dim_sha256"


class Manifest:
    """The recorded episodes of one task.

    Args:
        root: folder of all tasks.
        task: its name.
        settings: what makes its episodes what they are (base seed, the config of group `env`...), for JSON.
        overwrite: delete what an earlier collect recorded.

    Attributes:
        episodes: facts of the complete episodes by number, with the sha256 of their low-dimensional data and that of
            all their files.
        given_up: for numbers without any success, why each attempt was rejected.

    Raises:
        InputError: the folder holds episodes of another origin or made with other settings, or one that is damaged.
    """

    def __init__(self, root: Path, task: str, settings: dict[str, Any], overwrite: bool = False) -> None:
        self.root, self.task = root, task
        self.path = root / task / NAME
        self.settings = json.loads(json.dumps({"task": task, "split": SPLIT} | settings))
        self.versions: list[dict[str, str]] = []
        self.episodes: dict[int, dict[str, Any]] = {}
        self.given_up: dict[int, list[str]] = {}
        self._known: dict[int, str] = {}  # sha256 of all files of an episode, as an earlier run noted it
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
        for index, known in self._known.items():
            if index in self.episodes and self.episodes[index]["sha256"] != known:
                raise InputError(
                    f"{episode_directory(root, task, index)}: its files have changed since they were recorded; restore "
                    "them, or delete the episode and collect again"
                )
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

    def first_attempts(self) -> dict[str, int]:
        """Of how many episodes the expert solved the first scene: its success rate, before any selection."""
        solved = sum(facts["attempts"] == 1 for facts in self.episodes.values())
        return {"solved": solved, "of": len(self.episodes) + len(self.given_up)}

    def sha256(self) -> str:
        """Of the files of all episodes: equal for equal data sets."""
        hashes = [self.episodes[index]["sha256"] for index in sorted(self.episodes)]
        return hashlib.sha256("".join(hashes).encode()).hexdigest()

    def summary(self) -> str:
        """One line for people."""
        rejected, first = self.all_rejected(), self.first_attempts()
        variations = len({facts["variation"] for facts in self.episodes.values()})
        frames = sum(facts["frames"] for facts in self.episodes.values())
        return (
            f"{self.task}: {len(self.episodes)} episodes of {variations} variations, {frames} frames, "
            f"{len(rejected)} of {len(self.episodes) + len(rejected)} attempts rejected{_counts(rejected)}, expert "
            f"{first['solved']}/{first['of']} ({first['solved'] / max(1, first['of']):.0%}) at the first attempt, "
            f"sha256 {self.sha256()[:12]}"
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
            # Older manifests lack the settings that were added later, with null for what they did; their `sha256` is
            # of the low-dimensional data alone.
            changes = differences({key: old.get(key) for key in self.settings}, self.settings)
            self._known = {facts["index"]: facts["sha256"] for facts in old["episodes"] if LOW_DIM_SHA256 in facts}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise InputError(f"{self.path}: not a manifest; restore it, or choose another folder, data=…") from None
        if changes:
            told = "; ".join(changes)
            raise InputError(
                f"{self.path.parent}: was recorded with {told}; choose another folder, data=…, or overwrite=true"
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
        facts[LOW_DIM_SHA256] = hashlib.sha256((path / LOW_DIM).read_bytes()).hexdigest()
        facts["sha256"] = hash_folder(path)
        self.episodes[index] = facts

    def _save(self) -> None:
        content = self.settings | {
            "versions": self.versions,
            "sha256": self.sha256(),
            "first_attempts": self.first_attempts(),
            "rejected": dict(sorted(Counter(self.all_rejected()).items())),
            "given_up": {str(index): self.given_up[index] for index in sorted(self.given_up)},
            "episodes": [self.episodes[index] for index in sorted(self.episodes)],
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, json.dumps(content, indent=2) + "\n")


def hash_folder(folder: Path) -> str:
    """sha256 over the names and contents of all files below `folder`."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{content} {path.relative_to(folder).as_posix()}\n".encode())
    return digest.hexdigest()


def _counts(reasons: list[str]) -> str:
    counted = ", ".join(f"{reason} {count}" for reason, count in Counter(reasons).most_common())
    return f" ({counted})" if counted else ""
