"""The report's training curves, each named in words and with its unit."""

from __future__ import annotations

import re
from dataclasses import dataclass

from agents.report import charts
from agents.report.colours import BLUE, ORANGE
from agents.report.markup import figure, table
from agents.report.run_folder import RunFolder

NOT_CURVES = ("seconds",)
NATS = "cross-entropy in nats"


@dataclass(frozen=True)
class Metric:
    """How a column of metrics.csv is shown. about: its unit and what it is. factor: from the file's unit to it."""

    title: str
    about: str
    factor: float = 1.0


# Pattern of a column's whole name → how it is shown, in the order of reading. {0} is the pattern's group.
METRICS = {
    "loss": Metric("Loss", "sum of the parts, in nats"),
    "loss_translation": Metric("Loss: position", NATS),
    r"loss_translation_(\d+)": Metric("Loss: position, stage {0}", f"{NATS}; 0 is coarse, the next zooms in"),
    "loss_rotation": Metric("Loss: rotation", f"{NATS}, sum over three angles"),
    "loss_gripper": Metric("Loss: gripper open or closed", NATS),
    "loss_collision": Metric("Loss: collision flag", f"{NATS}; may the arm touch"),
    "loss_recon": Metric("Field: colour", "L_rgb, coarse and fine: squared error"),
    "loss_feat": Metric("Field: features", "L_feat: squared error"),
    "loss_depth": Metric("Field: depth", "metres off, and wrong opacity"),
    "field_psnr": Metric("Field: PSNR", "dB, over the pixels of a batch"),
    "loss_(.+)": Metric("Loss: {0}", ""),
    "train_coarse_cm": Metric("Position error, coarse", "cm, median over the batch"),
    "train_translation_cm": Metric("Position error, last stage", "cm, median over the batch, shown the right crop"),
    "train_rotation": Metric("Rotation right", "% of the batch, all three angles", 100),
    "train_gripper": Metric("Gripper right", "% of the batch", 100),
    "train_collision": Metric("Collision flag right", "% of the batch", 100),
    "translation_cm": Metric("Position error of the choice", "cm, median"),
    "rotation_deg": Metric("Rotation error of the choice", "degrees, median"),
    "gripper": Metric("Gripper right", "% of key-frames", 100),
    "collision": Metric("Collision flag right", "% of key-frames", 100),
    "gradient_norm": Metric("Norm of the gradient", "before clipping"),
    "memory_gib": Metric("Memory", "GiB, the most so far, of the first process"),
    "learning_rate": Metric("Learning rate", "of AdamW"),
    "samples_per_second": Metric("Speed", "samples per second"),
}


def curves(run: RunFolder) -> str:
    """A small chart for every column of metrics.csv; a validation column joins the one it validates."""
    names = [name for name in run.metrics if name not in NOT_CURVES]
    training = [name for name in names if not (name.startswith("val_") and name.removeprefix("val_") in names)]
    drawn, short = [], []
    for name in sorted(training, key=_rank):
        metric = describe(name.removeprefix("val_"))
        series = [_series(run, name, metric.factor)]
        if f"val_{name}" in run.metrics:
            series.append(_series(run, f"val_{name}", metric.factor))
        chart = charts.line_chart(metric.title, series)
        if chart:
            drawn.append(figure(metric.title, metric.about, chart))
        elif series[0].x:
            short.append((metric.title, charts.number(series[0].y[-1]), metric.about))
    parts = []
    if any(f"val_{name}" in run.metrics for name in training):
        lines = (("solid", BLUE, "training"), ("dashed", ORANGE, "held back"))
        keys = "".join(f'<span><i style="border-top:3px {style} {c}"></i>{what}</span>' for style, c, what in lines)
        parts.append(f'<p class="legend lines">{keys}</p>')
    if drawn:
        parts.append(f'<div class="grid-of-charts">{"".join(drawn)}</div>')
    if short:
        parts.append(table(None, short, "recorded once, so without a curve", numbers=False))
    return "".join(parts)


def describe(column: str) -> Metric:
    """How a column is shown: as `METRICS` says, else by its own name."""
    for pattern, metric in METRICS.items():
        if found := re.fullmatch(pattern, column):
            group = found.groups()[0].replace("_", " ") if found.groups() else ""
            return Metric(metric.title.format(group), metric.about, metric.factor)
    return Metric(column.replace("_", " "), "")


def _rank(column: str) -> tuple[int, str]:
    matching = (i for i, pattern in enumerate(METRICS) if re.fullmatch(pattern, column.removeprefix("val_")))
    return next(matching, len(METRICS)), column


def _series(run: RunFolder, column: str, factor: float) -> charts.Series:
    held_back = column.startswith("val_")
    x, y = run.metrics[column]
    name, colour = ("held back", ORANGE) if held_back else ("training", BLUE)
    return charts.Series(name, x, [factor * value for value in y], colour)
