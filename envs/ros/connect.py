"""From a config to a robot's description and a transport."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from envs.ros.config import RosConfig, TransportConfig
from envs.ros.transport import Transport
from manifield.errors import InputError


def make_transport(config: TransportConfig, name: str = "manifield") -> Transport:
    """The transport that a config names, not started yet. name: of the node, where there is one.

    Raises:
        InputError: no Python with rclpy is to be found.
    """
    if config.name == "rosbridge":
        from envs.ros.rosbridge import RosbridgeTransport

        return RosbridgeTransport(config.host, config.port)
    from envs.ros.rclpy_bus import RclpyTransport

    return RclpyTransport(config.python, config.domain, config.loopback_only, name)


def robot_config(env: Mapping[str, Any] | DictConfig) -> RosConfig:
    """The robot's, of a verb's `env`.

    Raises:
        InputError: the environment is another one, or its config is wrong.
    """
    if "transport" not in env:
        raise InputError("this environment is not a robot on a bus: give env=ros, or another of the real arms")
    plain: Any = OmegaConf.to_container(env, resolve=True) if isinstance(env, DictConfig) else env
    return RosConfig.of({name: value for name, value in plain.items() if name != "_target_"})
