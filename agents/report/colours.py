"""One colour for each policy and each outcome, the same in every report, on light and on dark ground.

The palette is Okabe and Ito's, whose colours people with any of the common colour blindnesses tell apart
(https://jfly.uni-koeln.de/color/). No colour stands alone: a name is always written beside it.
"""

from __future__ import annotations

import zlib

BLUE, GREEN, VERMILLION, ORANGE = "#0072b2", "#009e73", "#d55e00", "#e69f00"
PURPLE, SKY, YELLOW, GREY, PALE = "#cc79a7", "#56b4e9", "#f0e442", "#6b7280", "#a3abb6"
INDIGO, BROWN, OLIVE, MINT = "#1010e8", "#882828", "#a0a058", "#70e888"  # as far from all of those as can be

POLICIES = {"trained": BLUE, "expert": GREEN, "untrained": GREY, "random": PALE}
OUTCOMES = {
    "solved": BLUE,
    "wrong object": VERMILLION,
    "imprecise": ORANGE,
    "elsewhere": BROWN,
    "rotation": MINT,
    "gripper": INDIGO,
    "time out": OLIVE,
    "in collision": PURPLE,
    "no path": SKY,
    "unreachable": YELLOW,
    "invalid": GREY,
    "unexplained": PALE,
}


def policy_colour(policy: str) -> str:
    """A CSS colour; a policy that is not in `POLICIES` gets one of its own from its name."""
    return POLICIES.get(policy) or _from_name(policy)


def outcome_colour(outcome: str) -> str:
    """A CSS colour for "solved" or a reason of failure; a new reason gets one of its own from its name."""
    return OUTCOMES.get(outcome) or _from_name(outcome)


def ink_on(colour: str) -> str:
    """The colour of text on `colour`: of white and near-black, the one with more contrast (WCAG 2.1)."""
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (red, green, blue)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#ffffff" if luminance < 0.179 else "#14171b"


def _from_name(name: str) -> str:
    """A middling colour that depends on nothing but the name."""
    number = zlib.crc32(name.encode())
    return "#" + "".join(f"{96 + (number >> shift) % 112:02x}" for shift in (0, 8, 16))
