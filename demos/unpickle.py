"""RLBench's pickles, read and written without RLBench: a pickle is a program, so this reader knows four nouns only.

Reading maps `rlbench.demo.Demo` and `rlbench.backend.observation.Observation` on plain stand-ins and numpy's
reconstructors on functions of this file; any other global is refused before anything is called. What is left to a
hostile file is memory, so that is guarded too: no array is built twice or over another's bytes, no attribute speaks to
numpy (`__array_interface__` would name an address to read from), no index makes the reader's own table grow. Writing
gives the same names back, in the spelling (`numpy.core`, protocol 4) that numpy 1 and numpy 2 both load.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from manifield.errors import InputError
from manifield.files import read_whole

PROTOCOL = 4  # RLBench's; from 5 on numpy uses another reconstructor, which old versions lack
LARGEST_FILE = 256 * 1024**2
"""Bytes: a hundred times what RLBench's longest demonstrations take without their pictures."""


class StoredDemo:
    """What a file calls `rlbench.demo.Demo`: `_observations`, `random_seed`, `variation_number` (not in old files)."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        _set_attributes(self, state)


class StoredObservation:
    """What a file calls `rlbench.backend.observation.Observation`: attributes as RLBench left them."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        _set_attributes(self, state)


def _set_attributes(thing: object, state: dict[str, Any]) -> None:
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise pickle.UnpicklingError(f"state of {type(thing).__name__} is not a dictionary of names")
    if any(key.startswith("__") for key in state):
        raise pickle.UnpicklingError(f"state of {type(thing).__name__} has names that mean something to Python")
    thing.__dict__.update(state)


class _Dtype:
    """A plain dtype in the making (numpy's own `dtype.__setstate__` trusts flags and sizes in the file)."""

    def __init__(self, code: str, align: bool = False, copy: bool = True) -> None:
        if not isinstance(code, str) or not re.fullmatch(r"[<>|=]?[?biufcSU]\d{0,6}", code):
            raise pickle.UnpicklingError(f"array of type {str(code)[:40]!r}, only plain numbers and strings are read")
        self.value = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        _, order, *structure = state
        if order not in ("<", ">", "|", "=") or any(part is not None for part in structure[:3]):
            raise pickle.UnpicklingError("array of a structured type, only plain numbers and strings are read")
        self.value = self.value.newbyteorder(order)


class _Array(np.ndarray):
    """An array in the making; `np.asarray` makes it an ordinary one."""

    def __setstate__(self, state: tuple) -> None:
        if getattr(self, "_made", False):  # numpy would free the bytes that it has, whoever still looks at them
            raise pickle.UnpicklingError("array made twice")
        version, shape, dtype, fortran, raw = state
        super().__setstate__((version, shape, _plain(dtype), fortran, _bytes(raw)))
        self._made = True


def _plain(dtype: Any) -> np.dtype:
    if not isinstance(dtype, _Dtype):
        raise pickle.UnpicklingError("array without a type")
    if not dtype.value.itemsize:
        raise pickle.UnpicklingError("array of nothing, of which any number takes no room")
    return dtype.value


def _bytes(raw: Any) -> bytes:
    """The bytes of an array as the file has them, not a view into something else that it has made."""
    if not isinstance(raw, bytes | bytearray):
        raise pickle.UnpicklingError("array over something that is not bytes")
    return bytes(raw)


class _Maker:
    """A function that files may call but, unlike a bare Python function, not set attributes on."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable) -> None:
        self._make = make

    def __call__(self, *arguments: Any) -> Any:
        return self._make(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("state for a function")


@_Maker
def _ndarray(*_: Any) -> None:
    """Stands for `numpy.ndarray`, which files name only as an argument of `_reconstruct`."""
    raise pickle.UnpicklingError("array made by hand")


@_Maker
def _reconstruct(array_type: Any, shape: tuple, code: bytes) -> np.ndarray:
    if array_type is not _ndarray:
        raise pickle.UnpicklingError("array of an unknown class")
    return np.zeros(0, np.uint8).view(_Array)


@_Maker
def _frombuffer(raw: bytes, dtype: Any, shape: tuple[int, ...], order: Any) -> np.ndarray:
    return np.frombuffer(_bytes(raw), _plain(dtype)).reshape(shape, order=order)


@_Maker
def _scalar(dtype: Any, raw: bytes) -> Any:
    return np.frombuffer(_bytes(raw), _plain(dtype), count=1)[0]


STAND_INS: dict[type, tuple[str, str]] = {
    StoredDemo: ("rlbench.demo", "Demo"),
    StoredObservation: ("rlbench.backend.observation", "Observation"),
}
KNOWN: dict[tuple[str, str], Any] = {
    **{name: stand_in for stand_in, name in STAND_INS.items()},
    ("numpy", "ndarray"): _ndarray,
    ("numpy", "dtype"): _Dtype,
    **{
        (f"numpy.{core}.{module}", name): maker
        for core in ("core", "_core")  # numpy 1 and 2
        for module, name, maker in (
            ("multiarray", "_reconstruct", _reconstruct),
            ("multiarray", "scalar", _scalar),
            ("numeric", "_frombuffer", _frombuffer),  # protocol 5
        )
    },
}


class _Refused(Exception):
    """The file names something outside `KNOWN`."""


def _check_places(data: bytes) -> None:
    """Check where the file puts what it wants to remember: Python makes room up to the highest place that is named, so
    that seven bytes could take all memory. No file needs more places than it has bytes; nothing is built here."""
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and not 0 <= int(argument or 0) <= len(data):
            raise pickle.UnpicklingError(f"place {argument} in a file of {len(data)} bytes")


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return KNOWN[module, name]
        except KeyError:
            raise _Refused(f"{module}.{name}") from None


def read_pickle(path: Path) -> Any:
    """The content of one of RLBench's pickles; nothing in the file is run.

    Arrays come as a subclass of `np.ndarray`: `np.asarray` them.

    Raises:
        InputError: no such file, a global that does not belong into a demonstration, a corrupt or truncated file.
    """
    try:
        data = read_whole(Path(path), LARGEST_FILE, "restore or delete the episode")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; the episode is incomplete, restore or delete its folder") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the file and its permissions") from None
    try:
        _check_places(data)
        return _Reader(io.BytesIO(data)).load()
    except _Refused as refused:
        raise InputError(
            f"{path}: refused, the pickle names {_one_line(refused)}, which is no part of a demonstration; "
            "do not trust this file"
        ) from None
    except Exception as error:  # a corrupt pickle can raise anything, MemoryError and RecursionError included
        detail = _one_line(f"{type(error).__name__}: {error}")
        raise InputError(f"{path}: corrupt or truncated pickle ({detail}); restore or delete the episode") from None


def _one_line(text: object, limit: int = 120) -> str:
    """Text from an untrusted file, fit for a one-line message."""
    clean = "".join(character if character.isprintable() else "?" for character in str(text))
    return clean if len(clean) <= limit else clean[:limit] + "…"


class _Writer(pickle._Pickler):
    """Python's own pickler (the C one cannot be told how to spell a global)."""

    save: Any  # inherited; typeshed does not know them
    write: Any
    memoize: Any

    def save_global(self, obj: Any, name: str | None = None) -> None:
        if isinstance(obj, type) and obj in STAND_INS:
            module, spelled = STAND_INS[obj]
        else:
            module, spelled = obj.__module__.replace("numpy._core", "numpy.core"), name or obj.__qualname__
        if (module, spelled) not in KNOWN:
            raise TypeError(f"{module}.{spelled} does not belong into a demonstration")
        self.save(module)
        self.save(spelled)
        self.write(pickle.STACK_GLOBAL)
        self.memoize(obj)


def dump_pickle(content: Any) -> bytes:
    """The pickle of plain Python things, numpy arrays and the two stand-ins, loadable by RLBench under numpy 1 and 2.

    The bytes depend on the content and on which parts are the same object; give fresh arrays for equal bytes.
    """
    buffer = io.BytesIO()
    _Writer(buffer, PROTOCOL).dump(content)
    return buffer.getvalue()
