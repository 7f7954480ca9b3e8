"""How well a trained agent's field renders pictures that it was not given, beside what a guess would reach."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agents.rendering import Scene, SceneRenderer
from agents.report.pictures import png_bytes
from agents.report.view_strips import view_strip
from agents.report.views import COLUMNS
from demos.dataset import KeyframeDataset, Sample
from demos.features import View, cache_folder
from demos.store import open_episode, select_episodes
from demos.target_views import FieldTargets, TargetViews
from manifield.progress import Progress
from perception.field.metrics import RenderedView, cosine, depth_error, psnr, reproject, ssim
from perception.field.views import TargetView, whole_view


@dataclass(frozen=True)
class Judged:
    """One rendered view beside its target.

    name: of the view. given: whether the agent sees through this very camera. feature: the target's at every pixel, or
    None. reprojected: what the given pictures show when carried into the view. numbers: `COLUMNS`, NaN where there is
    nothing to measure.
    """

    sample: Sample
    name: View
    given: bool
    target: TargetView
    rendered: RenderedView
    feature: np.ndarray | None
    reprojected: np.ndarray
    numbers: dict[str, float]

    def strip(self, factor: int = 1) -> np.ndarray:
        """Target and rendering side by side, `factor` times as large."""
        seen, picture = self.rendered, self.target.picture
        depth = np.where(seen.opacity > 0.5, seen.depth, 0.0)
        wanted = (picture.rgb / 255.0, picture.depth, self.feature)
        return view_strip(*wanted, seen.rgb, depth, seen.feature, self.reprojected, factor)


def view_targets(renderer: SceneRenderer, config: dict[str, Any]) -> FieldTargets | None:
    """What can be rendered of config["data"]: field views, and cameras that the agent does not look through; None, with
    a word about why, if there are none. With the teacher's features if they are there.

    Raises:
        InputError: the features are another teacher's, or stale.
    """
    field, own = renderer.field, set(renderer.agent.meta["cameras"])
    for path in select_episodes(config["data"], config["tasks"], config["select"]):
        episode = open_episode(path)
        if not episode.field_frames and not set(episode.cameras) - own:
            print(f"rendering is not measured: {path} has no views but the agent's (collect field_views.count=…)")
            return None
    cache = cache_folder(config["data"], field.config.teacher)
    if field.features and cache.is_dir():
        return FieldTargets(None, "other", cache, renderer.agent.meta["features"])
    if field.features:
        print(f"features are not measured: no {cache} (manifield features reduction=…, that of the training's data)")
    return FieldTargets(None, "other", None, None)


def judge(renderer: SceneRenderer, scene: Scene, sample: Sample, views: TargetViews, number: int) -> Judged:
    """Render one of a moment's targets and measure it."""
    target, name = views[number], views.names[number]
    pixels = whole_view(target)
    rendered, rays = renderer.render(scene, pixels, (target.picture.rgb.shape[0], target.picture.rgb.shape[1]))
    wanted = target.picture.rgb / 255.0
    mean = renderer.field.mean_picture.cpu().numpy()
    guess = mean if mean.shape == wanted.shape else np.broadcast_to(mean.mean(axis=(0, 1)), wanted.shape)
    carried = reproject(sample.pictures.values(), target.picture, guess)
    numbers = {
        "psnr": psnr(rendered.rgb, wanted),
        "psnr_reprojection": psnr(carried, wanted),
        "psnr_mean_picture": psnr(guess, wanted),
        "ssim": ssim(rendered.rgb, wanted),
        "depth_cm_median": 100 * depth_error(rendered.depth, pixels, rays),
        "cosine": np.nan,
        "cosine_mean": np.nan,
    }
    feature = None
    if rendered.feature is not None and pixels.feature is not None:
        feature = pixels.feature[0].numpy().reshape(rendered.feature.shape)
        numbers["cosine"] = cosine(rendered.feature, feature)
        numbers["cosine_mean"] = cosine(renderer.field.mean_feature.cpu().numpy(), feature)
    return Judged(sample, name, name in sample.pictures, target, rendered, feature, carried, numbers)


def judge_all(renderer: SceneRenderer, dataset: KeyframeDataset, most: int) -> Iterator[Judged]:
    """At most `most` views of every item, those that the agent was not given first."""
    orders = [new_first(dataset.views[item.episode, item.source], dataset.cameras)[:most] for item in dataset.items]
    with Progress("render", sum(map(len, orders)), "views") as progress:
        for index, (item, order) in enumerate(zip(dataset.items, orders, strict=True)):
            sample, views = dataset[index], dataset.views[item.episode, item.source]
            scene = renderer.look(sample, sample.descriptions[0])
            for number in order:
                yield judge(renderer, scene, sample, views, number)
                progress.advance(1)


def new_first(views: TargetViews, cameras: Sequence[str]) -> list[int]:
    """Numbers of the views, those of the agent's own cameras last."""
    return sorted(range(len(views)), key=lambda number: views.names[number] in cameras)


def evaluate_views(renderer: SceneRenderer, dataset: KeyframeDataset, most: int, out: Path) -> dict[str, Any]:
    """Render at most `most` views of every moment into `out`/views; the table and what the pictures show."""
    (out / "views").mkdir(exist_ok=True)
    judged: list[Judged] = []
    strips: list[dict[str, Any]] = []
    for one in judge_all(renderer, dataset, most):
        file = f"views/{len(judged)}.png"
        (out / file).write_bytes(png_bytes(one.strip()))
        judged.append(one)
        numbers = {key: round(value, 4) for key, value in one.numbers.items() if np.isfinite(value)}
        strips.append({"file": file, "task": one.sample.task, "view": one.target.name, "given": one.given, **numbers})
    return {"tasks": tabulate(judged), "strips": strips}


def tabulate(judged: list[Judged]) -> dict[str, dict[str, float | None]]:
    """Means of the views that were not given, by task and over all: "views" (how many) and `COLUMNS`, None where
    nothing was measured. Depth is the median over views of each view's median error."""
    table: dict[str, dict[str, float | None]] = {}
    rows = [j for j in judged if not j.given]
    for task in [*sorted({j.sample.task for j in rows}), "all"]:
        numbers = [j.numbers for j in rows if task in ("all", j.sample.task)]
        table[task] = {"views": len(numbers)}
        for column in COLUMNS:
            values = np.array([n[column] for n in numbers if np.isfinite(n[column])])
            summary = np.median if column == "depth_cm_median" else np.mean
            table[task][column] = float(summary(values)) if len(values) else None
    return table
