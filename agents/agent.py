"""A trained policy as something that acts: observation and instruction in, key-frame out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agents.batching import Batcher
from agents.checkpoint import find_checkpoint, load_policy
from agents.policy import Policy
from agents.tensors import Prediction
from agents.voting import elect, moved_back, moves, rows
from demos.augment import transform
from demos.dataset import Sample, make_sample
from demos.transitions import time_feature
from envs.interface import Action, Observation
from manifield.devices import moved
from perception.language import LanguageEncoder


class Agent:
    """Wraps a policy with all that turns observations into its input and its output into actions.

    Args:
        policy, language, meta: as `agents.checkpoint.load_policy` gives them. device: where the policy runs.
    """

    def __init__(
        self, policy: Policy, language: LanguageEncoder, meta: dict[str, Any], device: torch.device | str = "cpu"
    ) -> None:
        self.policy, self.meta, self.device = policy.eval().to(device), meta, torch.device(device)
        self.sight = replace(policy.config, cameras=tuple(meta["cameras"]))  # the ones it was trained with
        self.batcher = Batcher(policy.config, language)
        self.bf16 = meta.get("config", {}).get("precision") == "bf16"

    @classmethod
    def load(cls, path: Path, untrained: bool = False, device: torch.device | str = "cpu") -> Agent:
        """From a run's folder (newest checkpoint) or a checkpoint's. `untrained`: random weights, for a baseline."""
        return cls(*load_policy(find_checkpoint(path), untrained), device)

    def act(self, observation: Observation, instruction: str, number: int) -> tuple[Action, Prediction]:
        """The next key-frame, after `number` others; and the network's whole answer, for pictures."""
        time = time_feature(number, self.sight.horizon)
        sample = make_sample(observation, time, self.sight, [instruction])
        actions, prediction = self.predict([sample], [instruction])
        return actions[0], prediction

    @torch.no_grad()
    def predict(self, samples: list[Sample], instructions: list[str]) -> tuple[list[Action], Prediction]:
        """Actions for samples side by side, and the network's answer to them as they are (not moved for voting), which
        stays on the device."""
        config = self.policy.config
        ways = moves(config.votes, (np.asarray(config.low) + np.asarray(config.high)) / 2)
        seen = [transform(sample, T) for sample in samples for T in ways] if len(ways) > 1 else samples
        batch = moved(self.batcher.batch(seen, [text for text in instructions for _ in ways]), self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            prediction = self.policy(batch)
        votes = self._decode(prediction)
        elected = []
        for first in range(0, len(votes), len(ways)):
            back = [moved_back(vote, T) for vote, T in zip(votes[first : first + len(ways)], ways, strict=True)]
            elected.append(elect(back, config.symmetric_gripper) if len(ways) > 1 else votes[first])
        return elected, rows(prediction, torch.arange(0, len(votes), len(ways)))

    def _decode(self, prediction: Prediction) -> list[Action]:
        bins, positions = prediction.rotation.argmax(dim=-1).cpu().numpy(), prediction.position.cpu().numpy()
        return [
            Action(
                position=positions[i].astype(float),
                quaternion=self.batcher.rotations.decode(bins[i]),
                gripper_open=bool(prediction.gripper[i].argmax()),
                ignore_collisions=bool(prediction.collision[i].argmax()),
            )
            for i in range(len(bins))
        ]
