"""`manifield render`: one moment of an episode as the agent's field explains it, from every side."""

from __future__ import annotations

import io
from html import escape
from pathlib import Path

import numpy as np
from omegaconf import DictConfig
from PIL import Image

from agents.rendering import Scene, SceneRenderer, need_field, see
from agents.report.markup import table
from agents.report.page import small_page
from agents.report.pictures import data_uri, film_strip, png_bytes, upscale
from agents.report.view_strips import LEGEND, colour, grey, principal_colours
from agents.report.views import COLUMNS, EXPLANATION, picture_figure, view_cells, view_words
from agents.view_evaluation import Judged, judge, new_first
from demos.features import cache_folder
from demos.memory import GIB, Memory
from demos.store import Episode, open_episode
from demos.target_views import FieldTargets, TargetViews, open_features
from demos.viewpoints import TARGET
from envs.interface import CameraView
from manifield.command import run_folder
from manifield.devices import find_device
from manifield.errors import InputError, within
from manifield.files import write_whole
from manifield.progress import Progress
from perception.cameras import intrinsics_from_fov, look_at
from perception.field.views import TargetView, whole_view

FOV = np.radians(45.0)
FRAMES_A_SECOND = 8


def run(config: DictConfig) -> None:
    """Write RUN/renders/TASK_episodeN_FRAME.html (and the orbit beside it) and print where they are."""
    within(config, frame=(0, 10**9), orbit=(0, 1000), size=(16, 1024), enlarge=(1, 8))
    within(config, arc=(1, 360), radius=(0.3, 10), height=(0, 10))
    renderer = need_field(SceneRenderer.load(Path(config.run), find_device(config.device)), config.run)
    episode = open_episode(config.episode)
    if config.frame >= len(episode):
        raise InputError(f"frame={config.frame}: {episode.path} has frames 0 to {len(episode) - 1}")
    sample = see(renderer.agent, episode, config.frame)
    instruction = config.instruction or sample.descriptions[0]
    scene = renderer.look(sample, instruction)
    views = _targets(renderer, episode, config.frame)
    order = new_first(views, list(sample.pictures))
    judged = []
    with Progress("render", len(order) + config.orbit, "pictures") as progress:
        for number in order:
            judged.append(judge(renderer, scene, sample, views, number))
            progress.advance()
        orbit = _orbit(renderer, scene, config, progress) if config.orbit else b""
    folder = run_folder(Path(config.run)) / "renders"
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{episode.task}_{episode.path.name}_{config.frame}"
    if orbit:
        write_whole(folder / f"{name}_orbit.webp", orbit)
    write_whole(folder / f"{name}.html", _page(config, episode, instruction, judged, orbit))
    for one in judged:
        print(f"{'given' if one.given else 'never given':12} {_title(one):16} {view_words(one.numbers)}")
    print(f"\npage: {(folder / f'{name}.html').resolve()}")


def _targets(renderer: SceneRenderer, episode: Episode, frame: int) -> TargetViews:
    """All pictures that there are of a frame, each with the teacher's features if they are kept."""
    field, cameras = renderer.field, renderer.agent.meta["cameras"]
    cache = cache_folder(episode.path.resolve().parents[3], field.config.teacher)
    kept = cache if field.features and cache.is_dir() else None
    targets = FieldTargets(None, "all", kept, renderer.agent.meta["features"])
    return TargetViews(episode, frame, targets, cameras, open_features(episode, targets), Memory(8 * GIB))


def _orbit(renderer: SceneRenderer, scene: Scene, config: DictConfig, progress: Progress) -> bytes:
    """An animated WebP: colour, depth and features while a camera goes to and fro before the scene."""
    turns = np.radians(config.arc) / 2 * np.sin(np.linspace(0, 2 * np.pi, config.orbit, endpoint=False))
    seen = []
    for turn in turns:
        away = np.sqrt(max(config.radius**2 - (config.height - TARGET[2]) ** 2, 0.01))
        place = TARGET + np.array([away * np.cos(turn), away * np.sin(turn), config.height - TARGET[2]])
        blank = CameraView(
            rgb=np.zeros((config.size, config.size, 3), np.uint8),
            depth=np.ones((config.size, config.size), np.float32),
            intrinsics=intrinsics_from_fov(FOV, config.size, config.size),
            T_world_camera=look_at(place, TARGET - [0, 0, 0.15]),
        )
        rendered, _ = renderer.render(scene, whole_view(TargetView(blank)), (config.size, config.size))
        seen.append(rendered)
        progress.advance()
    depths = [np.where(r.opacity > 0.5, r.depth, 0.0) for r in seen]
    met = np.concatenate([d[d > 0] for d in depths]) if any((d > 0).any() for d in depths) else np.ones(1)
    # One scale and one set of components for the whole way, so that colours stay what they are.
    features = [r.feature for r in seen if r.feature is not None]
    colours = principal_colours(np.concatenate(features), *features)[1:] if features else []
    frames = []
    for k, rendered in enumerate(seen):
        pictures = [colour(rendered.rgb), grey(depths[k], float(met.min()), float(met.max())), *colours[k : k + 1]]
        strip = film_strip([upscale(picture, config.enlarge) for picture in pictures], [""] * len(pictures))
        frames.append(Image.fromarray(strip))
    buffer = io.BytesIO()
    milliseconds = 1000 // FRAMES_A_SECOND
    frames[0].save(
        buffer, "WEBP", save_all=True, append_images=frames[1:], duration=milliseconds, loop=0, quality=85, method=4
    )
    return buffer.getvalue()


def _page(config: DictConfig, episode: Episode, instruction: str, judged: list[Judged], orbit: bytes) -> str:
    header = ["view", "", *(title for title, _ in COLUMNS.values())]
    rows = [[_title(one), "given" if one.given else "never given", *view_cells(one.numbers)] for one in judged]
    parts = [("Numbers", table(header, rows))]
    if orbit:
        parts.append(("Orbit", picture_figure(data_uri(orbit, "image/webp"), "colour, depth and features", {})))
    for title, wanted in (("Views never given", False), ("Given views", True)):
        figures = [
            picture_figure(data_uri(png_bytes(one.strip(config.enlarge))), _title(one), one.numbers)
            for one in judged
            if one.given is wanted
        ]
        if figures:
            parts.append((title, f'<p class="note">{escape(EXPLANATION + LEGEND)}</p>' + "\n".join(figures)))
    name = f"{episode.task} {episode.path.name}, frame {config.frame}"
    return small_page(name, f"“{instruction}” · rendered by {config.run}", parts)


def _title(one: Judged) -> str:
    return f"field view {one.name}" if isinstance(one.name, int) else one.name
