"""A trained agent's field as a camera: what the agent sees of a scene, rendered from anywhere."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from agents.agent import Agent
from agents.checkpoint import find_checkpoint, load_field, load_meta
from agents.scene_field import SceneField
from agents.tensors import Prediction
from demos.dataset import Sample, make_sample
from demos.keyframes import find_keyframes
from demos.store import Episode
from demos.transitions import time_feature
from envs.interface import Action
from manifield.devices import moved
from manifield.errors import InputError
from perception.field.metrics import RenderedView
from perception.field.rays import Rays
from perception.field.rendering import Rendering
from perception.field.told import Told
from perception.field.views import PixelTargets

RAYS_AT_ONCE = 8192


@dataclass(frozen=True)
class Scene:
    """One moment as the agent sees it: what its field is told (None without one), and the action that it would take."""

    told: Told | None
    action: Action
    prediction: Prediction


class SceneRenderer:
    """Renders scenes with the field of a trained agent.

    Args:
        agent: the policy. field: that was trained with it.
    """

    def __init__(self, agent: Agent, field: SceneField) -> None:
        self.agent, self.field = agent, field

    @classmethod
    def load(cls, path: Path, device: torch.device | str = "cpu") -> SceneRenderer | None:
        """From a run's folder or a checkpoint's; None if it was trained without a field."""
        checkpoint = find_checkpoint(path)
        if not load_meta(checkpoint)["config"].get("field"):
            return None
        agent = Agent.load(checkpoint, device=device)
        field = load_field(checkpoint, agent.policy, agent.batcher.language.width)
        return None if field is None else cls(agent, field.to(device))

    @torch.no_grad()
    def look(self, sample: Sample, instruction: str) -> Scene:
        """See a sample once; any number of views can be rendered from what comes back."""
        actions, prediction = self.agent.predict([sample], [instruction])
        batch = moved(self.agent.batcher.batch([sample], [instruction]), self.agent.device)
        with self._autocast():
            told = self.field.look(batch, prediction, [sample])
            if self.field.config.empty:
                told = replace(told, empty=self.field.field.survey(told, batch.points, batch.batch_index))
        return Scene(told, actions[0], prediction)

    @torch.no_grad()
    def render(self, scene: Scene, pixels: PixelTargets, size: tuple[int, int]) -> tuple[RenderedView, Rays]:
        """The view that has these pixels (`perception.field.views.whole_view`), H x W of them, and their rays."""
        rays = self.field.rays(moved(pixels, self.agent.device), np.eye(4)[None])
        portions = torch.arange(rays.near.shape[1], device=self.agent.device)[None].split(RAYS_AT_ONCE, dim=1)
        with self._autocast():
            parts: list[Rendering] = [self.field.field(scene.told, rays.take(some)) for some in portions]
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
        assert scene.told is not None
        with self._autocast():
            places = torch.from_numpy(points.astype(np.float32))[None].to(self.agent.device)
            found = self.field.field.features_at(places, scene.told)
        return found[0].cpu().numpy()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.agent.device.type, torch.bfloat16, enabled=self.agent.bf16)


def see(agent: Agent, episode: Episode, frame: int) -> Sample:
    """What an agent sees of a recorded frame."""
    observation = episode.observation(frame, agent.meta["cameras"])
    before = [k for k in find_keyframes(episode.joint_velocities, episode.gripper_open) if k <= frame]
    time = time_feature(len(before), agent.sight.horizon)
    name = f"{episode.path} frame {frame}"
    return make_sample(observation, time, agent.sight, episode.descriptions, episode.task, name)


def need_field(renderer: SceneRenderer | None, run: str | Path) -> SceneRenderer:
    """The renderer.

    Raises:
        InputError: there is none.
    """
    if renderer is None:
        raise InputError(f"{run} was trained without a neural field: train with field=laptop to render views")
    return renderer


def _picture(parts: list[Tensor], size: tuple[int, int]) -> np.ndarray:
    return torch.cat(parts, dim=1)[0].float().view(*size, -1).cpu().numpy()
