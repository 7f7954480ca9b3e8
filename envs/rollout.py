"""One episode: a policy and an environment take turns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from envs.interface import Action, Environment, Observation, Recorder, Start

Act = Callable[[Observation, int], Action | None]
"""Observation and number of key-frames so far → the next one, or None to give up."""


@dataclass
class Rollout:
    """What happened. actions: those carried out or tried. failure: why the last one could not be, or None."""

    success: bool = False
    failure: str | None = None
    actions: list[Action] = field(default_factory=list)


def rollout(
    environment: Environment, start: Start, act: Act, max_actions: int, record: Recorder | None = None
) -> Rollout:
    """Play from `start` until success, an action that cannot be carried out (as in RLBench's evaluation, it ends the
    episode), or `max_actions`."""
    result, observation = Rollout(), start.observation
    for number in range(max_actions):
        action = act(observation, number)
        if action is None:
            break
        result.actions.append(action)
        outcome = environment.step(action, record)
        observation, result.success, result.failure = outcome.observation, outcome.success, outcome.failure
        if outcome.success or outcome.failure:
            break
    return result
