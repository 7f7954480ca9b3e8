"""The YAML and the dataclasses say the same; what does not make sense is refused in one line."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
from omegaconf import OmegaConf

from envs.make import make_environment
from envs.ros.config import RosConfig
from manifield.configuration import compose
from manifield.errors import InputError


def described(preset: str = "ros", *words: str) -> dict[str, Any]:
    config: Any = OmegaConf.to_container(compose("sim-arm", [f"env={preset}", *words]).env)
    return {key: value for key, value in config.items() if key != "_target_"}


def test_the_yaml_is_the_dataclasses_defaults() -> None:
    """Whoever builds a config in code gets what the documented file says."""
    assert asdict(RosConfig.of(described())) == asdict(
        RosConfig(["front", "left_shoulder", "right_shoulder", "wrist"], 128)
    )


def test_the_xarm_preset() -> None:
    config = RosConfig.of(described("ros_xarm"))
    assert config.arm.execution == "moveit" and config.arm.model is None
    assert (
        config.gripper.action == "/xarm/xarm_gripper/gripper_action" and config.gripper.opened < config.gripper.closed
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"transport": {"name": "carrier pigeon"}}, "unknown transport.name"),
        ({"limits": {"lwo": [0, 0, 0]}}, "unknown key limits. 'lwo': did you mean low"),
        ({"limits": {"low": [0, 0]}}, "limits.low=.*give 3 numbers"),
        ({"limits": {"low": [1.0, 0, 0]}}, "is not below"),
        ({"limits": {"step": 0}}, "limits.step=0.*more than 0"),
        ({"limits": {"step": float("nan")}}, "limits.step=nan"),
        ({"limits": {"boxes": [{"center": [0, 0, 0]}]}}, "limits.boxes.0: give centre"),
        ({"frames": {"base_in_world": [0, 0, 0, 0, 0, 0, 0]}}, "no unit quaternion"),
        ({"frames": {"cameras": {"front": [0, 0, 0]}}}, "frames.cameras.front: give frame"),
        ({"arm": {"model": None}}, "needs a model of the arm"),
        ({"arm": {"speed": 1.5}}, "arm.speed=1.5: a share"),
        ({"arm": {"joints": ["a"]}}, "names 1 joints"),
    ],
)
def test_nonsense_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        RosConfig.of({"cameras": ["front"], "image_size": 128, **change})


def test_nobody_to_ask_is_an_error() -> None:
    config = compose(
        "evaluate", ["env=ros", "env.cameras=[front]", "env.image_size=128", "env.transport.name=rosbridge"]
    ).env
    with pytest.raises(InputError, match="nobody to ask"):
        make_environment(config, "open_drawer")
