"""`manifield view`: episodes in 3D in the browser and, with run=RUN, what an agent makes of them."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig

from agents.agent import Agent
from agents.rendering import Scene, SceneRenderer, see
from agents.report.pictures import heat_colours
from agents.report.view_strips import principal_colours
from demos.view.replay import Replay
from demos.view.server import run as run_viewer
from manifield.devices import find_device

FEATURES = "field's features"
FAINT = 0.03  # of the hottest cell's heat: cells below it are not drawn
MOMENTS = 64  # that are kept


def run(config: DictConfig) -> int:
    """Show what `configs/view.yaml` says."""
    device = find_device(config.device)
    overlay = None if config.run is None else AgentOverlay(Path(config.run), config.instruction, device)
    return run_viewer(config, overlay)


class AgentOverlay:
    """A trained agent's Q-maps as heat over their cells, its choice, and its field's features at what is seen, by their
    principal components.

    Args:
        path: of the run or of a checkpoint. instruction: None for each episode's own. device: where it runs.
    """

    def __init__(self, path: Path, instruction: str | None = None, device: torch.device | str = "cpu") -> None:
        self.renderer = SceneRenderer.load(path, device)
        self.agent = self.renderer.agent if self.renderer else Agent.load(path, device=device)
        self.instruction = instruction
        stages = len(self.agent.policy.config.stages)
        self._maps = {"q-map" if stages == 1 else f"q-map, look {k + 1}": k for k in range(stages)}
        self.layers = (*self._maps, *([FEATURES] if self.renderer else []))
        self._look = lru_cache(MOMENTS)(self._look_now)

    def voxels(self, layer: str, replay: Replay, frame: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See `demos.view.overlay`."""
        scene = self._look(replay, frame)
        if layer == FEATURES and self.renderer is not None:
            centres, _, size = replay.voxels(frame, tuple(self.agent.meta["cameras"]))
            low, high = (corner[0].cpu().numpy() for corner in self.renderer.field.box(1))
            centres = centres[((centres > low) & (centres < high)).all(axis=1)]
            return centres, principal_colours(self.renderer.features_at(scene, centres)[None])[0][0], size
        return _heat(scene, self._maps[layer])

    def goal(self, replay: Replay, frame: int) -> np.ndarray:
        """See `demos.view.overlay`."""
        action = self._look(replay, frame).action
        return np.concatenate([action.position, action.quaternion, [float(action.gripper_open)]])

    def _look_now(self, replay: Replay, frame: int) -> Scene:
        sample = see(self.agent, replay.episode, frame)
        told = self.instruction or str(replay.facts.get("instruction", sample.descriptions[0]))
        if self.renderer is not None:
            return self.renderer.look(sample, told)
        actions, prediction = self.agent.predict([sample], [told])
        return Scene(None, actions[0], prediction)


def _heat(scene: Scene, stage: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The cells that hold some of a look's probability, coloured by it."""
    q = scene.prediction.q[stage][0].double()
    heat = q.flatten().softmax(0).view(q.shape).cpu().numpy()
    heat = heat / heat.max()
    cells = np.argwhere(heat > FAINT)
    low, high = (x[stage][0].cpu().numpy() for x in (scene.prediction.low, scene.prediction.high))
    size = (high - low) / heat.shape
    colours = np.rint(heat_colours(heat[tuple(cells.T)])).astype(np.uint8)
    return (low + (cells + 0.5) * size).astype(np.float32), colours, size
