"""`manifield sim-arm`: the rehearsal arm until Ctrl-C."""

from __future__ import annotations

import logging
from typing import Any

from omegaconf import DictConfig, OmegaConf

from envs.mujoco.environment import DEFAULT_CAMERAS
from envs.ros.config import RosConfig
from envs.ros.rclpy_bus import RclpyTransport
from envs.ros.sim_arm import SimArm
from envs.ros.transport import NotConnected
from manifield.errors import InputError, within
from manifield.interrupt import stop_politely


def run(config: DictConfig) -> int:
    """Serve as `configs/sim-arm.yaml` says; returns 0 after Ctrl-C."""
    settings: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    within(config, camera_rate=(0.1, 120.0))
    described = {key: value for key, value in settings["env"].items() if key != "_target_"}
    described["cameras"] = described["cameras"] or list(DEFAULT_CAMERAS)
    robot = RosConfig.of(described)
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    bus = robot.transport
    transport = RclpyTransport(bus.python, bus.domain, bus.loopback_only, "sim_arm")
    try:
        transport.start()
        with stop_politely("this moment") as stopping:
            arm = SimArm(
                transport,
                robot,
                settings["task"],
                settings["camera_rate"],
                settings["unseen"],
                serve_franka=settings["franka_gripper"],
                seed=settings["seed"],
                variation=settings["variation"],
            )
            arm.start()
            where = "this machine only" if bus.loopback_only else "the network that ROS is set up for"
            print(f"the rehearsal arm: {settings['task']}, ROS domain {bus.domain}, {where} (Ctrl-C ends)", flush=True)
            arm.spin(stopping)
    except NotConnected as error:
        raise InputError(str(error)) from None
    finally:
        transport.close()
    return 0
