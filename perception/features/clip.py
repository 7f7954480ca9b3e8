"""CLIP's image tower (Radford et al. 2021) as a teacher: features in the space of its texts, one per patch.

Attention pooling would mix all patches into one vector. Following MaskCLIP (Zhou et al. 2022, section 3.2) every patch
goes through the last attention's value and output projections alone, which keeps it comparable with texts.
"""

from __future__ import annotations

from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from manifield.errors import InputError
from perception.features.teacher import Teacher, input_of, need
from perception.open_clip_models import create_clip


class Clip(Teacher):
    """Dense features of a vision transformer or of CLIP's ResNet.

    Args:
        model: open_clip's name of the architecture. OpenAI's weights want the "-quickgelu" ones.
        weights: open_clip's tag, which is downloaded, or the path of a checkpoint.
        side: pixels; a multiple of the stride, which is the patch's size or 32 for ResNets.
    """

    name = "clip"

    def __init__(self, model: str = "ViT-B-16-quickgelu", weights: str = "openai", side: int = 224) -> None:
        open_clip = need("open_clip", "clip", self.name)
        if model not in open_clip.list_models():
            raise InputError(f"teacher.model={model}: unknown to open_clip; open_clip.list_models() names them")
        if not Path(weights).is_file() and weights not in open_clip.list_pretrained_tags_by_model(model):
            tags = ", ".join(open_clip.list_pretrained_tags_by_model(model)) or "none"
            raise InputError(
                f"teacher=clip: no weights '{weights}' for {model}: give a checkpoint's path or a tag ({tags})"
            )
        # A ResNet takes any size; open_clip would want to resize its pooling, which is not used.
        resnet = isinstance(open_clip.get_model_config(model)["vision_cfg"].get("layers"), list | tuple)
        size = None if resnet else side
        try:
            clip = create_clip(model, weights, force_image_size=size)
        except Exception as error:  # open_clip raises many kinds for no network or a broken file
            reason = str(error).strip().partition("\n")[0][:200]
            raise InputError(
                f"teacher=clip: weights '{weights}' for {model} cannot be loaded ({reason}): download them where there "
                "is a network, and give teacher.weights=FILE"
            ) from error
        self._visual = clip.visual
        self._pooling = getattr(self._visual, "attnpool", None)
        if self._pooling is not None:
            self.channels, self.stride = self._pooling.c_proj.out_features, 32
        elif hasattr(self._visual, "transformer") and getattr(self._visual, "proj", None) is not None:
            self.channels, self.stride = self._visual.proj.shape[1], self._visual.patch_size[0]
        else:
            raise InputError(
                f"teacher.model={model}: only CLIP's own ResNets and vision transformers have dense features"
            )
        if side < self.stride or side % self.stride:
            raise InputError(f"teacher.side={side}: give a multiple of {self.stride}")
        self.side = side
        preprocessing = self._visual.preprocess_cfg
        self.normalisation = (tuple(preprocessing["mean"]), tuple(preprocessing["std"]))
        self.identity = self._identify(self._visual, model=model)

    def _features(self, pixels: Tensor, prompt: str) -> Tensor:
        if self._pooling is not None:
            before = input_of(self._pooling, lambda: self._visual(pixels))
            return self._pooling.c_proj(self._pooling.v_proj(before.movedim(1, -1))).movedim(-1, 1)
        attention = self._visual.transformer.resblocks[-1].attn
        tokens = input_of(attention, lambda: self._visual(pixels))
        tokens = (tokens if attention.batch_first else tokens.transpose(0, 1))[:, 1:]  # without the class token
        width = attention.embed_dim
        values = F.linear(tokens, attention.in_proj_weight[2 * width :], attention.in_proj_bias[2 * width :])
        features = self._visual.ln_post(attention.out_proj(values)) @ self._visual.proj
        cells = self.side // self.stride
        return features.transpose(1, 2).unflatten(2, (cells, cells))
