"""One episode ends on success, on an action that fails, when the policy gives up, or when its actions are used up."""

import numpy as np
import pytest

from envs.interface import Action, Environment, NoExpert, Observation, Outcome, Start
from envs.rollout import rollout

ACTION = Action(np.zeros(3), np.array([0.0, 0, 0, 1]), True, False)


class Scripted(Environment):
    """Plays back outcomes: "success", a failure's reason, or "" for neither."""

    task, cameras = "scripted", ()

    def __init__(self, *outcomes: str) -> None:
        self.outcomes = list(outcomes)
        self.closed = False

    def variation_count(self):
        return 1

    def observe(self):
        zeros = np.zeros(7)
        return Observation({}, zeros, zeros, zeros, 1.0, np.zeros(2))

    def reset(self, seed, variation):
        return Start(self.observe(), ["do it"], variation)

    def step(self, action, record=None):
        word = self.outcomes.pop(0)
        return Outcome(self.observe(), word == "success", None if word in ("success", "") else word)

    def close(self):
        self.closed = True


@pytest.mark.parametrize(
    ("outcomes", "success", "failure", "actions"),
    [
        (["", "success", ""], True, None, 2),
        (["", "no path", "success"], False, "no path", 2),
        (["", "", "", ""], False, None, 4),
    ],
)
def test_ends(outcomes, success, failure, actions):
    with Scripted(*outcomes) as environment:
        played = rollout(environment, environment.reset(0, 0), lambda observation, number: ACTION, 4)
    assert (played.success, played.failure, len(played.actions)) == (success, failure, actions)
    assert environment.closed


def test_giving_up_ends_the_episode():
    environment = Scripted("", "success")
    played = rollout(environment, environment.reset(0, 0), lambda o, number: ACTION if number == 0 else None, 4)
    assert not played.success and len(played.actions) == 1


def test_a_world_without_expert_says_so():
    with pytest.raises(NoExpert, match="Scripted has no expert for scripted"):
        Scripted().expert()
