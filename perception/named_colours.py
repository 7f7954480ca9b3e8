"""Which points have a colour that the instruction names.

Twenty demonstrations name each of RLBench's twenty colours about once. A network that has to learn the words from them
learns the scenes by heart instead: on new scenes it chooses by chance. So the words are looked up. (Not published.)
"""

from __future__ import annotations

import re

import numpy as np
import torch
from torch import Tensor

from envs.colors import COLORS

SHADE = (0.7, 1.2)
"""How bright a surface may appear, as a share of its colour, by the light that falls on it."""
WIDTH = 0.1
"""Standard deviation of the likeness, as a distance between colours in 0..1."""

_WORD = re.compile(rf"\b({'|'.join(COLORS)})\b", re.IGNORECASE)


def named_colours(text: str, count: int) -> np.ndarray:
    """[count, 3] RGB in 0..1 of the colours that a text names, each once, in order; NaN where it names fewer."""
    names = list(dict.fromkeys(word.lower() for word in _WORD.findall(text)))[:count]
    rows = [COLORS[name] for name in names] + [(np.nan,) * 3] * (count - len(names))
    return np.array(rows, np.float32).reshape(count, 3)


def likeness(colours: Tensor, named: Tensor) -> Tensor:
    """[M, K] from 0 to 1 (the same in some light) of colours [M, 3] and named ones [M, K, 3], RGB in 0..1; NaN: 0."""
    length = (named * named).sum(dim=2).clamp(min=1e-6)
    shade = ((named * colours[:, None]).sum(dim=2) / length).clamp(*SHADE)
    distance = ((colours[:, None] - shade[..., None] * named) ** 2).sum(dim=2)
    return torch.exp(-distance / (2 * WIDTH**2)).nan_to_num(0.0)
