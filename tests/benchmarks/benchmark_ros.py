"""How old observations are, and whether memory grows, with a policy in the loop for minutes:

    python -m tests.benchmarks.benchmark_ros --minutes 10 [--transport rosbridge] [--run RUN]

The rehearsal arm runs in a process of its own with 128x128 RGB-D cameras at 30 Hz and joint states at 100 Hz. The
loop observes, decides (a trained run's agent, or a stand-in that computes for as long) and moves, as a deployment does.
Once a second an observation's age (from the oldest picture's stamp to the observation in hand) is taken, and every
half minute the resident memory of this process, of its node and of the rehearsal arm. Needs ROS 2, see
envs/ros/setup/install.sh.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from envs.interface import Action, Observation
from envs.ros.arm import RosEnvironment
from envs.ros.rclpy_bus import RclpyTransport
from envs.ros.sensing import SensorFault
from tests.envs.ros.conftest import CAMERAS, DOWN, Bridge, Rig, described

THINKING = 0.8  # seconds that the stand-in for a policy computes


def resident(process: int | None) -> float:
    """Megabytes of a process, 0 if there is none."""
    try:
        text = Path(f"/proc/{process or 'self'}/status").read_text()
    except OSError:
        return 0.0
    return int(text.partition("VmRSS:")[2].split()[0]) / 1024


def stand_in(observation: Observation, number: int) -> Action:
    """Somewhere above the table, decided after a while of arithmetic with many threads' worth of memory traffic."""
    end = time.monotonic() + THINKING
    matrix = np.random.default_rng(number).normal(size=(300, 300))
    while time.monotonic() < end:
        matrix = np.tanh(matrix @ matrix.T / 300)
    side = 0.2 if number % 2 else -0.2
    return Action(np.array([0.3, side, 1.1]), DOWN, bool(number % 4 < 2), False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--transport", default="rclpy", choices=("rclpy", "rosbridge"))
    parser.add_argument("--run", help="a trained run, with the cameras front and wrist among its own")
    parser.add_argument("--cameras", default=",".join(CAMERAS))
    words = parser.parse_args()
    cameras = words.cameras.split(",")
    decide: Callable[[Observation, int], Action] = stand_in
    if words.run:
        from agents.agent import Agent

        agent = Agent.load(Path(words.run))
        cameras = list(agent.meta["cameras"])
        decide = lambda observation, number: agent.act(observation, "push the maroon button", number % 5)[0]  # noqa: E731

    rig, bridge = Rig(f"env.cameras=[{','.join(cameras)}]"), Bridge()
    way: dict[str, object] = {"name": words.transport}
    if words.transport == "rosbridge":
        bridge.start()
        way["port"] = bridge.port
    environment = RosEnvironment(
        task="push_buttons", **{**described(transport=way, arm={"speed": 1.0}), "cameras": cameras}
    )
    ages: list[float] = []
    faults: list[str] = []
    ended = threading.Event()

    def take_ages() -> None:
        while not ended.wait(1.0):
            try:
                ages.append(environment.sensors.observe(timeout=0.5).age)
            except SensorFault as fault:
                faults.append(str(fault))

    try:
        environment.reset(0, 0)
        node = environment.transport.process_id if isinstance(environment.transport, RclpyTransport) else None
        threading.Thread(target=take_ages, daemon=True).start()
        begin = last = time.monotonic()
        actions = stops = 0
        print("minutes  actions  stops   age median  99 %    memory: here  node  arm (MB)")
        while time.monotonic() - begin < 60 * words.minutes:
            try:
                observation = environment.observe()
                outcome = environment.step(decide(observation, actions))
                actions += 1
                if environment.guard.latched is not None:
                    stops += 1
                    print(f"  {outcome.failure}", flush=True)
                    environment.reset_stop("the benchmark")
            except SensorFault as fault:
                print(f"  {fault}", flush=True)
            if time.monotonic() - last > 30 and ages:
                last = time.monotonic()
                median, high = 1e3 * np.percentile(ages, [50, 99])
                memory = [resident(None), resident(node) if node else 0.0, resident(rig.process.pid)]
                print(
                    f"{(last - begin) / 60:7.1f} {actions:8} {stops:6} {median:8.0f} ms {high:5.0f} ms"
                    f"  {memory[0]:12.0f} {memory[1]:5.0f} {memory[2]:5.0f}",
                    flush=True,
                )
        print(f"{len(ages)} ages, {len(faults)} moments without a sound observation")
    finally:
        ended.set()
        environment.close()
        bridge.kill()
        rig.close()


if __name__ == "__main__":
    main()
