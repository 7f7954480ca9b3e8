"""Frames between the node process and its parent, over a pair of Unix sockets; both sides use this file.

A frame is two little-endian 32-bit lengths, then that many bytes of JSON and that many of blobs. A byte array stands in
the JSON as {"__bytes__": [start, length]} and in the blobs. Nothing listens anywhere, and nothing is unpickled.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections import deque
from typing import Any

_LENGTHS = struct.Struct("<II")


def pack(frame: dict[str, Any]) -> bytes:
    """A dict (with an entry "op") as bytes."""
    blobs: list[bytes] = []
    text = json.dumps(_packed(frame, blobs)).encode()
    blob = b"".join(blobs)
    return _LENGTHS.pack(len(text), len(blob)) + text + blob


def _packed(value: Any, blobs: list[bytes]) -> Any:
    if isinstance(value, bytes):
        start = sum(map(len, blobs))
        blobs.append(value)
        return {"__bytes__": [start, len(value)]}
    if isinstance(value, dict):
        return {key: _packed(inner, blobs) for key, inner in value.items()}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [_packed(inner, blobs) for inner in value]
    return value


class Link:
    """One end of the pair. Sends on a thread of its own: who sends never waits for a slow reader."""

    def __init__(self, end: socket.socket) -> None:
        self._end, self._file = end, end.makefile("rb")
        self._outbox: deque[tuple[str | None, bytes]] = deque()
        self._filled = threading.Condition()
        self._closed = False
        threading.Thread(target=self._drain, daemon=True).start()

    def send(self, op: str, **content: Any) -> None:
        """Put a frame into the outbox. Frames arrive in order."""
        self._put(None, pack({"op": op, **content}))

    def send_newest(self, key: str, op: str, **content: Any) -> None:
        """As `send`, but a frame with the same key that has not left yet is dropped: old pictures are of no use."""
        self._put(key, pack({"op": op, **content}))

    def receive(self) -> dict[str, Any] | None:
        """The next frame; None when the other side has gone."""
        try:
            head = self._file.read(_LENGTHS.size)
            if len(head) < _LENGTHS.size:
                return None
            size, blob_size = _LENGTHS.unpack(head)
            text, blob = self._file.read(size), self._file.read(blob_size)
        except (OSError, ValueError):  # closed on this side
            return None
        if len(text) < size or len(blob) < blob_size:
            return None

        def unpacked(item: dict[str, Any]) -> Any:
            if "__bytes__" not in item:
                return item
            start, length = item["__bytes__"]
            return blob[start : start + length]

        frame: dict[str, Any] = json.loads(text, object_hook=unpacked)
        return frame

    def close(self) -> None:
        """End the connection; the other side sees it at once."""
        with self._filled:
            self._closed = True
            self._filled.notify_all()
        try:
            self._end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._end.close()

    def _put(self, key: str | None, frame: bytes) -> None:
        with self._filled:
            if key is not None:
                for place, (other, _) in enumerate(self._outbox):
                    if other == key:
                        del self._outbox[place]
                        break
            self._outbox.append((key, frame))
            self._filled.notify()

    def _drain(self) -> None:
        while True:
            with self._filled:
                self._filled.wait_for(lambda: self._outbox or self._closed)
                if self._closed:
                    return
                _, frame = self._outbox.popleft()
            try:
                self._end.sendall(frame)
            except OSError:  # the other side has gone, which `receive` tells
                return
