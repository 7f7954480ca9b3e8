"""The neural field over the agent's own volumes: what it is told, and what it learns beside the agent.

Actions and pictures train one encoder (GNFactor, section 3.4): L = L_action + λ_recon L_rgb + λ_feat L_feat.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from agents.config import AgentConfig, known
from agents.tensors import Batch, Prediction
from demos.dataset import Sample
from demos.target_views import evenly
from manifield.devices import moved
from manifield.errors import InputError, choose
from perception.field.field import FieldConfig, NeuralField
from perception.field.losses import field_losses
from perception.field.pictures import CHANNELS, stack_pictures
from perception.field.rays import Rays, make_rays
from perception.field.rendering import Rendering
from perception.field.told import Told
from perception.field.views import PixelTargets, TargetView, draw_pixels

LANGUAGE_CHANNELS = 16
HAZE_SAMPLES = 8
BACKGROUNDS = ("learned", "constant")


@dataclass(frozen=True)
class SceneFieldConfig(FieldConfig):
    """Sizes and switches; every key is explained beside its value in `configs/field/laptop.yaml`."""

    lambda_recon: float = 1.0
    lambda_feat: float = 1.0
    lambda_depth: float = 0.0
    lambda_empty: float = 0.0
    teacher: str = "none"
    views: int | None = None
    cameras: bool = False
    rays: int = 512
    views_at_once: int | None = None
    language: bool = False
    low: tuple[float, float, float] | None = None
    high: tuple[float, float, float] | None = None

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any] | None) -> SceneFieldConfig | None:
        """Build from a plain mapping (YAML, a checkpoint); None from an empty one. Unknown keys are refused."""
        if not values:
            return None
        data = known(cls, values, "field")
        for key in ("low", "high"):
            if data.get(key) is not None:
                data[key] = tuple(data[key])
                if len(data[key]) != 3:
                    raise InputError(f"field.{key}={list(data[key])}: give three numbers, for x, y and z, or null")
        config = cls(**data)
        choose(config.background, BACKGROUNDS, "field.background")
        for key, least in {"width": 1, "blocks": 0, "injections": 0, "coarse": 2, "fine": 0, "guided": 0}.items():
            if getattr(config, key) < least:
                raise InputError(f"field.{key}={getattr(config, key)}: give a number from {least} on")
        for key in ("lambda_recon", "lambda_feat", "lambda_depth", "lambda_empty"):
            if getattr(config, key) < 0:
                raise InputError(f"field.{key}={getattr(config, key)}: give a weight from 0 on")
        for key in ("views", "views_at_once", "rays"):
            if getattr(config, key) is not None and getattr(config, key) < 1:
                raise InputError(f"field.{key}={getattr(config, key)}: give a number from 1 on")
        if config.guided > config.fine:
            raise InputError(f"field.guided={config.guided}: these are some of the field.fine={config.fine} samples")
        if not (config.lambda_recon or config.lambda_feat or config.lambda_depth):
            raise InputError("field.lambda_recon, lambda_feat and lambda_depth are all 0: give field=none instead")
        return config

    def to_mapping(self) -> dict[str, Any]:
        """Plain lists, numbers and strings: the inverse of `from_mapping`."""
        return asdict(self)


class SceneField(nn.Module):
    """The field over the deep volumes of a policy's stages.

    Args:
        config: sizes. agent: whose volumes. words: channels of a language token. features: channels of the teacher, 0
            for none. picture: (H, W) of the pictures that `mean_picture` is the mean of.
    """

    def __init__(
        self, config: SceneFieldConfig, agent: AgentConfig, words: int, features: int, picture: tuple[int, int]
    ) -> None:
        super().__init__()
        self.config, self.features = config, features
        channels = sum(stage.channels for stage in agent.stages)
        channels += CHANNELS if config.pictures else 0
        channels += LANGUAGE_CHANNELS if config.language else 0
        self.field = NeuralField(config, channels, features)
        self.words = nn.Linear(words, LANGUAGE_CHANNELS) if config.language else None
        # What a rendering is measured against: a guess that knows nothing of the scene.
        self.register_buffer("mean_picture", torch.full((*picture, 3), 0.5))
        self.register_buffer("mean_feature", torch.zeros(features))
        low, high = config.low or agent.low, config.high or agent.high
        if not all(a < b for a, b in zip(low, high, strict=True)):
            raise InputError(f"field.low {list(low)} must lie below field.high {list(high)} on every axis")
        self.register_buffer("low", torch.tensor(low, dtype=torch.float32), persistent=False)
        self.register_buffer("high", torch.tensor(high, dtype=torch.float32), persistent=False)

    mean_picture: Tensor
    mean_feature: Tensor
    low: Tensor
    high: Tensor

    @property
    def weights(self) -> dict[str, float]:
        """λ of each loss that `losses` gives."""
        c = self.config
        return {"recon": c.lambda_recon, "feat": c.lambda_feat, "depth": c.lambda_depth, "empty": c.lambda_empty}

    def look(self, batch: Batch, prediction: Prediction, samples: Sequence[Sample]) -> Told:
        """What the field is told about samples: the agent's deep volumes (of a crop where a stage looks at one), the
        pictures that it sees and the mean of its words, the latter two if the config says so."""
        context = None
        if self.words is not None:
            shares = batch.word_mask[..., None] / batch.word_mask.sum(dim=1)[:, None, None]
            context = self.words((batch.words * shares).sum(dim=1))
        pictures = None
        if self.config.pictures:
            given = stack_pictures([s.pictures for s in samples], np.stack([s.motion for s in samples]))
            pictures = moved(given, self.low.device)
        volumes = list(zip(prediction.volumes, prediction.low, prediction.high, strict=True))
        return Told(volumes, *self.box(len(samples)), pictures, context)

    def box(self, batch: int) -> tuple[Tensor, Tensor]:
        """The corners [B, 3] of the box that is rendered."""
        return self.low.expand(batch, 3), self.high.expand(batch, 3)

    def losses(
        self, batch: Batch, prediction: Prediction, samples: list[Sample], generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Losses of `perception.field.losses` on pixels drawn from the samples' views, and if it counts "empty", the
        haze in front of what they show."""
        seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        c, rng = self.config, np.random.default_rng(seed)
        targets = moved(draw_pixels([s.views for s in samples], c.rays, rng, c.views_at_once), self.low.device)
        rays = self.rays(targets, np.stack([s.motion for s in samples]))
        told = self.look(batch, prediction, samples)
        rendering: Rendering = self.field(told, rays, generator, targets.depth if c.guided else None)
        losses = field_losses(rendering, targets, rays)
        if c.lambda_empty:
            losses["empty"] = self.field.haze(told, rays, targets.depth, HAZE_SAMPLES, generator)
        return losses

    def rays(self, targets: PixelTargets, motion: np.ndarray) -> Rays:
        """Rays of pixels in scenes that augmentation has moved by `motion` [B, 4, 4]."""
        moved = torch.from_numpy(motion.astype(np.float32)).to(self.low.device)
        low, high = self.box(len(motion))
        way = (moved[:, :3, :3], moved[:, :3, 3])
        return make_rays(targets.pixels, targets.intrinsics, targets.T_world_camera, low, high, way)


def mean_target(moments: Sequence[Sequence[TargetView]], most: int = 200) -> tuple[Tensor, Tensor | None]:
    """Mean picture [H, W, 3] in [0, 1] and mean feature [F] (None without a teacher) of at most so many target views,
    spread over the moments."""
    chosen = evenly([(moment, number) for moment in moments for number in range(len(moment))], most)
    first = chosen[0][0][chosen[0][1]]
    picture, feature, pictures = np.zeros(first.picture.rgb.shape), 0.0, 0
    for moment, number in chosen:
        view = moment[number]
        if view.picture.rgb.shape == picture.shape:
            picture, pictures = picture + view.picture.rgb / 255.0, pictures + 1
        if view.feature is not None:
            feature = feature + view.feature.astype(np.float64).mean(axis=(0, 1)) / len(chosen)
    mean = torch.from_numpy((picture / pictures).astype(np.float32))
    return mean, None if first.feature is None else torch.from_numpy(np.asarray(feature, np.float32))
