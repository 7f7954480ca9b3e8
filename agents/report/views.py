"""The report's rendered views: how good they are, and some of them beside their targets."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from agents.report.markup import table, words
from agents.report.pictures import data_uri
from agents.report.run_folder import RunFolder
from agents.report.view_strips import LEGEND
from manifield.errors import InputError
from manifield.files import inside

# Measure → its column in a table and the digits it is given with there.
COLUMNS = {
    "psnr": ("PSNR dB", 1),
    "psnr_reprojection": ("reprojected", 1),
    "psnr_mean_picture": ("mean picture", 1),
    "ssim": ("SSIM", 2),
    "depth_cm_median": ("depth cm", 2),
    "cosine": ("cosine", 2),
    "cosine_mean": ("of the mean", 2),
}
QUALITY = 85  # of WebP
EXPLANATION = (
    "Pictures of the recorded episodes from where the agent has no camera, rendered by its neural field from what its "
    "own cameras see. PSNR beside that of two guesses: the agent's pictures carried over by their depth, holes filled "
    "with the mean training picture; and that mean picture. Depth is the median error inside the box. Cosine is that "
    "of rendered and target features, beside the one that the mean feature reaches. "
)


def views_section(run: RunFolder, most: int) -> str:
    """Table and strips, at most `most` a task; "" where nothing was rendered."""
    views = run.offline.get("views") or {}
    if not views.get("tasks"):
        return ""
    header, *rows = view_rows(views["tasks"])
    parts = [table(header, rows, "views never given to the agent", last_is_total=rows[-1][0] == "all")]
    parts.append(f'<p class="note">{EXPLANATION}{LEGEND}</p>')
    new = [strip for strip in views.get("strips", []) if not strip.get("given")]
    for task in dict.fromkeys(strip["task"] for strip in new):
        found = [strip for strip in new if strip["task"] == task]
        parts += [strip_figure(inside(run.folder / "offline", str(s["file"])), task, s) for s in spread(found, most)]
    return "\n".join(parts)


def training_section(run: RunFolder) -> str:
    """The last of each kind of picture that training drew on its way (`pictures_every`); "" where it drew none."""
    found = [sorted(folder.glob("step_*.png")) for folder in sorted((run.folder / "pictures").glob("*"))]
    last = [files[-1] for files in found if files]
    return "\n".join(strip_figure(file, f"{file.parent.name}, step {int(file.stem[5:])}", {}) for file in last)


def view_rows(tasks: Mapping[str, Mapping[str, float | None]]) -> list[list[str]]:
    """Header and a row a task, as texts."""
    rows = [["task", "views", *(title for title, _ in COLUMNS.values())]]
    for task, row in tasks.items():
        rows.append([task, f"{row['views']:.0f}", *view_cells(row)])
    return rows


def view_cells(numbers: Mapping[str, Any]) -> list[str]:
    """`COLUMNS` as texts; "–" where nothing was measured."""
    values = [(numbers.get(key), digits) for key, (_, digits) in COLUMNS.items()]
    return ["–" if value is None or not np.isfinite(value) else f"{value:.{digits}f}" for value, digits in values]


def view_words(numbers: Mapping[str, Any]) -> str:
    """What was measured, in one line."""
    pairs = zip(COLUMNS.values(), view_cells(numbers), strict=True)
    return ", ".join(f"{title} {cell}" for (title, _), cell in pairs if cell != "–")


def strip_figure(file: Path, title: str, numbers: Mapping[str, Any]) -> str:
    """A strip's picture under its title and numbers.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        with Image.open(file) as image:
            buffer = io.BytesIO()
            image.convert("RGB").save(buffer, "WEBP", quality=QUALITY, method=4)
    except (OSError, UnidentifiedImageError) as error:
        raise InputError(f"{file}: cannot be read ({error}); run evaluate again") from error
    return picture_figure(data_uri(buffer.getvalue(), "image/webp"), title, numbers)


def picture_figure(source: str, title: str, numbers: Mapping[str, Any]) -> str:
    """A picture given by its address under its title and numbers."""
    note = f'<span class="note">{escape(view_words(numbers))}</span>'
    style = "width:100%;max-width:1040px;height:auto;border-radius:5px"
    return f'<figure><figcaption>{words(title)} {note}</figcaption><img style="{style}" src="{source}" alt=""></figure>'


def spread(items: Sequence[Any], count: int) -> list[Any]:
    """`count` of the items, evenly spread; all if there are not more."""
    return list(items) if count >= len(items) else [items[k * len(items) // count] for k in range(count)]
