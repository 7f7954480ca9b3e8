"""DINOv2 (Oquab et al. 2023) as a teacher: self-supervised, features that tell parts of things apart."""

from __future__ import annotations

from torch import Tensor

from manifield.errors import InputError, choose
from perception.features.teacher import IMAGENET, Teacher, need, unavailable

KINDS = ("dinov2", "dinov2_with_registers")


class Dino(Teacher):
    """The patch tokens of a vision transformer, after its last normalisation.

    Args:
        weights: id on the Hugging Face hub, or a folder with config.json and model.safetensors.
        side: pixels; a multiple of the patch (14).
        layer: block whose tokens are taken; -1 for the last, -2 for the one before it.
    """

    name = "dino"
    normalisation = IMAGENET

    def __init__(self, weights: str = "facebook/dinov2-small", side: int = 224, layer: int = -1) -> None:
        transformers = need("transformers", "", self.name)
        transformers.utils.logging.disable_progress_bar()
        try:
            kind = transformers.AutoConfig.from_pretrained(weights).model_type
        except (OSError, ValueError) as error:  # no such id or file, no network; a config of nothing known
            raise unavailable(self.name, weights, error) from None
        choose(kind, KINDS, f"kind of model in teacher.weights={weights}")
        try:
            self._model = transformers.AutoModel.from_pretrained(weights, use_safetensors=True).float().eval()
        except (OSError, ValueError, RuntimeError) as error:
            raise unavailable(self.name, weights, error) from None
        config = self._model.config
        if not -config.num_hidden_layers <= layer < 0:
            raise InputError(f"teacher.layer={layer}: give -1 (the last block) to -{config.num_hidden_layers}")
        if side < config.patch_size or side % config.patch_size:
            raise InputError(f"teacher.side={side}: give a multiple of the patch, {config.patch_size} pixels")
        self.channels, self.side, self.stride = config.hidden_size, side, config.patch_size
        self._layer = layer
        self.identity = self._identify(self._model, kind=kind, layer=layer)

    def _features(self, pixels: Tensor, prompt: str) -> Tensor:
        states = self._model(pixels, output_hidden_states=True).hidden_states[self._layer]
        cells = self.side // self.stride
        # What stands before the patches are the class token and the registers.
        patches = self._model.layernorm(states)[:, -cells * cells :]
        return patches.transpose(1, 2).unflatten(2, (cells, cells))
