"""`manifield record`: takes of a teleoperated or hand-guided arm, or of a policy at work, as bags."""

from __future__ import annotations

import select
import sys
import time
from collections.abc import Callable
from pathlib import Path

from omegaconf import DictConfig

from demos.bags.bag import Bag
from demos.bags.convert import check, convert
from demos.bags.recorder import Recorder
from envs.ros.connect import make_transport, robot_config
from envs.ros.transport import NotConnected
from manifield.errors import InputError, within
from manifield.files import only_writer
from manifield.interrupt import stop_politely
from manifield.progress import Progress

SLOWEST = 5.0  # messages a second, below which a topic that a demonstration needs gets a remark
LOOK = 0.1  # seconds between two looks at the keyboard


def run(config: DictConfig) -> int:
    """Record what `configs/record.yaml` describes; returns the exit code.

    Raises:
        InputError: no bus, nothing on a topic that is needed, no place to write to.
    """
    within(config, takes=(1, 10000), wait=(0, 3600))
    check(config)
    if config.seconds is not None:
        within(config, seconds=(0.5, 86400))
    robot, folder = robot_config(config.env), Path(config.bags)
    instruction = config.instruction or []
    words = [instruction] if isinstance(instruction, str) else [str(text) for text in instruction]
    facts = {"task": str(config.task), "instruction": "\n".join(words)} if config.task else {}
    if config.convert and not (config.task and words):
        raise InputError("convert=true needs the take's task=… and instruction=…")
    transport = make_transport(robot.transport, "manifield_record")
    recorder = Recorder(transport, robot)
    try:
        with only_writer(folder, "record", "bags"):
            try:
                transport.start()
            except NotConnected as error:
                raise InputError(f"no robot: {error}; look at env.transport") from None
            recorder.wait(config.wait)
            with stop_politely("this take") as stopping:
                for number in range(config.takes):
                    path = _record(recorder, _next_name(folder, config.task), facts, config, number, stopping)
                    if path is not None and config.convert:
                        print(convert(path, config, robot))
                    if stopping():
                        break
    finally:
        recorder.discard()
        transport.close()
    return 0


def _record(
    recorder: Recorder,
    path: Path,
    facts: dict[str, str],
    config: DictConfig,
    number: int,
    stopping: Callable[[], bool],
) -> Path | None:
    """One take; its bag, or None if a person has thrown it away."""
    by_hand = sys.stdin.isatty() and config.seconds is None
    if by_hand:
        print(f"take {number + 1} of {config.takes}: Enter begins it", flush=True)
        if _line(stopping) is None:
            return None
    recorder.open(path, facts)
    begin, line = time.monotonic(), None
    hint = "Enter ends it, x and Enter throws it away" if by_hand else "Ctrl-C ends it"
    with Progress(f"recording {path.name} ({hint})", None, "messages") as progress:
        known = 0
        while line is None and not stopping():
            if by_hand:
                line = _read(LOOK)
            else:
                time.sleep(LOOK)
            progress.advance(recorder.count - known, lost=recorder.lost)
            known = recorder.count
            if config.seconds is not None and time.monotonic() - begin >= config.seconds:
                break
    if (line or "").strip().lower().startswith("x"):
        recorder.discard()
        print("thrown away")
        return None
    seconds, lost = time.monotonic() - begin, recorder.lost
    counts = recorder.close()
    print(_summary(path, counts, seconds, lost, recorder.needed))
    return path


def _summary(path: Path, counts: dict[str, int], seconds: float, lost: int, needed: dict[str, type]) -> str:
    lines = [f"{path}: {seconds:.1f} s, {sum(counts.values())} messages"]
    for topic in needed:
        rate = counts.get(topic, 0) / seconds
        if rate < SLOWEST and not topic.endswith("camera_info"):
            lines.append(f"  only {rate:.1f} a second on {topic}")
    if lost:
        lines.append(f"  {lost} messages lost: the disk is too slow; record fewer cameras, or compressed pictures")
    with Bag(path) as bag:  # what cannot be read back should be known while the arm still stands there
        if bag.counts != counts:
            raise InputError(f"{path}: holds {bag.counts}, not the {counts} that were written; record it again")
    return "\n".join(lines)


def _next_name(folder: Path, task: str | None) -> Path:
    name, number = task or "take", 0
    while (folder / f"{name}_{number}").exists():
        number += 1
    return folder / f"{name}_{number}"


def _line(stopping: Callable[[], bool]) -> str | None:
    """The next line of the keyboard; None if the job is to stop."""
    while not stopping():
        line = _read(LOOK)
        if line is not None:
            return line
    return None


def _read(seconds: float) -> str | None:
    """A line if one comes within some time."""
    ready, _, _ = select.select([sys.stdin], [], [], seconds)
    return sys.stdin.readline() if ready else None
