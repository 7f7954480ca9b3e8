"""Bags: what is written is read back, other kinds are read, and what is damaged is refused in one line."""

from __future__ import annotations

import shutil
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as Ros2Writer

from demos.bags import codec
from demos.bags.bag import Bag, BagWriter, read_message
from demos.bags.playback import Playback
from envs.ros.geometry import pose_matrix
from envs.ros.messages import (
    Bool,
    CameraInfo,
    CompressedImage,
    Image,
    JointState,
    Message,
    PoseStamped,
    Text,
    Transform,
    Transforms,
)
from envs.ros.transport import NotConnected
from manifield.errors import InputError

T0 = 1_790_000_000_123_456_789
RNG = np.random.default_rng(0)


def all_kinds() -> dict[str, Message]:
    """A message of every kind, by topic."""
    rgb = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    image = Image(T0, "cam", "rgb8", rgb)
    return {
        "/stop": Bool(True),
        "/info": CameraInfo(T0, "cam", 6, 8, np.array([[9.0, 0, 3.5], [0, 9.5, 2.5], [0, 0, 1]]), np.arange(5) / 9),
        "/color": image,
        "/depth": Image(T0 + 1, "cam", "16UC1", RNG.integers(0, 65535, (6, 8), dtype=np.uint16)),
        "/metres": Image(T0 + 2, "cam", "32FC1", RNG.random((6, 8), np.float32)),
        "/packed": CompressedImage.of(image, "png"),
        "/joints": JointState(T0, ("a", "b"), np.array([0.1, -np.pi]), np.array([1e-9, 2.0]), np.array([5.0, np.nan])),
        "/goal": PoseStamped(T0, "world", np.array([0.1, 0.2, 0.3]), np.array([0.0, 0.6, 0.0, 0.8])),
        "/words": Text("größer als 3 cm"),
        "/tf": Transforms(
            (
                Transform(T0, "a", "b", pose_matrix([1, 2, 3, 0, 0, 0.6, 0.8])),
                Transform(T0, "b", "c", pose_matrix([0, 0, 1, 1, 0, 0, 0])),
            )
        ),
    }


def same(one: Message, other: Message) -> bool:
    """Whether two messages are equal, arrays included."""
    if type(one) is not type(other):
        return False
    for field in fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, tuple) and a and isinstance(a[0], Message):
            equal = len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
        elif isinstance(a, np.ndarray):
            equal = a.dtype == b.dtype and np.allclose(a, b, atol=1e-12, rtol=0, equal_nan=True)
        else:
            equal = a == b
        if not equal:
            return False
    return True


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    """A bag with every kind of message three times."""
    with BagWriter(tmp_path / "take_0", {"task": "open_drawer", "instruction": "open it"}) as writer:
        for number in range(3):
            for place, (topic, message) in enumerate(all_kinds().items()):
                writer.write(topic, message, T0 + number * 10**9 + place)
    return tmp_path / "take_0"


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    sent = all_kinds()
    with BagWriter(tmp_path / "deep" / "take", {"task": "t", "instruction": "one\ntwo"}) as writer:
        for place, (topic, message) in enumerate(sent.items()):
            writer.write(topic, message, T0 + place)
        assert not (tmp_path / "deep" / "take").exists()  # whole or not at all
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["take"]
    with Bag(tmp_path / "deep" / "take") as bag:
        assert bag.counts == dict.fromkeys(sent, 1)
        assert bag.types["/tf"] == "tf2_msgs/msg/TFMessage"
        assert bag.facts == {"task": "t", "instruction": "one\ntwo"}
        assert bag.start == T0 and bag.end > T0 + len(sent) - 1
        read = list(bag.messages())
        assert [recorded.time for recorded in read] == [T0 + k for k in range(len(sent))]
        for recorded in read:
            assert same(read_message(recorded, bag.path), sent[recorded.topic]), recorded.topic
        assert [recorded.topic for recorded in bag.messages(["/goal", "/nowhere"])] == ["/goal"]


def test_a_bag_is_not_written_over_and_an_abandoned_one_leaves_nothing(bag: Path) -> None:
    with pytest.raises(InputError, match="exists already"):
        BagWriter(bag)
    with pytest.raises(ZeroDivisionError), BagWriter(bag.parent / "other") as writer:
        writer.write("/stop", Bool(True), T0)
        raise ZeroDivisionError
    assert sorted(path.name for path in bag.parent.iterdir()) == ["take_0"]
    file = bag.parent / "file"
    file.write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        BagWriter(file / "take")


def test_sqlite_and_single_files_are_read(bag: Path, tmp_path: Path) -> None:
    message = all_kinds()["/joints"]
    with Ros2Writer(tmp_path / "old", version=8, storage_plugin=StoragePlugin.SQLITE3) as writer:
        connection = writer.add_connection("/joints", message.ROS_TYPE, typestore=codec.ros2_types())
        writer.write(connection, T0, codec.encode(message))
        other = writer.add_connection("/odd", "std_msgs/msg/Float64", typestore=codec.ros2_types())
        number = codec.ros2_types().types["std_msgs/msg/Float64"](1.5)
        writer.write(other, T0, codec.ros2_types().serialize_cdr(number, "std_msgs/msg/Float64"))
    for path in (tmp_path / "old", tmp_path / "old" / "old.db3"):
        with Bag(path) as old:
            (recorded,) = old.messages()  # a type that nobody here knows is passed over
            assert same(read_message(recorded, path), message)
            assert old.counts == {"/joints": 1, "/odd": 1}
    with Bag(bag / "take_0.mcap") as single:
        assert len(list(single.messages())) == 30


def test_ros1_bags_are_read(tmp_path: Path) -> None:
    store = codec.ros1_types()
    types = store.types
    stamp = types["builtin_interfaces/msg/Time"](T0 // 10**9, T0 % 10**9)
    header = types["std_msgs/msg/Header"](7, stamp, "/cam")
    region = types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    K = np.array([9.0, 0, 3.5, 0, 9.5, 2.5, 0, 0, 1])
    info = types["sensor_msgs/msg/CameraInfo"](
        header, 6, 8, "plumb_bob", np.zeros(5), K, np.eye(3).ravel(), np.zeros(12), 0, 0, region
    )
    rgb = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    image = types["sensor_msgs/msg/Image"](header, 6, 8, "bgr8", 0, 24, rgb[..., ::-1].ravel())
    with Ros1Writer(tmp_path / "take.bag") as writer:
        for topic, message in (("/info", info), ("/color", image)):
            connection = writer.add_connection(topic, message.__msgtype__, typestore=store)
            writer.write(connection, T0, store.serialize_ros1(message, message.__msgtype__))
    with Bag(tmp_path / "take.bag") as bag:
        read = {recorded.topic: read_message(recorded, bag.path) for recorded in bag.messages()}
    assert same(read["/color"], Image(T0, "cam", "rgb8", rgb))
    assert isinstance(read["/info"], CameraInfo) and np.allclose(read["/info"].intrinsics.ravel(), K)
    assert read["/info"].frame_id == "cam"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("absent.mcap", None, "no such bag"),
        ("notes.txt", b"hello", "not a bag"),
        ("empty.mcap", b"", "cannot be read as a bag"),
        ("empty.bag", b"", "cannot be read as a bag"),
        ("empty.db3", b"", "bag"),
        ("noise.mcap", bytes(range(256)) * 20, "cannot be read as a bag"),
        ("noise.bag", b"#ROSBAG V2.0\n" + bytes(range(256)) * 20, "cannot be read as a bag"),
        ("noise.db3", bytes(range(256)) * 20, "cannot be read as a bag"),
        ("folder", b"", "metadata.yaml"),
    ],
)
def test_what_is_no_bag_is_refused(tmp_path: Path, name: str, content: bytes | None, words: str) -> None:
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        Bag(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_an_empty_bag_is_refused(tmp_path: Path) -> None:
    with Ros2Writer(tmp_path / "none", version=9, storage_plugin=StoragePlugin.MCAP):
        pass
    with pytest.raises(InputError, match="none"):
        Bag(tmp_path / "none")


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.97, 0.999])
def test_truncated_bags_are_refused(bag: Path, share: float) -> None:
    file = bag / "take_0.mcap"
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    for path in (bag, file):
        with pytest.raises(InputError, match="cannot be read as a bag") as caught:
            read_all(path)
        assert "\n" not in str(caught.value) and "mcap recover" in str(caught.value)


def test_hostile_metadata_is_refused(bag: Path) -> None:
    for text in ("", "[]", "rosbag2_bagfile_information: 3", "a: [", "!!python/object/apply:os.system ['true']"):
        (bag / "metadata.yaml").write_text(text)
        with pytest.raises(InputError, match="cannot be read as a bag"):
            read_all(bag)
    text = (
        "rosbag2_bagfile_information: {version: 9, storage_identifier: mcap, relative_file_paths: [../../etc/passwd]}"
    )
    (bag / "metadata.yaml").write_text(text)
    with pytest.raises(InputError):
        read_all(bag)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_bent_bytes_never_get_further_than_one_line(bag: Path, data: st.DataObject) -> None:
    original = (bag / "take_0.mcap").read_bytes()
    bent = bytearray(original)
    for _ in range(data.draw(st.integers(1, 6))):
        bent[data.draw(st.integers(0, len(bent) - 1))] = data.draw(st.integers(0, 255))
    path = bag.parent / "bent.mcap"
    path.write_bytes(bent)
    try:
        read_all(path)
    except InputError as error:
        assert "\n" not in str(error)


def test_definitions_inside_a_bag_are_not_turned_into_code(tmp_path: Path) -> None:
    """A definition that claims other fields, or worse, changes nothing: ours is used."""
    message = all_kinds()["/stop"]
    evil = "bool data\nint32 __import__('os').system('touch /tmp/owned')\n"
    with Ros2Writer(tmp_path / "evil", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection("/stop", message.ROS_TYPE, msgdef=evil, rihs01="RIHS01_" + 64 * "0")
        writer.write(connection, T0, codec.encode(message))
    with Bag(tmp_path / "evil") as bag:
        (recorded,) = bag.messages()
        assert same(read_message(recorded, bag.path), message)


def test_a_message_that_makes_no_sense_names_its_topic(tmp_path: Path) -> None:
    bad = Image(T0, "cam", "rgb8", np.zeros((4, 4), np.uint8))  # says colour, holds grey
    with BagWriter(tmp_path / "bad") as writer:
        writer.write("/color", bad, T0)
    with Bag(tmp_path / "bad") as bag:
        (recorded,) = bag.messages()
        with pytest.raises(InputError, match="topic /color"):
            read_message(recorded, bag.path)
        playback = Playback(bag)
        heard: list[Message] = []
        playback.subscribe("/color", Image, heard.append)
        playback.play(bag.end)
        assert not heard and playback.problems["/color"] == 1


def test_playback_gives_what_was_recorded_up_to_a_moment(bag: Path) -> None:
    with Bag(bag) as opened:
        playback = Playback(opened)
        heard: list[str] = []
        playback.subscribe("/stop", Bool, lambda message: heard.append("stop"))
        playback.subscribe("/words", Text, lambda message: heard.append("words"))
        playback.subscribe("/tf", Transforms, lambda message: heard.append("still"), latched=True)
        assert playback.play(T0)
        assert heard == ["still"] * 3 + ["stop"]  # still frames first, whenever they were recorded
        assert playback.play(T0 + 10**9 - 1)
        assert heard[3:] == ["stop", "words"]
        assert not playback.play(opened.end)
        assert heard[3:] == ["stop", "words"] * 3
        assert playback.wall() == opened.end and playback.clock() == opened.end / 1e9
        with pytest.raises(NotConnected):
            playback.publish("/stop", Bool(True))


def read_all(path: Path) -> None:
    """Open a bag and look at every message."""
    with Bag(path) as bag:
        for recorded in bag.messages():
            try:
                recorded.message()
            except ValueError:
                pass


def test_reading_leaves_bags_as_they_are(bag: Path) -> None:
    copy = bag.parent / "copy"
    shutil.copytree(bag, copy)
    read_all(bag)
    assert all((copy / path.name).read_bytes() == path.read_bytes() for path in bag.iterdir())
