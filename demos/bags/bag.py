"""Bags as files: ROS 2's (MCAP or SQLite, a folder or a single file) and ROS 1's are read, MCAP is written."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from rosbags.rosbag1 import Reader as Ros1Reader
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.rosbag2 import Reader as Ros2Reader

from demos.bags.codec import KINDS, SYNONYMS, decode, encode, ros2_types
from demos.writer import UNFINISHED
from envs.ros.messages import MalformedMessage, Message, Wire
from manifield.errors import InputError

SUFFIXES = (".mcap", ".db3", ".bag")
MENDING = "record it again, or repair it (`mcap recover`, `ros2 bag reindex`, `rosbag reindex`)"


@dataclass(frozen=True)
class Recorded:
    """A message in a bag. time: when it was recorded, nanoseconds. wire: its fields, see `envs.ros.messages`."""

    topic: str
    time: int
    kind: type[Message]
    wire: Wire

    def message(self) -> Message:
        """The message itself.

        Raises:
            MalformedMessage: its fields make no sense.
        """
        return self.kind.parse(self.wire)


class Bag:
    """An open bag. Use with `with`.

    Attributes:
        path. counts: messages by topic. types: ROS type by topic. start, end: nanoseconds of the first message and
        after the last. facts: words that the recorder left in it (`task`, `instruction`, ...); none in other bags.
    """

    def __init__(self, path: Path | str) -> None:
        """
        Raises:
            InputError: no such bag, none at all, or one that is damaged or empty.
        """
        self.path = Path(path)
        if not self.path.exists():
            raise InputError(f"{self.path}: no such bag; give a bag's folder or a file {', '.join(SUFFIXES)}")
        if not self.path.is_dir() and self.path.suffix not in SUFFIXES:
            raise InputError(f"{self.path}: not a bag; give a bag's folder or a file {', '.join(SUFFIXES)}")
        if self.path.is_dir() and not (self.path / "metadata.yaml").is_file():
            raise InputError(f"{self.path}: has no metadata.yaml, so it is no bag or was not closed; {MENDING}")
        self._ros1 = self.path.suffix == ".bag" and self.path.is_file()
        with self._readable():
            self._reader: Any = Ros1Reader(self.path) if self._ros1 else Ros2Reader(self.path)
            self._reader.open()
        try:
            with self._readable():
                self.counts: dict[str, int] = {}
                self.types: dict[str, str] = {}
                for connection in self._reader.connections:
                    self.counts[connection.topic] = self.counts.get(connection.topic, 0) + connection.msgcount
                    self.types[connection.topic] = SYNONYMS.get(connection.msgtype, connection.msgtype)
                self.start, self.end = int(self._reader.start_time), int(self._reader.end_time)
                self.facts: dict[str, str] = {}
                if isinstance(self._reader, Ros2Reader):
                    custom = self._reader.storage.metadata.custom or {}
                    self.facts = {str(name): str(value) for name, value in custom.items()}
            if not sum(self.counts.values()):
                raise InputError(f"{self.path}: holds no message; record it again")
        except BaseException:
            self.close()
            raise

    def messages(self, topics: Iterable[str] | None = None) -> Iterator[Recorded]:
        """Messages in the order in which they were recorded. topics: None for all of the types in `KINDS`.

        Raises:
            InputError: the bag is damaged.
        """
        wanted = None if topics is None else set(topics)
        connections = [
            connection
            for connection in self._reader.connections
            if SYNONYMS.get(connection.msgtype, connection.msgtype) in KINDS
            and (wanted is None or connection.topic in wanted)
        ]
        if not connections:
            return
        with self._readable():
            found = iter(self._reader.messages(connections))
        while True:
            with self._readable():
                item = next(found, None)
                if item is None:
                    return
                connection, time, content = item
                name = SYNONYMS.get(connection.msgtype, connection.msgtype)
                wire = decode(content, name, self._ros1)
            yield Recorded(connection.topic, int(time), KINDS[name], wire)

    def close(self) -> None:
        """Close the file; harmless twice."""
        reader, self._reader = self._reader, None
        if reader is not None:
            with self._readable():
                reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """Whatever the library meets in a damaged file (its own errors, struct's, zstd's, SQLite's, …) in one line."""
        try:
            yield
        except InputError:
            raise
        except Exception as error:
            words = " ".join(str(error).split())[:200] or type(error).__name__
            raise InputError(f"{self.path}: cannot be read as a bag ({words}); {MENDING}") from None


class BagWriter:
    """Writes a ROS 2 bag (MCAP, zstd) that appears under its name when it is closed, whole; use with `with`.

    Args:
        path: the bag's folder; must not exist. facts: words to leave in it.

    Raises:
        InputError: the folder exists or cannot be made.
    """

    def __init__(self, path: Path | str, facts: dict[str, str] | None = None) -> None:
        self.path = Path(path)
        if self.path.exists():
            raise InputError(f"{self.path}: exists already; delete it or choose another name, bag=…")
        # The file inside a bag is named after its folder, so the draft has its final name in a folder of its own.
        self._draft = self.path.parent / f"{UNFINISHED}{self.path.name}"
        try:
            if self._draft.exists():  # of a recorder that was killed
                shutil.rmtree(self._draft)
            self._draft.mkdir(parents=True)
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written ({error.strerror}); choose another, bag=…") from None
        self._writer = Writer(self._draft / self.path.name, version=9, storage_plugin=StoragePlugin.MCAP)
        self._writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        for name, value in (facts or {}).items():
            self._writer.set_custom_data(name, value)
        self._writer.open()
        self._connections: dict[str, Any] = {}
        self.counts: dict[str, int] = {}

    def write(self, topic: str, message: Message, time: int) -> None:
        """Append a message. time: nanoseconds, of its arrival."""
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(topic, message.ROS_TYPE, typestore=ros2_types())
            self.counts[topic] = 0
        self._writer.write(self._connections[topic], time, encode(message))
        self.counts[topic] += 1

    def close(self) -> None:
        """Finish the bag: it exists from here on."""
        self._writer.close()
        (self._draft / self.path.name).rename(self.path)
        self._draft.rmdir()

    def discard(self) -> None:
        """Leave nothing behind."""
        self._writer.abort()
        shutil.rmtree(self._draft, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()


def read_message(recorded: Recorded, path: Path) -> Message:
    """A recorded message, where one that makes no sense is an error.

    Raises:
        InputError: names bag, topic and what is wrong.
    """
    try:
        return recorded.message()
    except MalformedMessage as error:
        raise InputError(f"{path}: topic {recorded.topic}: {error}") from None
