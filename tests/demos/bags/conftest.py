"""Bags are files: nothing about them may listen or connect anywhere."""

from __future__ import annotations

import socket

import pytest


@pytest.fixture(autouse=True)
def no_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever opens a network socket in these tests fails."""

    def refuse(*_: object) -> None:
        raise AssertionError("a socket was opened")

    for name in ("bind", "listen", "connect"):
        monkeypatch.setattr(socket.socket, name, refuse)
