"""From samples and observations to the tensors that the network takes."""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from agents.actions import RotationCode
from agents.config import AgentConfig
from agents.tensors import UNKNOWN, Batch, Targets
from demos.dataset import Sample
from perception.language import LanguageEncoder
from perception.named_colours import named_colours

NORMALISATION = {"colour": 127.5, "finger": 50.0, "position": 2.0}
"""How inputs are scaled to about [-1, 1]; checkpoints hold it. colour: uint8 / 127.5 - 1. finger: metres · 50 - 1.
position: (metres - middle of the agent's box) · 2."""


class Batcher:
    """Turns samples into a `Batch` and its `Targets`.

    Args:
        config: of the agent. language: gives the token features of the instructions.
    """

    def __init__(self, config: AgentConfig, language: LanguageEncoder) -> None:
        self.config, self.language = config, language
        self.rotations = RotationCode(config.symmetric_gripper, config.soft_labels, config.rotation_bins)
        self.named = max(stage.named for stage in config.stages)
        self.middle = (np.asarray(config.low) + np.asarray(config.high)) / 2

    def batch(self, samples: list[Sample], instructions: list[str]) -> Batch:
        """The network's input for samples and the phrasing to use for each."""
        words, word_mask = self.language(instructions)
        owner = np.repeat(np.arange(len(samples)), [len(s.points) for s in samples])
        colours = np.concatenate([s.colours for s in samples]).astype(np.float32) / NORMALISATION["colour"] - 1
        return Batch(
            points=torch.from_numpy(np.concatenate([s.points for s in samples])),
            colours=torch.from_numpy(colours),
            batch_index=torch.from_numpy(owner),
            words=words,
            word_mask=word_mask,
            named=_tensor([named_colours(text, self.named) for text in instructions]),
            proprioception=_tensor([self._proprioception(s) for s in samples]),
            tool_position=_tensor([s.tool_position for s in samples]),
            tool_yaw=_tensor([np.array(self.rotations.tool_yaw(s.tool_quaternion)) for s in samples]),
        )

    def targets(self, samples: list[Sample]) -> Targets:
        """The demonstrated key-frames as labels."""
        return Targets(
            position=_tensor([s.position for s in samples]),
            rotation=_tensor([self.rotations.labels(s.quaternion) for s in samples]),
            gripper=torch.tensor([int(s.gripper_open) for s in samples]),
            collision=torch.tensor([_flag(s.ignore_collisions) for s in samples]),
            weight=torch.ones(len(samples)),
        )

    def _proprioception(self, sample: Sample) -> np.ndarray:
        if self.config.proprioception == "peract":
            return sample.low_dim
        gripper_open, left, right, time = sample.low_dim
        rotation = Rotation.from_quat(sample.tool_quaternion).as_matrix()
        scale, place = NORMALISATION["finger"], (sample.tool_position - self.middle) * NORMALISATION["position"]
        state = [gripper_open * 2 - 1, left * scale - 1, right * scale - 1, time]
        return np.concatenate([state, place, rotation[:, 0], rotation[:, 2]])


def _flag(value: bool | None) -> int:
    return UNKNOWN if value is None else int(value)


def _tensor(rows: list[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.stack(rows).astype(np.float32))
