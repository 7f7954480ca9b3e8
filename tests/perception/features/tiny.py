"""Randomly initialised models of the real classes, small enough for tests, saved as their own weights are."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from perception.features.teacher import mend_torchvision


def save_stable_diffusion(folder: Path, seed: int = 0) -> Path:
    """A pipeline's folder with Stable Diffusion v1's structure: same blocks and strides, at most 16 channels."""
    mend_torchvision()
    from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(seed)
    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(4, 4, 8, 12),
        norm_num_groups=2,
        latent_channels=4,
        layers_per_block=2,
    ).save_pretrained(folder / "vae")
    UNet2DConditionModel(
        block_out_channels=(8, 8, 16, 16),
        layers_per_block=2,
        cross_attention_dim=8,
        attention_head_dim=2,
        norm_num_groups=2,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    ).save_pretrained(folder / "unet")
    words = CLIPTextConfig(
        vocab_size=54,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=16,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    CLIPTextModel(words).save_pretrained(folder / "text_encoder")
    PNDMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").save_pretrained(
        folder / "scheduler"
    )
    _save_tokenizer(folder / "tokenizer")
    return folder


def _save_tokenizer(folder: Path) -> None:
    """CLIP's tokenizer with the letters as its only words."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    begin, end = "<|startoftext|>", "<|endoftext|>"
    vocabulary = [begin, end, *letters, *(f"{letter}</w>" for letter in letters)]
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 16, "bos_token": begin, "eos_token": end}
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"pad_token": end, "unk_token": end}))


def save_dino(folder: Path, registers: int = 0, seed: int = 0) -> Path:
    """A folder with a DINOv2 of 8 channels and patches of 14 pixels."""
    mend_torchvision()
    from transformers import Dinov2Config, Dinov2Model, Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    torch.manual_seed(seed)
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    if registers:
        config = Dinov2WithRegistersConfig(num_register_tokens=registers, **sizes)
        Dinov2WithRegistersModel(config).save_pretrained(folder)
    else:
        Dinov2Model(Dinov2Config(**sizes)).save_pretrained(folder)
    return folder


def save_clip(folder: Path, kind: str, seed: int = 0) -> tuple[str, str]:
    """Name and checkpoint of a CLIP whose image tower is a "transformer" (patches of 16) or a "resnet"."""
    mend_torchvision()
    import open_clip

    vision = {
        "transformer": {"image_size": 32, "layers": 2, "width": 16, "head_width": 8, "patch_size": 16},
        "resnet": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 8},
    }[kind]
    text = {"context_length": 77, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1}
    name = f"tiny-{kind}"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps({"embed_dim": 6, "vision_cfg": vision, "text_cfg": text}))
    open_clip.add_model_config(folder / f"{name}.json")
    torch.manual_seed(seed)
    weights = folder / f"{name}-{seed}.pt"
    torch.save(open_clip.create_model(name).state_dict(), weights)
    return name, str(weights)
