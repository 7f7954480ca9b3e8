"""How much of what was decoded stays in memory."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import numpy as np

GIB = 2**30


@dataclass
class Memory:
    """Bytes that decoded samples and pictures may take together. When it is full, what comes later is decoded every
    time it is asked for: as all are asked for equally often, no choice of what to keep would be better.

    limit, used: bytes.
    """

    limit: int
    used: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def admits(self, thing: Any) -> bool:
        """Whether there is room for the arrays of a thing; if so, it is taken."""
        size = size_of(thing)
        with self._lock:
            if self.used + size > self.limit:
                return False
            self.used += size
        return True


def size_of(thing: Any) -> int:
    """Bytes of the arrays in a thing: an array itself, or those in dataclasses, lists and mappings."""
    if isinstance(thing, np.ndarray):
        return thing.nbytes
    if is_dataclass(thing):
        return sum(size_of(getattr(thing, f.name)) for f in fields(thing))
    if isinstance(thing, Mapping):
        return sum(map(size_of, thing.values()))
    return sum(map(size_of, thing)) if isinstance(thing, list | tuple) else 0
