"""Augmentation that gives a scene other colours, and its instruction the words for them: where red, green and blue
change places, the maroon button becomes the navy one.

Twenty demonstrations name each of RLBench's twenty colours about once, which is too seldom to learn the words by heart
and often enough to learn the demonstrations by heart. (Not published.)
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from itertools import permutations

import numpy as np

from demos.dataset import Sample
from envs.colors import COLORS

ORDERS = tuple(permutations(range(3)))
"""Ways to draw red, green and blue of the new picture from channels of the old one; the first changes nothing."""
OTHER_WORDS = ("pink", "brown", "beige", "gold", "golden", "turquoise", "grey", "dark", "light")
"""Words for colours whose new names are not known: instructions with these keep their colours."""

_WORD = re.compile(rf"\b({'|'.join([*COLORS, *OTHER_WORDS])})\b")
_NAMES = {rgb: name for name, rgb in COLORS.items()}


@cache  # asked for with every sample
def renamed(order: tuple[int, ...]) -> dict[str, str]:
    """New names of the colours that have one when channels change places (orange has none where it becomes a spring
    green)."""
    turned = {name: _NAMES.get((rgb[order[0]], rgb[order[1]], rgb[order[2]])) for name, rgb in COLORS.items()}
    return {old: new for old, new in turned.items() if new is not None}


def recolour(sample: Sample, rng: np.random.Generator) -> Sample:
    """The sample with its colour channels in another order and its instructions' colours renamed; as it is where the
    instructions name no colour, or one whose new name is not known. Pictures for a neural field are not recoloured."""
    words = {word for text in sample.descriptions for word in _WORD.findall(text)}
    ways = [order for order in ORDERS[1:] if words and words <= renamed(order).keys()]
    if not ways:
        return sample
    order = ways[int(rng.integers(len(ways)))]
    names = renamed(order)
    texts = [_WORD.sub(lambda found: names[found[0]], text) for text in sample.descriptions]
    return replace(sample, colours=sample.colours[:, list(order)], descriptions=texts)
