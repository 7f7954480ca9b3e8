"""Pictures of what an agent in training makes of a few moments: its Q-map and choice, and its field's rendering."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from agents.agent import Agent
from agents.rendering import SceneRenderer
from agents.report.pictures import draw_keyframe, film_strip, overlay_heat, upscale
from agents.tensors import Prediction
from agents.view_evaluation import judge, new_first
from demos.dataset import KeyframeDataset
from envs.interface import Action, CameraView
from perception.language import LanguageEncoder

if TYPE_CHECKING:
    from agents.trainer import Learner

TASKS = 4
"""Of at most so many tasks one moment is shown."""


class Snapshots:
    """Draws the first moment of the first demonstration of a few tasks.

    Args:
        dataset: whose moments. language, meta: of the agent in training, see `agents.agent.Agent`. device: it is on.
    """

    def __init__(
        self, dataset: KeyframeDataset, language: LanguageEncoder, meta: dict[str, Any], device: torch.device
    ) -> None:
        self.dataset, self.language, self.meta, self.device = dataset, language, meta, device
        self.moments = [dataset.task_of.index(task) for task in dataset.tasks[:TASKS]]

    def draw(self, learner: Learner) -> dict[str, np.ndarray]:
        """Pictures [H, W, 3] uint8 by name: "TASK_q", and "TASK_field" where there is a field."""
        agent = Agent(learner.policy, self.language, self.meta, self.device)
        pictures = {}
        for number in self.moments:
            item, sample = self.dataset.items[number], self.dataset[number]
            view = self.dataset.episodes[item.episode].view(item.source, self.dataset.cameras[0], masks=False)
            actions, prediction = agent.predict([sample], sample.descriptions[:1])
            wanted = draw_keyframe(upscale(view.rgb, 2), view, sample.position, sample.quaternion, sample.gripper_open)
            frames = [wanted, q_picture(view, actions[0], prediction)]
            pictures[f"{sample.task}_q"] = film_strip(frames, ["demonstrated", "Q-map and choice"])
            if learner.field is not None:
                views = self.dataset.views[item.episode, item.source]
                renderer = SceneRenderer(agent, learner.field.eval())
                scene = renderer.look(sample, sample.descriptions[0])
                judged = judge(renderer, scene, sample, views, new_first(views, self.dataset.cameras)[0])
                pictures[f"{sample.task}_field"] = judged.strip()
        return pictures


def q_picture(view: CameraView, action: Action, prediction: Prediction) -> np.ndarray:
    """A camera's picture with the coarse Q-map as heat and the chosen key-frame drawn in, twice as large."""
    q = prediction.q[0][0]
    heat = q.flatten().softmax(0).view(q.shape).cpu().numpy()
    low, high = (corners[0][0].cpu().numpy() for corners in (prediction.low, prediction.high))
    rgb = overlay_heat(upscale(view.rgb, 2), view, heat, low, high)
    return draw_keyframe(rgb, view, action.position, action.quaternion, action.gripper_open)
