"""From a config to a transport."""

from __future__ import annotations

from envs.ros.config import TransportConfig
from envs.ros.transport import Transport


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
