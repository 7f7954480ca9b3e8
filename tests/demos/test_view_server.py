"""`manifield view` as a process: its address, its end, and what it says when it cannot begin."""

from __future__ import annotations

import builtins
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

from demos.view.server import free_port
from manifield import command
from manifield.configuration import compose
from manifield.errors import InputError

ROOT = Path(__file__).resolve().parents[2]


def test_it_serves_a_page_until_it_is_interrupted(episode: Path) -> None:
    words = [sys.executable, "-m", "manifield", "view", str(episode), "port=0", "open=false"]
    # Started from a shell in the background, a process would inherit that Ctrl-C is ignored.
    process = subprocess.Popen(
        words,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.fullmatch(r"1 episode at (http://127\.0\.0\.1:\d+) \(Ctrl-C ends\)\n", line)
        assert found, line
        with urlopen(found[1], timeout=20) as page:
            assert page.status == 200 and b"<html" in page.read()
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=30)
        assert process.returncode == 0, error
        assert out == "" and error.strip() == ""
    finally:
        process.kill()
        process.wait()


def test_a_path_needs_no_key() -> None:
    assert compose("view", ["runs/here", "port=0"]).path == "runs/here"
    assert compose("view", ["path=runs/a=b"]).path == "runs/a=b"
    for words in (["here", "there"], [""]):
        with pytest.raises(InputError, match="is not of the form key=value"):
            compose("view", words)
    with pytest.raises(InputError, match="view needs path=…"):
        compose("view", [])
    with pytest.raises(InputError, match="is not of the form key=value"):
        compose("collect", ["data/demo"])  # has a default for every key, so a bare word is a slip


def test_a_taken_port_gives_the_next_one() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert port < free_port("127.0.0.1", port) <= port + 100
    assert free_port("127.0.0.1", 0) > 0


@pytest.mark.parametrize(
    ("host", "port", "message"),
    [
        ("no.such.host.invalid", 8080, "host=no.such.host.invalid: "),
        ("192.0.2.1", 8080, "give another host= or port="),  # reserved for documentation: never this machine's
    ],
)
def test_a_place_where_one_cannot_listen_is_named(host: str, port: int, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        free_port(host, port)


def test_a_port_that_needs_rights_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(InputError, match="port=80: needs an administrator's rights"):
        free_port("127.0.0.1", 80)


def test_without_viser_one_line_says_what_to_install(
    episode: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    load = builtins.__import__

    def refuse(name: str, *rest: object, **keys: object) -> object:
        if name == "viser":
            raise ModuleNotFoundError("No module named 'viser'", name="viser")
        return load(name, *rest, **keys)

    monkeypatch.setattr(builtins, "__import__", refuse)
    assert command.main(["view", str(episode)]) == 2
    error = capsys.readouterr().err
    assert "pip install -e .[viewer]" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("word", "message"),
    [("port=70000", "port=70000"), ("voxel=0", "voxel=0"), ("cameras=side", "cameras=[side]")],
)
def test_wrong_values_are_one_line(word: str, message: str, episode: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["view", str(episode), "open=false", *([] if "port" in word else ["port=0"]), word]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_no_browser_is_opened_without_a_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    from demos.view.server import has_screen

    monkeypatch.setattr(sys, "platform", "linux")
    for variable in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(variable, raising=False)
    assert not has_screen()
    monkeypatch.setitem(os.environ, "DISPLAY", ":0")
    assert has_screen()
