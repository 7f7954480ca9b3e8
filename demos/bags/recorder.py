"""From a transport into a bag: every message of the wanted topics, at the time of its arrival."""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from demos.bags.bag import BagWriter
from envs.ros.config import RosConfig
from envs.ros.messages import (
    Bool,
    CameraInfo,
    CompressedImage,
    Image,
    JointState,
    Message,
    Text,
    Transforms,
)
from envs.ros.transport import Transport
from manifield.errors import InputError

WAITING = 2000  # messages that may wait for the disk; more are lost, and told of
LATCHED = ("/tf_static",)


def wanted_topics(config: RosConfig) -> tuple[dict[str, type[Message]], dict[str, type[Message]]]:
    """Topics to record with their types: those that a demonstration needs, and those that are kept where they exist."""
    topics = config.topics
    picture: type[Message] = CompressedImage if topics.compressed else Image
    suffix = "/compressed" if topics.compressed else ""
    needed: dict[str, type[Message]] = {}
    for camera in config.cameras:
        for template in (topics.color, topics.depth):
            needed[template.format(camera=camera) + suffix] = picture
        needed[topics.info.format(camera=camera)] = CameraInfo
    needed |= {topic: JointState for topic in topics.joints}
    kept: dict[str, type[Message]] = {"/tf_static": Transforms, topics.refusals: Text}
    (kept if config.frames.tool is None else needed)["/tf"] = Transforms
    if topics.stop is not None:
        kept[topics.stop] = Bool
    return needed, kept


class Recorder:
    """Listens to a transport for as long as it lives, and writes what comes into the bag that is open, if one is.

    What is latched (still frames, the emergency stop) came before the bag was opened and is written into every one.
    """

    def __init__(self, transport: Transport, config: RosConfig) -> None:
        self.needed, kept = wanted_topics(config)
        self.lost = 0
        self.heard: Counter[str] = Counter()
        self._latched: dict[str, list[Message]] = {topic: [] for topic in (*LATCHED, config.topics.stop) if topic}
        self._lock = threading.Lock()
        self._writer: _Writer | None = None
        for topic, kind in (self.needed | kept).items():
            transport.subscribe(topic, kind, self._listener(topic), latched=topic in self._latched)

    def wait(self, timeout: float) -> None:
        """Wait until every needed topic has told something.

        Raises:
            InputError: names those that have not within `timeout` seconds.
        """
        end = time.monotonic() + timeout
        while True:
            missing = [topic for topic in self.needed if not self.heard[topic]]
            if not missing:
                return
            if time.monotonic() > end:
                raise InputError(
                    f"nothing on {', '.join(missing)} within {timeout:g} s: look whether the drivers run, and at "
                    "env.topics and env.cameras"
                )
            time.sleep(0.05)

    def open(self, path: Path, facts: Mapping[str, str]) -> None:
        """Begin a bag.

        Raises:
            InputError: it exists, or cannot be written.
        """
        writer = _Writer(path, facts)
        with self._lock:
            now = time.time_ns()
            for topic, messages in self._latched.items():
                for message in messages:
                    writer.put(topic, message, now)
            self._writer, self.lost = writer, 0

    def close(self) -> dict[str, int]:
        """End the bag; messages by topic.

        Raises:
            InputError, OSError: writing failed on the way.
        """
        with self._lock:
            writer, self._writer = self._writer, None
        assert writer is not None
        return writer.close()

    def discard(self) -> None:
        """Throw the open bag away, if there is one."""
        with self._lock:
            writer, self._writer = self._writer, None
        if writer is not None:
            writer.discard()

    @property
    def count(self) -> int:
        """Messages of the open bag so far."""
        writer = self._writer
        return writer.count if writer is not None else 0

    def _listener(self, topic: str):  # type: ignore[no-untyped-def]
        def take(message: Message) -> None:
            now = time.time_ns()
            with self._lock:
                self.heard[topic] += 1
                if topic in self._latched:
                    # Every publisher of still frames has a message of its own; of a stop only the last one counts.
                    known = self._latched[topic] if isinstance(message, Transforms) else []
                    self._latched[topic] = [*known, message][-100:]
                if self._writer is not None and not self._writer.put(topic, message, now):
                    self.lost += 1

        return take


class _Writer:
    """A bag that is written by a thread of its own, so that those who deliver messages never wait for the disk."""

    def __init__(self, path: Path, facts: Mapping[str, str]) -> None:
        self._bag = BagWriter(path, dict(facts))
        self._queue: queue.Queue[tuple[str, Message, int] | None] = queue.Queue(WAITING)
        self._failure: Exception | None = None
        self.count = 0
        self._thread = threading.Thread(target=self._write, name="bag", daemon=True)
        self._thread.start()

    def put(self, topic: str, message: Message, now: int) -> bool:
        """Whether there was room for it."""
        try:
            self._queue.put_nowait((topic, message, now))
        except queue.Full:
            return False
        return True

    def close(self) -> dict[str, int]:
        self._end()
        if self._failure is not None:
            self._bag.discard()
            raise self._failure
        self._bag.close()
        return self._bag.counts

    def discard(self) -> None:
        self._end()
        self._bag.discard()

    def _end(self) -> None:
        self._queue.put(None)
        self._thread.join()

    def _write(self) -> None:
        while (item := self._queue.get()) is not None:
            if self._failure is None:
                try:
                    self._bag.write(*item)
                    self.count += 1
                except Exception as error:  # told by `close`, where somebody listens; the queue goes on being emptied
                    self._failure = error
