"""The report's film strips: which episodes to show, and how they get into the page."""

from __future__ import annotations

import io
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from agents.report.pictures import data_uri
from agents.report.run_folder import RunFolder
from manifield.errors import InputError

QUALITY = 82  # of WebP: a strip of four frames takes about 25 kB, a fifth of its PNG


def strips_section(run: RunFolder, most: int) -> str:
    """Strips of successes and of failures for each task of the headline's evaluation, at most `most` of either."""
    main = run.main
    episodes = [e for e in main.episodes if e.get("strip")] if main else []
    if main is None or not episodes:
        return '<p class="absent">not run</p>'
    parts = []
    for task in main.tasks:
        for wanted, title in ((True, "solved"), (False, "failed")):
            found = [e for e in episodes if e.get("task") == task and bool(e.get("success")) is wanted]
            chosen = pick(found, most)
            figures = "".join(_strip(main.folder, episode) for episode in chosen)
            if figures:
                count = f"{len(chosen)} of {len(found)}" if len(found) > len(chosen) else str(len(found))
                summary = f'<b>{escape(task)}</b> {title} <span class="note">{count} shown</span>'
                row = f'<div class="row">{figures}</div>'
                parts.append(f'<details class="strips" open><summary>{summary}</summary>{row}</details>')
    return (
        '<p class="note">Every picture is what the agent saw before a key-frame; drawn in are the gripper pose it '
        "chose and, as heat, how good it found each place.</p>" + "\n".join(parts)
    )


def pick(episodes: Sequence[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """At most `most` episodes that differ: in turn one of each reason of failure, and within it of each variation."""
    kinds: dict[Any, dict[Any, list[dict[str, Any]]]] = {}
    for episode in episodes:
        kinds.setdefault(episode.get("failure"), {}).setdefault(episode.get("variation"), []).append(episode)
    queues = [_interleave(list(variations.values())) for variations in kinds.values()]
    return _interleave(queues)[:most]


def _interleave(queues: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    longest = max((len(queue) for queue in queues), default=0)
    return [queue[i] for i in range(longest) for queue in queues if i < len(queue)]


def _strip(folder: Path, episode: dict[str, Any]) -> str:
    path = folder / str(episode["strip"])
    if not path.is_file():
        return ""
    try:
        with Image.open(path) as picture:
            width, height = picture.size
            buffer = io.BytesIO()
            picture.convert("RGB").save(buffer, format="WEBP", quality=QUALITY)
    except (OSError, UnidentifiedImageError) as error:
        raise InputError(f"{path}: not a readable picture ({error}); run evaluate again") from error
    failure = f' <span class="failure">{escape(str(episode["failure"]))}</span>' if episode.get("failure") else ""
    facts = ", ".join(
        f"{name} {episode[key]}"
        for key, name in (("index", "episode"), ("variation", "variation"), ("seed", "seed"), ("steps", "key-frames:"))
        if episode.get(key) is not None
    )
    instruction = str(episode.get("instruction", ""))
    caption = f'<q>{escape(instruction)}</q>{failure} <span class="note">{escape(facts)}</span>'
    source = data_uri(buffer.getvalue(), "image/webp")
    return (
        f'<figure class="strip" style="width:{max(260, width)}px"><figcaption>{caption}</figcaption><div class="wide">'
        f'<img alt="{escape(instruction)}" width="{width}" height="{height}" src="{source}"></div></figure>'
    )
