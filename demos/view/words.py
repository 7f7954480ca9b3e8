"""What the panel says of an episode, as HTML. Everything that comes from files is escaped."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

from demos.view.replay import Replay, read_facts

RECORDED = 20  # frames a second, RLBench's rate


def label(path: Path) -> str:
    """What the chooser says: task, episode; of a rollout also the evaluation, and how it ended."""
    names = path.resolve().parts
    evaluation = f"{names[-6]} · " if len(names) > 5 and names[-5] == "rollouts" else ""
    task = f"{names[-4]} · " if len(names) > 3 and names[-2] == "episodes" else ""
    facts = read_facts(path)
    ended = ""
    if "success" in facts:
        ended = " · success" if facts["success"] else f" · {facts.get('failure') or 'failed'}"
    return f"{evaluation}{task}{path.name}{ended}"


def about(replay: Replay) -> str:
    """Instruction, other phrasings, origin."""
    episode, facts = replay.episode, replay.facts
    told = str(facts.get("instruction", episode.descriptions[0]))
    others = [text for text in episode.descriptions if text != told]
    rows = [("task", f"{episode.task}, variation {episode.variation}"), ("folder", str(episode.path))]
    if "success" in facts:
        rows.append(("outcome", "success" if facts["success"] else str(facts.get("failure") or "failed")))
    lines = [f'<div style="font-size:1.15em;font-weight:600;margin-bottom:.3em">“{html.escape(told)}”</div>']
    lines += [note(f"“{html.escape(text)}”") for text in others]
    return f'<div style="padding:0 .8em">{"".join(lines)}</div>{table(rows)}'


def moment(replay: Replay, frame: int) -> str:
    """What is known of one frame."""
    episode = replay.episode
    x, y, z = episode.gripper_pose[frame, :3]
    ahead = [number for number, keyframe in enumerate(replay.keyframes, 1) if keyframe >= frame]
    rows = [
        ("frame", f"{frame} of {len(replay) - 1}, {frame / RECORDED:.2f} s"),
        ("gripper", f"{'open' if episode.gripper_open[frame] > 0.5 else 'closed'}, at ({x:.3f}, {y:.3f}, {z:.3f}) m"),
        ("next key-frame", f"{ahead[0]} of {len(replay.keyframes)}" if ahead else "none"),
    ]
    if episode.ignore_collisions is not None:
        rows.append(("collisions", "ignored" if episode.ignore_collisions[frame] else "avoided"))
    return table(rows)


def table(rows: Sequence[tuple[str, str]]) -> str:
    """Names and what is said of them, both plain text."""
    cells = "".join(
        f'<tr><td style="opacity:.6;padding-right:1em;white-space:nowrap;vertical-align:top">{html.escape(name)}</td>'
        f'<td style="overflow-wrap:anywhere">{html.escape(text)}</td></tr>'
        for name, text in rows
    )
    return f'<table style="font-size:.85em;padding:.3em .8em">{cells}</table>'


def note(text: str) -> str:
    """A line in small print; `text` is HTML."""
    return f'<div style="font-size:.85em;opacity:.7">{text}</div>'


def warning(text: str) -> str:
    """What went wrong, plain text."""
    return f'<div style="color:#c62828;padding:.3em .8em;overflow-wrap:anywhere">{html.escape(text)}</div>'
