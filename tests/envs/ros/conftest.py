"""A real ROS 2 bus, a real rosbridge server and the rehearsal arm as processes of this machine, for tests marked `ros`.

They run with `make ros-test`, which installs ROS 2 first. Where it is not installed these tests fail: skipping would
hide that the installation broke.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from envs.interface import Action
from envs.ros.arm import RosEnvironment
from envs.ros.messages import Bool, Text
from envs.ros.rclpy_bus import RclpyTransport, find_python
from envs.ros.sim_arm import FAULT_TOPIC, HALTED_TOPIC, STOP_BUTTON, TAKEN_TOPIC
from manifield.configuration import compose

ROOT = Path(__file__).resolve().parents[3]
CAMERAS = ["front", "wrist"]
DOMAIN = 40 + os.getpid() % 60  # several runs on one machine do not hear each other
# For all tests but those of these very limits: a machine that is busy for a moment is not what they are about.
PATIENT = {"picture_age": 0.6, "joint_age": 0.5, "stamp_age": 1.0, "spread": 0.4}
DOWN = np.array([1.0, 0.0, 0.0, 0.0])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test on the real bus has three tries. Its limits in milliseconds hold for a chain of six processes, and a
    machine that others use withholds one of them for longer now and then; what is slow by itself fails each time."""
    for item in items:
        if item.get_closest_marker("ros"):
            item.add_marker(pytest.mark.flaky(reruns=2))


def wait_for(true: Callable[[], object], seconds: float, what: str) -> None:
    """Until something is so; fails the test if it is not within `seconds`."""
    begin = time.monotonic()
    while not true():
        if time.monotonic() - begin > seconds:
            pytest.fail(f"not within {seconds:g} s: {what}")
        time.sleep(0.005)


def described(**parts: Any) -> dict[str, Any]:
    """The config of `env=ros` for the rehearsal arm, with parts of it replaced."""
    config: Any = OmegaConf.to_container(compose("sim-arm").env)
    config |= {"cameras": CAMERAS, "image_size": 128, "rehearsal": True}
    config["transport"]["domain"] = DOMAIN
    config["limits"]["confirm"] = False
    config["sensing"] |= PATIENT
    for part, values in parts.items():
        config[part] = {**config[part], **values}
    del config["_target_"]
    return config


def free_tcp_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def kill(process: subprocess.Popen) -> None:
    """End a process and those it started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture(scope="session")
def ros_python() -> str:
    return find_python(None)


class Rig:
    """The rehearsal arm in a process of its own, and somebody who presses its buttons and breaks it."""

    def __init__(self, *words: str) -> None:
        command = [sys.executable, "-m", "manifield", "sim-arm", f"env.transport.domain={DOMAIN}", "task=push_buttons"]
        command += [f"env.cameras=[{','.join(CAMERAS)}]", *words]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert "rehearsal arm" in line, line or "the rehearsal arm has not started"
        self.tester = RclpyTransport(domain=DOMAIN, name="tester")
        self.halts: list[dict[str, Any]] = []
        self.stops: list[bool] = []
        self.taken: list[str] = []
        self.tester.subscribe(TAKEN_TOPIC, Text, lambda message: self.taken.append(message.text))
        self.tester.subscribe(HALTED_TOPIC, Text, lambda message: self.halts.append(json.loads(message.text)))
        self.tester.subscribe("/e_stop", Bool, lambda message: self.stops.append(message.value), latched=True)
        self.tester.start()
        self.tester.advertise(FAULT_TOPIC, Text)
        self.tester.advertise(STOP_BUTTON, Bool)
        wait_for(lambda: self.stops, 10, "the emergency stop's topic is heard")

    def breaks(self, **faults: Any) -> int:
        """Something breaks; returns when (ns)."""
        moment = time.time_ns()
        self.tester.publish(FAULT_TOPIC, Text(json.dumps(faults)))
        return moment

    def press_stop(self, pressed: bool) -> int:
        moment = time.time_ns()
        self.tester.publish(STOP_BUTTON, Bool(pressed))
        return moment

    def mend(self) -> None:
        """Well again, for the next test."""
        self.breaks()
        self.press_stop(False)
        wait_for(lambda: self.stops and not self.stops[-1], 5, "the emergency stop is released")
        self.halts.clear()

    def close(self) -> None:
        self.tester.close()
        kill(self.process)


@pytest.fixture(scope="module")
def rig_process(ros_python: str) -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.close()


@pytest.fixture
def rig(rig_process: Rig) -> Iterator[Rig]:
    rig_process.mend()
    yield rig_process
    rig_process.mend()


class Bridge:
    """A rosbridge server that can be killed and started again."""

    def __init__(self) -> None:
        self.port = free_tcp_port()
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        script = ROOT / "envs" / "ros" / "setup" / "rosbridge.sh"
        folder = str(Path(find_python(None)).parents[1])
        environment = os.environ | {"ROS_DOMAIN_ID": str(DOMAIN)}
        self.process = subprocess.Popen(
            [str(script), str(self.port), "127.0.0.1", folder],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_for(self._answers, 15, "the rosbridge server listens")

    def kill(self) -> None:
        if self.process is not None:
            kill(self.process)
            self.process = None

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@pytest.fixture(scope="session")
def bridge(ros_python: str) -> Iterator[Bridge]:
    bridge = Bridge()
    bridge.start()
    yield bridge
    bridge.kill()


Make = Callable[..., RosEnvironment]


@pytest.fixture
def deploy(request: pytest.FixtureRequest) -> Iterator[Make]:
    """Make environments over "rclpy" or "rosbridge" that are closed after the test, observed once."""
    made: list[RosEnvironment] = []

    def make(transport: str, **parts: Any) -> RosEnvironment:
        way: dict[str, Any] = {"name": transport}
        if transport == "rosbridge":
            way["port"] = request.getfixturevalue("bridge").port
        environment = RosEnvironment(task="push_buttons", **described(transport=way, **parts))
        made.append(environment)
        environment.reset(0, 0)
        return environment

    yield make
    for environment in made:
        environment.close()


def far_action(environment: RosEnvironment, **changes: Any) -> Action:
    """A free motion of some seconds at the default speed."""
    here = environment.observe().gripper_pose
    side = 0.25 if here[1] < 0 else -0.25
    position = np.array([0.3, side, 1.15])
    return Action(
        **({"position": position, "quaternion": DOWN, "gripper_open": True, "ignore_collisions": False} | changes)
    )
