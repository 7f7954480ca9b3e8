"""How sure a success rate is."""

from __future__ import annotations

import math


def wilson_interval(successes: int, episodes: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval of a success rate; unlike the normal one it is right near 0 and 1 and for few episodes.

    Args:
        successes: 0 to `episodes`.
        episodes: how many were tried; 0 says nothing and gives (0, 1).
        z: half-width in standard deviations, 1.96 for 95 %.

    Returns:
        (low, high), within 0 to 1 and around successes / episodes.
    """
    if not 0 <= successes <= episodes:
        raise ValueError(f"{successes} successes of {episodes} episodes")
    if episodes == 0:
        return 0.0, 1.0
    rate, extra = successes / episodes, z * z / episodes
    middle = (rate + extra / 2) / (1 + extra)
    half = z / (1 + extra) * math.sqrt(rate * (1 - rate) / episodes + extra / (4 * episodes))
    # At 0 and 1 the ends are exact; rounding must not move the rate out of its interval.
    low = 0.0 if successes == 0 else max(0.0, middle - half)
    high = 1.0 if successes == episodes else min(1.0, middle + half)
    return low, high
