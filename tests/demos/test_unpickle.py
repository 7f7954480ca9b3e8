"""Pickles: RLBench's are read and written, nothing in any of them is run."""

from __future__ import annotations

import os
import pickle
import pickletools
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from demos.unpickle import KNOWN, StoredDemo, StoredObservation, dump_pickle, read_pickle
from manifield.errors import InputError

few = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def make_demo() -> StoredDemo:
    observation, demo = StoredObservation(), StoredDemo()
    observation.__dict__ = {
        "front_rgb": None,
        "gripper_open": 1.0,
        "gripper_pose": np.arange(7.0),
        "ignore_collisions": np.array(0.0),
        "misc": {"front_camera_near": 0.01, "front_camera_intrinsics": np.eye(3)},
    }
    demo.__dict__ = {"_observations": [observation], "random_seed": ("MT19937", np.arange(4, dtype=np.uint32), 1)}
    return demo


def read_bytes(path: Path, data: bytes):
    path.write_bytes(data)
    return read_pickle(path)


def globals_named(data: bytes) -> set[tuple[str, str]]:
    """(module, name) of every global in a pickle of protocol 4."""
    found, strings = set(), []
    memo: list[object] = []
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name == "MEMOIZE":
            memo.append(strings[-1] if strings else None)
        elif opcode.name in ("BINGET", "LONG_BINGET"):
            strings.append(memo[argument])
        elif opcode.name == "STACK_GLOBAL":
            found.add((strings[-2], strings[-1]))
            strings.append(None)
        elif isinstance(argument, str):
            strings.append(argument)
        else:
            strings.append(None) if opcode.name != "FRAME" else None
    return found


# Reading what belongs there


def test_what_is_written_is_read(tmp_path: Path) -> None:
    demo = read_bytes(tmp_path / "demo.pkl", dump_pickle(make_demo()))
    (observation,) = demo._observations
    assert observation.gripper_open == 1.0 and observation.front_rgb is None
    np.testing.assert_array_equal(observation.gripper_pose, np.arange(7.0))
    assert np.shape(observation.ignore_collisions) == ()
    np.testing.assert_array_equal(observation.misc["front_camera_intrinsics"], np.eye(3))
    assert demo.random_seed[1].dtype == np.uint32


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize(
    "value",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(3, dtype=">i4"),
        np.array([True, False]),
        np.array(["ab", "c"]),
        np.zeros((0, 3)),
        np.float64(1.5),
        np.int64(-3),
        np.bool_(True),
    ],
    ids=repr,
)
@pytest.mark.parametrize("core", ["core", "_core"])
def test_plain_arrays_and_scalars_of_either_numpy_are_read(tmp_path: Path, value, protocol: int, core: str) -> None:
    data = pickle.dumps(value, protocol)
    if protocol == 3:  # its names are plain lines, so the other numpy's spelling can be put in
        data = data.replace(b"numpy._core.", b"numpy.core.").replace(b"numpy.core.", f"numpy.{core}.".encode())
    read = read_bytes(tmp_path / "array.pkl", data)
    np.testing.assert_array_equal(np.asarray(read), value)
    assert read.dtype.newbyteorder("=") == value.dtype.newbyteorder("=") and read.shape == value.shape


def test_real_files_are_read(real_data: Path) -> None:
    for path in real_data.glob("rlbench/**/*.pkl"):
        content = read_pickle(path)
        if path.name == "low_dim_obs.pkl":
            assert isinstance(content, StoredDemo)
            assert all(isinstance(frame, StoredObservation) for frame in content._observations)


# Writing so that RLBench can read


def test_written_names_are_those_that_rlbench_and_old_numpy_have() -> None:
    assert globals_named(dump_pickle(make_demo())) == {
        ("rlbench.demo", "Demo"),
        ("rlbench.backend.observation", "Observation"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
    }


def test_ordinary_pickle_loads_it_where_rlbench_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("rlbench", "rlbench.backend", "rlbench.demo", "rlbench.backend.observation"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    demo_class, observation_class = type("Demo", (), {}), type("Observation", (), {})
    sys.modules["rlbench.demo"].Demo = demo_class  # type: ignore[attr-defined]
    sys.modules["rlbench.backend.observation"].Observation = observation_class  # type: ignore[attr-defined]
    demo = pickle.loads(dump_pickle(make_demo()))
    assert type(demo) is demo_class and type(demo._observations[0]) is observation_class
    assert type(demo._observations[0].gripper_pose) is np.ndarray


def test_equal_content_gives_equal_bytes() -> None:
    assert dump_pickle(make_demo()) == dump_pickle(make_demo())


def test_what_rlbench_would_not_know_is_not_written() -> None:
    with pytest.raises(TypeError, match="does not belong into a demonstration"):
        dump_pickle([Path("x")])


# Refusing everything else


class Payload:
    """Unpickled the ordinary way, this creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: [1, x], lambda x: {"a": (x,)}], ids=["bare", "list", "dict"])
def test_a_payload_is_refused_and_not_run(tmp_path: Path, protocol: int, wrap) -> None:
    trace = tmp_path / "trace"
    data = pickle.dumps(wrap(Payload(trace)), protocol)
    pickle.loads(data)
    assert trace.exists(), "the payload must be a working one"
    trace.unlink()
    with pytest.raises(InputError, match=r"evil\.pkl: refused, the pickle names (posix|nt)\.system") as caught:
        read_bytes(tmp_path / "evil.pkl", data)
    assert not trace.exists() and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        b"cbuiltins\neval\n(S'1+1'\ntR.",
        b"(S'touch x'\nios\nsystem\n.",  # INST
        b"(cos\nsystem\nS'touch x'\no.",  # OBJ
        b"cdemos.unpickle\nread_pickle\n(S'x'\ntR.",  # nothing of ours is special
        b"crlbench.demo\nDemo.__init__\n.",
        b"\x80\x04\x8c\x0crlbench.demo\x8c\x1dDemo.__setstate__.__globals__\x93.",
        b"cnumpy\nload\n(S'x'\ntR.",
        b"cnumpy.core.multiarray\nfromfile\n.",
        b"c_codecs\nencode\n(S'x'\ntR.",
        b"ccopyreg\n_reconstructor\n.",
    ],
)
def test_other_globals_are_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(InputError, match="refused, the pickle names"):
        read_bytes(tmp_path / "evil.pkl", data)


@pytest.mark.parametrize(
    "value",
    [
        np.array([object], dtype=object),
        np.zeros(2, dtype=[("a", "f8")]),
        np.array(["2020-01-01"], dtype="M8[D]"),
        np.zeros(2, dtype=np.dtype(("f8", (2,)))).view(np.recarray),
    ],
    ids=["object", "structured", "time", "record"],
)
def test_arrays_of_other_things_are_refused(tmp_path: Path, value: np.ndarray) -> None:
    with pytest.raises(InputError):
        read_bytes(tmp_path / "odd.pkl", pickle.dumps(value, 4))


@pytest.mark.parametrize(
    "data",
    [
        # REDUCE of ndarray itself: memory by the terabyte, or a view into it
        b"cnumpy\nndarray\n((I1000000000000\nttR.",
        # an array that claims more than the file holds
        pickle.dumps(np.zeros(3), 4).replace(b"K\x03\x85", b"J\xff\xff\xff\x7f\x85", 1),
        # state for a class and for a function: attributes must not stick
        b"crlbench.demo\nDemo\n(dS'x'\nI1\nsb.",
        b"cnumpy.core.multiarray\n_reconstruct\n(dS'x'\nI1\nsb.",
        b"cnumpy.core.multiarray\n_reconstruct\nN(dS'__defaults__'\nNs\x86b.",
        b"cnumpy\ndtype\nN(dS'__init__'\nNs\x86b.",
        # constructors with arguments
        b"crlbench.demo\nDemo\n(I1\ntR.",
        b"crlbench.demo\nDemo\n)\x81I1\nb.",
        b"(" * 100_000 + b".",
        b"",
        b".",
        b"not a pickle at all",
    ],
)
def test_crafted_files_are_refused(tmp_path: Path, data: bytes) -> None:
    before = {name: dict(vars(thing)) for name, thing in KNOWN.items() if isinstance(thing, type)}
    with pytest.raises(InputError) as caught:
        read_bytes(tmp_path / "crafted.pkl", data)
    assert "crafted.pkl" in str(caught.value) and "\n" not in str(caught.value)
    assert before == {name: dict(vars(thing)) for name, thing in KNOWN.items() if isinstance(thing, type)}


WHOLE = dump_pickle(make_demo())


@few
@given(st.integers(0, len(WHOLE) - 1))
def test_a_truncated_file_is_refused(tmp_path: Path, length: int) -> None:
    with pytest.raises(InputError, match=r"cut\.pkl: corrupt or truncated pickle"):
        read_bytes(tmp_path / "cut.pkl", WHOLE[:length])


@few
@given(st.integers(0, len(WHOLE) - 1), st.binary(min_size=1, max_size=3))
@example(0, b"\x80\x09")
def test_a_damaged_file_is_read_or_refused(tmp_path: Path, place: int, junk: bytes) -> None:
    try:
        read_bytes(tmp_path / "damaged.pkl", WHOLE[:place] + junk + WHOLE[place + len(junk) :])
    except InputError as error:
        assert "damaged.pkl" in str(error) and "\n" not in str(error)


def test_missing_and_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.pkl: no such file"):
        read_pickle(tmp_path / "absent.pkl")
    with pytest.raises(InputError, match="cannot be read"):
        read_pickle(tmp_path)
