"""A stranger's data set: nothing in it runs, reads memory or other files, takes all memory, or waits for ever. Whatever
is refused is named, in one line."""

from __future__ import annotations

import io
import os
import pickle
import resource
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demos import images
from demos.features import Features, save_features
from demos.field_views import field_frames, read_field_view, write_field_views
from demos.store import Episode, find_episodes, open_episode
from demos.unpickle import StoredObservation, dump_pickle, read_pickle
from demos.view.replay import read_facts
from manifield import command
from manifield.errors import InputError
from manifield.files import inside, read_whole


def refused(caught: pytest.ExceptionInfo[InputError], file: Path) -> None:
    """Assert that the message is one line with the file's name in it."""
    message = str(caught.value)
    assert str(file) in message and "\n" not in message and message.isprintable(), message


def read_all(episode: Path) -> Episode:
    """Everything that training reads of an episode."""
    read = open_episode(episode)
    _ = read.gripper_pose, read.gripper_open, read.joint_velocities, read.ignore_collisions
    for index in range(len(read)):
        read.observation(index)
    return read


# Pickles: code


class Payload:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


@pytest.mark.parametrize("name", ["low_dim_obs.pkl", "variation_number.pkl", "variation_descriptions.pkl"])
@pytest.mark.parametrize("protocol", range(6))
def test_a_payload_in_any_file_of_an_episode_is_refused_and_not_run(
    episode: Path, tmp_path: Path, name: str, protocol: int
) -> None:
    trace = tmp_path / "trace"
    data = pickle.dumps([1, {"a": Payload(trace)}], protocol)
    pickle.loads(data)
    assert trace.exists(), "the payload must be a working one"
    trace.unlink()
    (episode / name).write_bytes(data)
    with pytest.raises(InputError, match="refused, the pickle names posix.system") as caught:
        read_all(episode)
    refused(caught, episode / name)
    assert not trace.exists()


def test_the_command_refuses_a_payload_in_one_line(
    episode: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = tmp_path / "trace"
    (episode / "low_dim_obs.pkl").write_bytes(pickle.dumps(Payload(trace), 4))
    assert command.main(["view", str(episode), "open=false", "port=0"]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("manifield: error: ") and str(episode / "low_dim_obs.pkl") in last and "refused" in last
    assert not trace.exists()


# Pickles: memory


def test_an_observation_cannot_pose_as_an_array_somewhere_in_memory(episode: Path) -> None:
    """numpy reads from any address that an object's `__array_interface__` names."""
    secret = np.arange(7.0)
    interface = {"data": (secret.ctypes.data, False), "shape": (7,), "typestr": "<f8", "version": 3}
    spy = StoredObservation()
    spy.__dict__["__array_interface__"] = interface
    np.testing.assert_array_equal(np.array(spy, float), secret)  # the attack is a working one
    demo = read_pickle(episode / "low_dim_obs.pkl")
    demo._observations[2].gripper_pose = spy
    demo.random_seed = None
    for frame in demo._observations:
        plain(frame)
    data = dump_pickle(demo)
    assert b"__array_interface__" in data
    (episode / "low_dim_obs.pkl").write_bytes(data)
    with pytest.raises(InputError, match="names that mean something to Python") as caught:
        read_all(episode)
    refused(caught, episode / "low_dim_obs.pkl")


def plain(frame: StoredObservation) -> None:
    """Make the arrays of a frame that was read ones that can be written."""
    for values in (frame.__dict__, frame.misc):
        values.update({key: np.asarray(value) for key, value in values.items() if isinstance(value, np.ndarray)})


def test_a_field_that_is_a_thing_is_not_shown_to_numpy(episode: Path) -> None:
    change(episode, "gripper_pose", StoredObservation())
    with pytest.raises(InputError, match="frame 2 has no numbers in gripper_pose"):
        read_all(episode)


def change(episode: Path, field: str, value: object) -> None:
    """Rewrite the episode with another value in a field of frame 2, or of its `misc`."""
    demo = read_pickle(episode / "low_dim_obs.pkl")
    for frame in demo._observations:
        plain(frame)
    demo.random_seed = None
    chosen = demo._observations[2]
    (chosen.misc if field in chosen.misc else chosen.__dict__)[field] = value
    (episode / "low_dim_obs.pkl").write_bytes(dump_pickle(demo))


def doubled(times: int) -> list:
    """A list of 10^times numbers that takes a few bytes: lists that repeat one list."""
    value: list = [0.0] * 10
    for _ in range(times - 1):
        value = [value] * 10
    return value


@pytest.mark.parametrize("field", ["gripper_pose", "joint_velocities", "front_camera_intrinsics"])
@pytest.mark.parametrize(
    "value",
    [doubled(12), [10**400] * 7, "1" * 7, {"a": 1}, [None] * 7, np.array(["1"] * 7), [[0.0] * 7]],
    ids=["lists of lists", "huge integers", "text", "mapping", "nothing", "array of text", "nested"],
)
def test_what_is_no_plain_numbers_is_refused_at_once(episode: Path, field: str, value: object) -> None:
    change(episode, field, value)
    with pytest.raises(InputError, match="frame 2 has no (numbers|calibration)") as caught:
        read_all(episode)
    refused(caught, episode / "low_dim_obs.pkl")


@pytest.mark.parametrize("misc", [None, [], 3.0, np.zeros(3), "misc", {"front_camera_intrinsics": np.eye(3)}], ids=repr)
def test_misc_that_is_no_calibration(episode: Path, misc: object) -> None:
    change(episode, "misc", misc)
    with pytest.raises(InputError, match="frame 2 has no calibration of camera 'front'"):
        read_all(episode)


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02Nr\xff\xff\xff\x7f.",  # LONG_BINPUT: memory for 4 billion places, 34 GB
        b"Np2000000000\n.",
        b"Np-1\n.",
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",  # BINBYTES8 of 2^63 bytes
        b"\x80\x05\x96\x00\x00\x00\x00\x10\x00\x00\x00.",  # BYTEARRAY8 of 64 GB
        b"\x80\x04\x8b\xff\xff\xff\x7f.",  # LONG4 of 2 GB
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7fN.",  # a frame of 2^63 bytes
        b"X\xff\xff\xff\xff.",
    ],
    ids=["place", "place as text", "place below 0", "bytes", "bytearray", "integer", "frame", "text"],
)
def test_a_few_bytes_do_not_take_all_memory(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "bomb.pkl"
    file.write_bytes(data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match="corrupt or truncated pickle") as caught:
        read_pickle(file)
    refused(caught, file)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
FLOAT = b"cnumpy\ndtype\n(S'f8'\nI00\nI01\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntb"


def as_state(raw: bytes) -> bytes:
    """The state of an array of two numbers, from protocol 3 on."""
    return b"(I1\n(I2\nt" + FLOAT + b"I00\n" + raw + b"tb"


EIGHT = b"C\x10" + bytes(16)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x80\x03" + ARRAY + as_state(EIGHT) + b".", None),  # an honest one
        (b"\x80\x03" + ARRAY + as_state(EIGHT) + as_state(EIGHT) + b".", "array made twice"),
        # a view of an array whose bytes a second state would free
        (
            b"\x80\x03cnumpy.core.numeric\n_frombuffer\n(" + ARRAY + as_state(EIGHT) + FLOAT + b"(I2\ntS'C'\ntR.",
            "array over something that is not bytes",
        ),
        (
            b"\x80\x03cnumpy.core.multiarray\nscalar\n(" + FLOAT + ARRAY + as_state(EIGHT) + b"tR.",
            "array over something that is not bytes",
        ),
        (b"\x80\x03" + ARRAY + as_state(b"(lI1\naI2\na"), "not bytes"),
        # ten thousand million texts of no length
        (
            b"\x80\x03" + ARRAY + b"(I1\n(I10000000000\nt" + FLOAT.replace(b"S'f8'", b"S'S0'") + b"I00\nC\x00tb.",
            "array of nothing",
        ),
    ],
    ids=["honest", "made twice", "view of an array", "scalar of an array", "list", "no size"],
)
def test_arrays_are_made_once_and_of_bytes(tmp_path: Path, data: bytes, reason: str | None) -> None:
    file = tmp_path / "array.pkl"
    file.write_bytes(data if data.endswith(b".") else data + b".")
    if reason is None:
        np.testing.assert_array_equal(np.asarray(read_pickle(file)), np.zeros(2))
        return
    with pytest.raises(InputError, match=reason) as caught:
        read_pickle(file)
    refused(caught, file)


@pytest.mark.parametrize("number", ["two", 2.0, -1, 10**400, None, [1]], ids=repr)
def test_a_variation_that_is_no_number(episode: Path, number: object) -> None:
    (episode / "variation_number.pkl").write_bytes(dump_pickle(number))
    with pytest.raises(InputError, match="holds no variation's number") as caught:
        open_episode(episode)
    refused(caught, episode / "variation_number.pkl")


@pytest.mark.parametrize("text", ["open\x1b]0;gone\x07", "open\nit", "a" * 100_000, "\u202eevil"], ids=repr)
def test_descriptions_that_are_no_line(episode: Path, text: str) -> None:
    (episode / "variation_descriptions.pkl").write_bytes(dump_pickle([text]))
    with pytest.raises(InputError, match="no line of at most 1000 readable characters") as caught:
        open_episode(episode)
    refused(caught, episode / "variation_descriptions.pkl")


# Pictures


def png(
    width: int, height: int, *more: tuple[bytes, bytes], depth: int = 8, colour: int = 2, body: bytes = b""
) -> bytes:
    """A PNG with any header, chunks before the picture, and a picture of `body`, compressed."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), *more, (b"IDAT", zlib.compress(body)), (b"IEND", b"")]
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    return images.SIGNATURE + b"".join(parts)


@pytest.mark.parametrize(
    "size", [(100_000, 100_000), (2**31 - 1, 1), (1, 2**31 - 1), (4097, 8), (0, 8), (2**32 - 1, 2**32 - 1)], ids=repr
)
def test_a_picture_that_promises_gigabytes_is_refused_from_its_header(
    tmp_path: Path, size: tuple[int, int], recwarn: pytest.WarningsRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("Pillow was asked"))
    file = tmp_path / "bomb.png"
    file.write_bytes(png(*size))
    for read in (images.read_rgb, images.read_size, lambda path: images.read_depth(path, 0.01, 4.5), images.read_mask):
        with pytest.raises(InputError, match=f"refused, the header promises {size[1]}x{size[0]} pixels") as caught:
            read(file)
        refused(caught, file)
    assert not recwarn.list


def test_an_episode_of_bombs(episode: Path) -> None:
    """A picture that differs from the episode's, and an episode whose pictures are all bombs, are not unpacked."""
    bomb = png(60_000, 60_000, body=bytes(10**6))
    (episode / "wrist_rgb/2.png").write_bytes(bomb)
    with pytest.raises(InputError, match="2.png: picture of 60000x60000, but the episode's are 8x8") as caught:
        read_all(episode)
    refused(caught, episode / "wrist_rgb/2.png")
    for file in episode.glob("*_*/*.png"):
        file.write_bytes(bomb)
    with pytest.raises(InputError, match="refused, the header promises"):
        read_all(episode)


def test_more_data_than_promised_is_not_unpacked(tmp_path: Path) -> None:
    """A picture of 8 x 8 with 128 MB behind it, compressed to a thousandth."""
    file = tmp_path / "bomb.png"
    squeezed = zlib.compressobj(9)
    row = bytes(2**20)
    packed = b"".join(squeezed.compress(row) for _ in range(128)) + squeezed.flush()
    head, tail = png(8, 8)[:33], png(8, 8)[-12:]
    data = struct.pack(">I", len(packed)) + b"IDAT" + packed + struct.pack(">I", zlib.crc32(b"IDAT" + packed))
    file.write_bytes(head + data + tail)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    np.testing.assert_array_equal(images.read_rgb(file), np.zeros((8, 8, 3)))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


@pytest.mark.parametrize("chunk", [b"zTXt", b"iTXt", b"iCCP"])
def test_text_that_unpacks_to_gigabytes_is_refused(tmp_path: Path, chunk: bytes) -> None:
    squeezed = zlib.compress(bytes(64 * 2**20), 9)
    content = {b"zTXt": b"a\0\0", b"iTXt": b"a\0\1\0\0\0", b"iCCP": b"a\0\0"}[chunk] + squeezed
    file = tmp_path / "bomb.png"
    file.write_bytes(png(8, 8, (chunk, content), body=bytes(8 * 25)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        images.read_rgb(file)
    except InputError as error:
        assert str(file) in str(error)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


def test_sixteen_bits_are_not_cut_to_eight_without_a_word(tmp_path: Path) -> None:
    file = tmp_path / "deep.png"
    file.write_bytes(png(8, 8, depth=16, body=bytes(8 * 49)))
    with pytest.raises(InputError, match="picture of mode RGB with 16 bits, not 8-bit RGB"):
        images.read_rgb(file)


def test_giant_files_are_not_loaded(tmp_path: Path) -> None:
    for name, read in (("giant.png", images.read_rgb), ("giant.pkl", read_pickle)):
        file = tmp_path / name
        with file.open("wb") as sparse:
            sparse.truncate(2**40)
        with pytest.raises(InputError, match="refused, 1099511627776 bytes") as caught:
            read(file)
        refused(caught, file)


@pytest.mark.parametrize("name", ["front_rgb/0.png", "front_depth/0.png", "low_dim_obs.pkl", "variation_number.pkl"])
def test_pipes_and_devices_are_not_waited_for(episode: Path, name: str) -> None:
    file = episode / name
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(InputError, match="no regular file") as caught:
        read_all(episode)
    refused(caught, file)
    file.unlink()
    file.symlink_to("/dev/zero")
    with pytest.raises(InputError, match="no regular file"):
        read_all(episode)


# Names


@pytest.mark.parametrize("name", ["²", "٣", "../0", "-1", "1e3", "0x1", " 1"])
def test_names_that_only_look_like_numbers_are_left_alone(episode: Path, name: str) -> None:
    odd = name.replace("/", "\u2044")
    (episode / "nerf_data" / odd / "images").mkdir(parents=True)
    assert field_frames(episode) == ()
    (episode.parent / f"episode{odd}").mkdir()
    assert [path.name for path in find_episodes(episode.parents[3])] == ["episode0"]


@pytest.mark.parametrize("name", ["../../secret.png", "/etc/passwd", "strips/../../x", "a\0b", "..", "strips/.."])
def test_a_name_in_a_file_does_not_lead_out_of_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="leads out of it") as caught:
        inside(tmp_path, name)
    refused(caught, tmp_path)


def test_a_name_in_a_file_leads_into_the_folder(tmp_path: Path) -> None:
    assert inside(tmp_path, "strips/a..b_0.png") == tmp_path / "strips" / "a..b_0.png"


@pytest.mark.parametrize("name", ["0/../../../secret", "0//etc/passwd", "../0", "0", "0/", "²/1", "-1/front"])
def test_features_of_pictures_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    file = tmp_path / "cache" / "episode0.safetensors"
    save_features(file, {(0, "front"): np.zeros((1, 1, 2), np.float16)}, {(0, "front"): "00"}, "t", "", "")
    data = file.read_bytes()
    assert Features(file).hashes == {(0, "front"): "00"}
    old, new = b'\\"0/front\\": \\"00\\"', b'\\"' + name.encode() + b'\\": \\"00\\"'
    assert old in data
    length = struct.unpack("<Q", data[:8])[0]
    header = data[8 : 8 + length].rstrip().replace(old, new)
    header += b" " * (-len(header) % 8)
    file.write_bytes(struct.pack("<Q", len(header)) + header + data[8 + length :])
    with pytest.raises(InputError, match="not features, or damaged") as caught:
        Features(file)
    refused(caught, file)


# Files of other kinds


def test_poses_that_are_no_poses(episode: Path, observation) -> None:
    write_field_views(episode, 0, [observation(0).cameras["front"]])
    pose = episode / "nerf_data/0/poses/0.txt"
    for content in (b"1 2 3", b"nan " * 25, b"1e999 " * 25, b"\xff" * 100, b"__import__('os') " * 25):
        pose.write_bytes(content)
        with pytest.raises(InputError, match="not 4 rows of camera to world") as caught:
            read_field_view(episode, 0, 0)
        refused(caught, pose)
    with pose.open("wb") as sparse:
        sparse.truncate(2**40)
    with pytest.raises(InputError, match="refused") as caught:
        read_field_view(episode, 0, 0)
    refused(caught, pose)


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"a": 1', b"\xff\xfe", b"[1]", b"3"], ids=lambda c: repr(c[:9]))
def test_facts_that_are_none(episode: Path, content: bytes) -> None:
    (episode / "manifield.json").write_bytes(content)
    assert read_facts(episode) == {}


def test_files_of_two_episodes_mixed(episode: Path, tmp_path: Path, observation) -> None:
    """The low-dimensional data of a longer episode beside this one's pictures."""
    from demos.store import write_episode

    other = write_episode(tmp_path / "other" / "episode0", [observation(i) for i in range(9)], ["do"], 0)
    (episode / "low_dim_obs.pkl").write_bytes((other / "low_dim_obs.pkl").read_bytes())
    with pytest.raises(InputError, match="6 pictures for 9 frames") as caught:
        open_episode(episode)
    refused(caught, episode / "front_depth")


def test_a_picture_of_another_kind_under_a_picture_s_name(episode: Path) -> None:
    for kind in ("JPEG", "GIF", "BMP", "WEBP", "TIFF"):
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8)).save(buffer, kind)
        (episode / "front_rgb/0.png").write_bytes(buffer.getvalue())
        with pytest.raises(InputError, match="truncated or not a PNG") as caught:
            read_all(episode)
        refused(caught, episode / "front_rgb/0.png")


def test_reading_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_whole(tmp_path / "absent", 10, "")
    (tmp_path / "eleven").write_bytes(b"12345678901")
    with pytest.raises(InputError, match="refused, 11 bytes where 10 are plenty; delete it"):
        read_whole(tmp_path / "eleven", 10, "delete it")
