"""Seeds of episodes, disjoint between splits by construction.

A seed is a hash of (split, base seed, task, index), so a scene of the `test` split can never have been seen while
collecting (`train`) or developing (`dev`), whatever base seeds are used.
"""

from __future__ import annotations

from zlib import crc32

import numpy as np

from manifield.errors import choose

SPLITS = ("train", "dev", "test")


def episode_seed(split: str, seed: int, task: str, index: int) -> int:
    """Seed of episode `index` of `task`: a 62-bit number whose top two bits are the split's own."""
    choose(split, SPLITS, "split")
    words = np.random.SeedSequence([seed, crc32(task.encode()), index]).generate_state(2, np.uint64)
    return SPLITS.index(split) << 60 | int(words[0]) >> 4


def episode_variation(split: str, seed: int, task: str, index: int, count: int) -> int:
    """Variation of episode `index`: a shuffled cycle, another one per split, so that n episodes cover the `count`
    variations evenly and those of `test` are not just those demonstrated."""
    order = np.random.default_rng([seed, crc32(task.encode()), SPLITS.index(split)]).permutation(count)
    return int(order[index % count])


def random_state(seed: int) -> tuple[str, np.ndarray, int, int, float]:
    """The state of numpy's old, global generator that RLBench draws its scenes from and stores with them, as a function
    of an episode's seed."""
    generator = np.random.RandomState(np.random.MT19937(np.random.SeedSequence(int(seed))))
    name, keys, position, has_gauss, cached = generator.get_state()
    return str(name), np.array(keys, np.uint32), int(position), int(has_gauss), float(cached)
