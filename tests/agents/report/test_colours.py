"""A colour means the same in every report, and nobody has to guess it."""

from __future__ import annotations

import itertools

import numpy as np

from agents.report.colours import OUTCOMES, ink_on, outcome_colour, policy_colour

# What the two common colour blindnesses leave of linear RGB (Machado, Oliveira and Fernandes 2009, severity 1).
PROTAN = np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]])
DEUTAN = np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]])


def seen(colour: str, by: np.ndarray) -> np.ndarray:
    """[3] sRGB from 0 to 1."""
    rgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.clip(by @ rgb**2.2, 0, 1) ** (1 / 2.2)


def test_outcomes_are_told_apart_without_red_or_green() -> None:
    for by in (np.eye(3), PROTAN, DEUTAN):
        for one, other in itertools.combinations(OUTCOMES.values(), 2):
            assert np.linalg.norm(seen(one, by) - seen(other, by)) > 0.1, (one, other)


def test_a_colour_depends_on_the_name_alone() -> None:
    assert policy_colour("trained") == outcome_colour("solved") != outcome_colour("wrong object")
    assert outcome_colour("fell over") == outcome_colour("fell over") != outcome_colour("flew away")
    assert all(len(outcome_colour(name)) == 7 for name in ("", "fell over", *OUTCOMES))


def test_text_on_a_colour_is_legible() -> None:
    assert (ink_on("#ffffff"), ink_on("#000000"), ink_on("#0072b2")) == ("#14171b", "#ffffff", "#ffffff")
