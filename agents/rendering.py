"""A trained agent's field as a camera: what the agent sees of a scene, rendered from anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from agents.agent import Agent
from agents.checkpoint import find_checkpoint, load_field, load_meta
from agents.scene_field import SceneField
from agents.tensors import Prediction
from demos.dataset import Sample, Sight, make_sample, widen
from demos.keyframes import find_keyframes
from demos.store import Episode
from demos.transitions import time_feature
from envs.interface import Action, CameraView
from manifield.errors import InputError
from perception.field.field import Volume
from perception.field.metrics import RenderedView
from perception.field.rays import Rays
from perception.field.rendering import Rendering
from perception.field.views import PixelTargets

RAYS_AT_ONCE = 8192


@dataclass(frozen=True)
class Scene:
    """One moment as the agent sees it: what its field is told, and the action that it would take."""

    volumes: list[Volume]
    context: Tensor | None
    action: Action
    prediction: Prediction


class SceneRenderer:
    """Renders scenes with the field of a trained agent.

    Args:
        agent: the policy. field: that was trained with it.
    """

    def __init__(self, agent: Agent, field: SceneField) -> None:
        self.agent, self.field = agent, field
        self.sight = widen(agent.sight, field.config.low, field.config.high)

    @classmethod
    def load(cls, path: Path) -> SceneRenderer | None:
        """From a run's folder or a checkpoint's; None if it was trained without a field."""
        checkpoint = find_checkpoint(path)
        if not load_meta(checkpoint)["config"].get("field"):
            return None
        agent = Agent.load(checkpoint)
        field = load_field(checkpoint, agent.policy, agent.batcher.language.width)
        return None if field is None else cls(agent, field)

    @torch.no_grad()
    def look(self, sample: Sample, instruction: str) -> Scene:
        """See a sample once; any number of views can be rendered from what comes back."""
        actions, prediction = self.agent.predict([sample], [instruction])
        batch = self.agent.batcher.batch([sample], [instruction])
        with self._autocast():
            volumes, context = self.field.look(batch, prediction)
        return Scene([(v.float(), low, high) for v, low, high in volumes], context, actions[0], prediction)

    @torch.no_grad()
    def render(self, scene: Scene, pixels: PixelTargets, size: tuple[int, int]) -> tuple[RenderedView, Rays]:
        """The view that has these pixels (`perception.field.views.whole_view`), H x W of them, and their rays."""
        rays = self.field.rays(pixels, np.eye(4)[None])
        parts: list[Rendering] = []
        count = rays.near.shape[1]
        with self._autocast():
            for first in range(0, count, RAYS_AT_ONCE):
                some = torch.arange(first, min(first + RAYS_AT_ONCE, count))[None]
                parts.append(self.field(scene.volumes, scene.context, rays.take(some)))
        features = [part.feature for part in parts if part.feature is not None]
        return RenderedView(
            rgb=_picture([part.rgb for part in parts], size),
            depth=_picture([part.depth for part in parts], size)[..., 0],
            opacity=_picture([part.opacity for part in parts], size)[..., 0],
            feature=_picture(features, size) if features else None,
        ), rays

    @torch.no_grad()
    def features_at(self, scene: Scene, points: np.ndarray) -> np.ndarray:
        """[N, F] the field's features at world points [N, 3]."""
        low, high = self.field.box(1)
        with self._autocast():
            told = (scene.volumes, low, high, scene.context)
            found = self.field.field.features_at(torch.from_numpy(points.astype(np.float32))[None], told)
        return found[0].numpy()

    def _autocast(self) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.agent.bf16)


def see(agent: Agent, episode: Episode, frame: int, sight: Sight | None = None) -> tuple[Sample, dict[str, CameraView]]:
    """What an agent sees of a recorded frame, as the sample that it is told and as pictures. sight: as far as this
    reaches; None for the agent's own."""
    observation = episode.observation(frame, agent.meta["cameras"])
    before = [k for k in find_keyframes(episode.joint_velocities, episode.gripper_open) if k <= frame]
    time = time_feature(len(before), agent.sight.horizon)
    name = f"{episode.path} frame {frame}"
    sample = make_sample(observation, time, sight or agent.sight, episode.descriptions, episode.task, name)
    return sample, observation.cameras


def need_field(renderer: SceneRenderer | None, run: str | Path) -> SceneRenderer:
    """The renderer.

    Raises:
        InputError: there is none.
    """
    if renderer is None:
        raise InputError(f"{run} was trained without a neural field: train with field=laptop to render views")
    return renderer


def _picture(parts: list[Tensor], size: tuple[int, int]) -> np.ndarray:
    return torch.cat(parts, dim=1)[0].float().view(*size, -1).numpy()
