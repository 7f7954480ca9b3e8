"""From a config of group `env` to an environment."""

from __future__ import annotations

from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig

from envs.interface import Environment
from manifield.errors import InputError


def make_environment(config: dict[str, Any] | DictConfig, task: str) -> Environment:
    """The environment that a config describes, with `task`.

    Raises:
        InputError: what the environment raised (an unknown task or camera), freed from Hydra's wrapping.
    """
    try:
        environment: Environment = instantiate(config, task=task, _convert_="all")
    except InstantiationException as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, InputError | ModuleNotFoundError):
                raise cause from None
            cause = cause.__cause__
        raise
    return environment
