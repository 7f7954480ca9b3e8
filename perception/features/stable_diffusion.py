"""Stable Diffusion (Rombach et al. 2022) as a teacher, the one of GNFactor (section 3.3).

GNFactor's code takes the last of the feature maps that ODISE's extractor lists. That one is the input of the sixth
residual block of the autoencoder's decoder: 512 channels, stride 4. The decoder gets the picture's own latent, not what
the denoising network makes of it, so neither prompt nor noise nor time step has any part in the published features.
The layers "unet.N" are those that a reader of the paper expects.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from manifield.errors import InputError
from perception.features.teacher import Teacher, input_of, need, unavailable

NOISE_SEED = 42  # as published: the same noise for every picture
MINUS_ONE_TO_ONE = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


class StableDiffusion(Teacher):
    """What a block of Stable Diffusion v1 is given while it looks at a picture.

    Args:
        weights: id on the Hugging Face hub, or a folder with the pipeline's subfolders (vae, unet...).
        layer: "decoder.N", the N-th residual block of the autoencoder's decoder, or "unet.N", that of the upward half
            of the denoising network; counted from 0 in the order in which they are used.
        step: time step whose noise the latent gets, for "unet.N".
        prompt: for "unet.N"; "{instruction}" in it stands for the episode's.
        side: pixels; a multiple of 64.
    """

    _unet: Any
    name = "stable_diffusion"
    normalisation = MINUS_ONE_TO_ONE

    def __init__(
        self,
        weights: str = "stable-diffusion-v1-5/stable-diffusion-v1-5",
        layer: str = "decoder.5",
        step: int = 0,
        prompt: str = "a robot arm {instruction}",
        side: int = 512,
    ) -> None:
        diffusers = need("diffusers", "diffusion", self.name)
        match = re.fullmatch(r"(decoder|unet)\.(\d+)", layer)
        if match is None:
            raise InputError(f"teacher.layer={layer}: give decoder.N or unet.N")
        part, number = match[1], int(match[2])
        self.side = side
        self._vae = _load(diffusers.AutoencoderKL, weights, "vae", low_cpu_mem_usage=False)
        self._unet = None
        coarsest = 2 ** (len(self._vae.config.block_out_channels) - 1)
        if part == "decoder":
            levels: Any = self._vae.decoder.up_blocks
        else:
            self._prepare_denoising(diffusers, weights, step, prompt)
            levels = self._unet.up_blocks
            coarsest *= 2 ** (len(self._unet.config.block_out_channels) - 1)
        if side < coarsest or side % coarsest:
            raise InputError(f"teacher.side={side}: give a multiple of {coarsest}")
        blocks = [(block, coarsest // 2**depth) for depth, level in enumerate(levels) for block in level.resnets]
        if number >= len(blocks):
            raise InputError(f"teacher.layer={layer}: there are {part}.0 to {part}.{len(blocks) - 1}")
        self._block, self.stride = blocks[number]
        self.channels = self._block.in_channels
        if self._unet is None:
            self.identity = self._identify(self._vae, layer=layer)
        else:
            noise = f"{1 - self._signal:.6g} seed {NOISE_SEED}"
            self.identity = self._identify(self._vae, self._unet, self._text, layer=layer, step=step, noise=repr(noise))

    def _prepare_denoising(self, diffusers: Any, weights: str, step: int, prompt: str) -> None:
        transformers = need("transformers", "", self.name)
        transformers.utils.logging.disable_progress_bar()
        self.prompt = prompt
        try:
            prompt.format(instruction="")
        except (KeyError, IndexError, ValueError):
            raise InputError(f"teacher.prompt={prompt}: the only thing in braces can be {{instruction}}") from None
        self._unet = _load(diffusers.UNet2DConditionModel, weights, "unet", low_cpu_mem_usage=False)
        self._text = _load(transformers.CLIPTextModel, weights, "text_encoder")
        try:
            self._tokenizer = transformers.CLIPTokenizer.from_pretrained(weights, subfolder="tokenizer")
            scheduler = diffusers.DDPMScheduler.from_pretrained(weights, subfolder="scheduler")
        except (OSError, ValueError) as error:
            raise unavailable(self.name, weights, error) from None
        if not 0 <= step < len(scheduler.alphas_cumprod):
            raise InputError(f"teacher.step={step}: give a time step from 0 to {len(scheduler.alphas_cumprod) - 1}")
        self._step, self._signal = step, float(scheduler.alphas_cumprod[step])
        self._known: dict[str, Tensor] = {}

    def _features(self, pixels: Tensor, prompt: str) -> Tensor:
        latent = self._vae.encode(pixels).latent_dist.mean
        if self._unet is None:
            return input_of(self._block, lambda: self._vae.decode(latent))
        latent = latent * self._vae.config.scaling_factor
        noise = torch.randn(latent[:1].shape, generator=torch.Generator().manual_seed(NOISE_SEED)).to(latent)
        noisy = self._signal**0.5 * latent + (1 - self._signal) ** 0.5 * noise
        words = self._words(prompt).expand(len(pixels), -1, -1)
        return input_of(self._block, lambda: self._unet(noisy, self._step, encoder_hidden_states=words))

    def _words(self, prompt: str) -> Tensor:
        """Token features [1, tokens, width] of the prompt."""
        if prompt not in self._known:
            length = self._text.config.max_position_embeddings
            tokens = self._tokenizer(
                prompt, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
            ).input_ids
            self._known[prompt] = self._text(tokens.to(self.device)).last_hidden_state
        return self._known[prompt]


def _load(kind: Any, weights: str, subfolder: str, **options: Any) -> Any:
    try:
        return kind.from_pretrained(weights, subfolder=subfolder, **options).float().eval()
    except (OSError, ValueError, RuntimeError) as error:
        raise unavailable(StableDiffusion.name, weights, error) from None
