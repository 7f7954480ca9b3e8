"""`manifield view`: a page in the browser that shows episodes, until Ctrl-C."""

from __future__ import annotations

import io
import os
import socket
import sys
import webbrowser
from contextlib import redirect_stdout

from omegaconf import DictConfig

from demos.view.overlay import Overlay
from demos.view.replay import Sight, find_shown
from manifield.errors import InputError, within

PORTS_TRIED = 100


def run(config: DictConfig, overlay: Overlay | None = None) -> int:
    """Show what `configs/view.yaml` says, and the overlay; returns 0 after Ctrl-C, which is how this ends.

    Raises:
        InputError: nothing to show, viser is not installed, or no port.
    """
    within(
        config,
        port=(0, 65535),
        downsample=(0.0, 1.0),
        max_points=(1000, 10**7),
        margin=(0.0, 10.0),
        voxel=(0.005, 0.5),
    )
    sight = Sight(
        tuple(config.low), tuple(config.high), config.margin, config.downsample, config.max_points, config.voxel
    )
    paths = find_shown(config.path)
    try:
        import viser

        from demos.view.panel import Panel
    except ModuleNotFoundError as error:
        if error.name != "viser":
            raise
        raise InputError(
            "the viewer needs the Python package viser: run `pip install -e .[viewer]` in the project's folder"
        ) from None
    port = free_port(config.host, config.port)
    with redirect_stdout(io.StringIO()):  # viser's own words, which name one address twice
        server = viser.ViserServer(host=config.host, port=port, verbose=False)
    try:
        cameras = None if config.cameras is None else _as_list(config.cameras)
        panel = Panel(server, paths, sight, cameras, overlay)
        host = "localhost" if config.host in ("0.0.0.0", "::") else config.host
        url = f"http://{f'[{host}]' if ':' in host else host}:{server.get_port()}"
        print(f"{len(paths)} episode{'s' if len(paths) > 1 else ''} at {url} (Ctrl-C ends)", flush=True)
        if config.open and has_screen():
            webbrowser.open(url)
        while True:
            panel.spin()
    except KeyboardInterrupt:
        print(file=sys.stderr)  # behind the terminal's ^C
        return 0
    finally:
        with redirect_stdout(io.StringIO()):
            server.stop()


def free_port(host: str, port: int) -> int:
    """The first port from `port` on at which nobody listens yet; 0 gives any.

    Raises:
        InputError: the host is not this machine's, the port needs rights, or none is free.
    """
    reason = ""
    for candidate in range(port, min(port + PORTS_TRIED, 65536)):
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host, candidate, type=socket.SOCK_STREAM)[0]
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
                return int(probe.getsockname()[1])
        except socket.gaierror as error:
            raise InputError(f"host={host}: {error.strerror}; give 127.0.0.1, or 0.0.0.0 for the network") from None
        except PermissionError:
            raise InputError(f"port={candidate}: needs an administrator's rights; give one from 1024 on") from None
        except OSError as error:
            reason = error.strerror or str(error)
    raise InputError(f"host={host}, port={port} and those behind it: {reason}; give another host= or port=")


def has_screen() -> bool:
    """Whether a browser would show on a screen; on Linux without one, a text browser would take the terminal."""
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _as_list(cameras: object) -> list[str]:
    return [cameras] if isinstance(cameras, str) else [str(camera) for camera in cameras]  # type: ignore[attr-defined]
