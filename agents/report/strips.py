"""The report's film strips: which episodes and which of their frames to show, and how they get into the page."""

from __future__ import annotations

import io
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from agents.report.colours import ink_on, outcome_colour
from agents.report.markup import words
from agents.report.pictures import AXES, HEAT, PREDICTED, cut_strip, data_uri
from agents.report.run_folder import RunFolder
from manifield.errors import InputError
from manifield.files import inside

QUALITY = 80  # of WebP: a frame takes about 6 kB, a fifth of its PNG
FIRST, LAST = 2, 3  # frames of an episode that are shown; those between them are counted


def strips_section(run: RunFolder, most: int) -> str:
    """Strips of successes and of failures for each task of the headline's evaluation, at most `most` of either."""
    main = run.main
    if main is None:
        return ""
    episodes = [e for e in main.episodes if e.get("strip") and inside(main.folder, str(e["strip"])).is_file()]
    parts = []
    for task in main.tasks:
        for wanted, title in ((True, "solved"), (False, "failed")):
            found = [e for e in episodes if e.get("task") == task and bool(e.get("success")) is wanted]
            chosen = pick(found, most)
            if chosen:
                count = f"{len(chosen)} of {len(found)} shown" if len(found) > len(chosen) else str(len(found))
                summary = f'<b>{words(task)}</b> {title} <span class="note">{count}</span>'
                row = f'<div class="row">{"".join(_strip(main.folder, episode) for episode in chosen)}</div>'
                parts.append(f'<details class="strips" open><summary>{summary}</summary>{row}</details>')
    return _explanation() + "\n".join(parts) if parts else ""


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


def _explanation() -> str:
    """What a frame shows and what the marks in it mean, with samples of them."""
    heat = ",".join(f"rgb({red:.0f} {green:.0f} {blue:.0f})" for red, green, blue in HEAT)
    axes = "".join(f'<i style="background:rgb{colour}"></i>' for colour in AXES)
    ramp = f'<i class="ramp" style="background:linear-gradient(90deg,{heat})"></i>'
    gripper = f'<i style="background:rgb{PREDICTED}"></i>'
    marks = (
        (gripper, "where the gripper shall go next, its fingers drawn apart or shut"),
        (axes, "x, y and z axis of that gripper"),
        (ramp, "where the network would go: from worse places to the best in this picture"),
    )
    keys = "".join(f"<span>{sample}{text}</span>" for sample, text in marks)
    return (
        '<p class="note">A frame shows what the first camera saw before a key-frame, and the goal that the policy then '
        "chose; the last frame, without marks, is how the episode ended. A long episode is cut in the middle.</p>"
        f'<p class="legend marks">{keys}</p>'
    )


def _strip(folder: Path, episode: dict[str, Any]) -> str:
    path = inside(folder, str(episode["strip"]))
    try:
        with Image.open(path) as picture:
            frames = cut_strip(picture.convert("RGB"), int(episode.get("steps") or 0) + 1)
    except (OSError, UnidentifiedImageError) as error:
        raise InputError(f"{path}: not a readable picture ({error}); run evaluate again") from error
    instruction, reason = str(episode.get("instruction", "")), str(episode.get("failure") or "")
    names = [f"key-frame {i + 1}" for i in range(len(frames) - 1)]
    names.append("the end: " + ("solved" if episode.get("success") else "not solved"))
    if episode.get("first_choice_correct") is not None and len(names) > 1:
        names[0] += ", right choice" if episode["first_choice_correct"] else ", wrong choice"
    cells = [_frame(frame, name, instruction) for frame, name in zip(frames, names, strict=True)]
    left_out = len(cells) - FIRST - LAST
    if left_out > 1:  # one frame takes no more room than the words for it
        cells[FIRST:-LAST] = [f'<div class="left-out">… {left_out} frames …</div>']
    facts = [f"{key} {episode[key]}" for key in ("variation",) if episode.get(key) is not None]
    facts = [f"episode {episode['index']}", *facts] if episode.get("index") is not None else facts
    facts.append(f"{len(frames) - 1} key-frames")
    return (
        f'<figure class="strip" style="--frames:{len(cells)}"><figcaption><q>{escape(instruction)}</q> {_tag(reason)}'
        f'<span class="note">{escape(", ".join(facts))}</span></figcaption>'
        f'<div class="frames">{"".join(cells)}</div></figure>'
    )


def _tag(reason: str) -> str:
    colour = outcome_colour(reason)
    style = f"background:{colour};color:{ink_on(colour)}"
    return f'<span class="reason" style="{style}">{escape(reason)}</span> ' if reason else ""


def _frame(frame: Image.Image, name: str, instruction: str) -> str:
    buffer = io.BytesIO()
    frame.save(buffer, format="WEBP", quality=QUALITY)
    source, alt = data_uri(buffer.getvalue(), "image/webp"), escape(f"{instruction}, {name}")
    return f'<div><img alt="{alt}" width="{frame.width}" height="{frame.height}" src="{source}">{escape(name)}</div>'
