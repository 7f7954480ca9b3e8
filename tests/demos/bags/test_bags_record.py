"""`manifield record`: takes from a bus into bags, with and without somebody at the keyboard."""

from __future__ import annotations

import io
import os
import pty
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from demos.bags import record
from demos.bags.bag import Bag
from demos.bags.recorder import Recorder
from envs.ros.messages import Bool, Image
from manifield.configuration import compose
from manifield.errors import InputError
from tests.envs.ros.memory_bus import Bus, MemoryTransport
from tests.envs.ros.robot_feed import RobotFeed, make_config

ROBOT = make_config()


@pytest.fixture
def feed(monkeypatch: pytest.MonkeyPatch) -> Iterator[RobotFeed]:
    """A robot that goes on telling of itself, on the bus that `record` gets."""
    feed, done = RobotFeed(ROBOT), threading.Event()
    monkeypatch.setattr(record, "make_transport", lambda config, name: MemoryTransport(feed.bus))

    def tell() -> None:
        while not done.is_set():
            feed.run(0.01)
            time.sleep(0.02)

    thread = threading.Thread(target=tell)
    thread.start()
    yield feed
    done.set()
    thread.join()


def words(folder: Path, *more: str) -> list[str]:
    return [f"bags={folder}", "env.cameras=[front]", "task=open_drawer", "instruction='open it'", *more]


@pytest.fixture
def no_keyboard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())


def test_takes_of_some_seconds(
    feed: RobotFeed, no_keyboard: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert record.run(compose("record", words(tmp_path / "bags", "seconds=0.6", "takes=2"))) == 0
    names = sorted(path.name for path in (tmp_path / "bags").iterdir() if not path.name.startswith("."))
    assert names == ["open_drawer_0", "open_drawer_1"]
    for name in names:
        with Bag(tmp_path / "bags" / name) as bag:
            assert bag.facts == {"task": "open_drawer", "instruction": "open it"}
            for topic in ("/front/color/image_raw", "/front/color/camera_info", "/joint_states", "/tf", "/tf_static"):
                assert bag.counts[topic] >= 3, topic
            times = [recorded.time for recorded in bag.messages()]
            assert times == sorted(times) and abs(times[0] - time.time_ns()) < 60e9
            # What was latched before the take began stands at its beginning.
            assert {recorded.topic for recorded in list(bag.messages())[:200]} >= {"/tf_static", "/e_stop"}
    assert "open_drawer_1: 0." in capsys.readouterr().out
    record.run(compose("record", words(tmp_path / "bags", "seconds=0.5")))
    assert (tmp_path / "bags" / "open_drawer_2").is_dir()


def test_somebody_at_the_keyboard(
    feed: RobotFeed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Enter, x Enter: thrown away; Enter, Enter: kept."""
    master, slave = pty.openpty()
    monkeypatch.setattr(sys, "stdin", os.fdopen(slave, "r", buffering=1))

    def person() -> None:
        for line in (b"\n", b"x\n", b"\n", b"\n"):
            time.sleep(0.5)
            os.write(master, line)

    thread = threading.Thread(target=person)
    thread.start()
    assert record.run(compose("record", words(tmp_path, "takes=2"))) == 0
    thread.join()
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["open_drawer_0"]
    printed = capsys.readouterr().out
    assert "take 1 of 2: Enter begins it" in printed and "thrown away" in printed
    sys.stdin.close()
    os.close(master)


def test_a_silent_topic_is_named_before_anything_is_recorded(
    feed: RobotFeed, no_keyboard: None, tmp_path: Path
) -> None:
    config = compose("record", words(tmp_path, "env.cameras=[front,wrist]", "seconds=1", "wait=0.2"))
    with pytest.raises(InputError, match="nothing on /wrist/color/image_raw, /wrist/aligned"):
        record.run(config)
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []
    with pytest.raises(InputError, match="needs the take's task"):
        record.run(compose("record", [f"bags={tmp_path}", "convert=true"]))
    with pytest.raises(InputError, match="take.rate=0"):
        record.run(compose("record", words(tmp_path, "take.rate=0")))


def test_what_cannot_be_written_is_told_by_whoever_closes(tmp_path: Path) -> None:
    bus = Bus()
    transport, robot = MemoryTransport(bus), MemoryTransport(bus)
    recorder = Recorder(transport, ROBOT)
    transport.start()
    robot.start()
    robot.publish("/e_stop", Bool(False), latched=True)
    recorder.open(tmp_path / "take", {})
    image = Image(1, "cam", "rgb8", None)  # type: ignore[arg-type]
    recorder._writer.put("/front/color/image_raw", image, 1)  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="unpack"):
        recorder.close()
    assert list(tmp_path.iterdir()) == []
