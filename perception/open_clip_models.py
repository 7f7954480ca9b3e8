"""CLIP's models from open_clip, loaded such that nothing in a file of weights is run."""

from __future__ import annotations

from inspect import signature
from typing import Any


def create_clip(model: str, weights: str | None, **settings: Any) -> Any:
    """`open_clip.create_model`, ready for inference. Raises what that raises, of many kinds."""
    import open_clip

    known = signature(open_clip.create_model).parameters
    safely = "weights_only" if "weights_only" in known else "load_weights_only"  # since 3.3, and before
    return open_clip.create_model(model, pretrained=weights, **settings, **{safely: True}).eval()
