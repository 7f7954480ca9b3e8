"""From a config of group `env` to an environment."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig

from envs.interface import Environment
from manifield.configuration import make


def make_environment(config: dict[str, Any] | DictConfig, task: str, **arguments: Any) -> Environment:
    """The environment that a config describes, with `task` and further arguments of its class.

    Raises:
        InputError: what the environment raised (an unknown task or camera).
    """
    environment: Environment = make(config, task=task, **arguments)
    return environment
