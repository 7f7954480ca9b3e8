"""What a person looks at before saying yes: the fused cloud, the gripper now, the goal, and the tool's way there."""

from __future__ import annotations

import io
from contextlib import redirect_stdout

import numpy as np

from demos.view.server import free_port
from envs.interface import Action, Observation
from envs.ros.safety import Proposal
from manifield.errors import InputError
from perception.cameras import back_project

_POINT = 0.004  # metres
_MOST_POINTS = 150_000


class Page:
    """A page in the browser at `url`."""

    def __init__(self, host: str, port: int) -> None:
        try:
            import viser

            from demos.view.scene import Scene
        except ModuleNotFoundError as error:
            if error.name != "viser":
                raise
            raise InputError(
                "the page needs the Python package viser: run `pip install -e .[viewer]`, or give viewer=0"
            ) from None
        with redirect_stdout(io.StringIO()):
            self._server = viser.ViserServer(host=host, port=free_port(host, port), verbose=False)
        self._scene = Scene(self._server)
        shown = "localhost" if host in ("0.0.0.0", "::") else host
        self.url = f"http://{shown}:{self._server.get_port()}"

    def show(self, observation: Observation, action: Action) -> None:
        """The scene as it is, and what the policy wants."""
        from demos.view.scene import NOW

        self._show_scene(observation)
        self._scene.show_gripper("/now", observation.gripper_pose, observation.gripper_open > 0.5, NOW, "now")
        self._scene.clear("/way")
        self._show_goal(action.position, action.quaternion, action.gripper_open)

    def show_proposal(self, proposal: Proposal, way: np.ndarray) -> None:
        """The way that the arm would take: `way` [N, 3], the tool's positions, N = 0 where nobody knows."""
        from demos.view.scene import NOW

        self._scene.show_lines(
            "/way", np.stack([way[:-1], way[1:]], axis=1) if len(way) > 1 else np.zeros((0, 2, 3)), NOW
        )

    def close(self) -> None:
        with redirect_stdout(io.StringIO()):
            self._server.stop()

    def _show_goal(self, position: np.ndarray, quaternion: np.ndarray, opened: bool) -> None:
        from demos.view.scene import CLOSED, OPEN

        pose = np.concatenate([position, quaternion])
        self._scene.show_gripper("/goal", pose, opened, OPEN if opened else CLOSED, "goal")

    def _show_scene(self, observation: Observation) -> None:
        points, colours = [], []
        for name, view in observation.cameras.items():
            seen = view.depth < view.far - 1e-3
            points.append(back_project(view.depth, view.intrinsics, view.T_world_camera)[seen])
            colours.append(view.rgb[seen])
            self._scene.show_camera(f"/cameras/{name}", view)
        if points:
            cloud, colour = np.concatenate(points), np.concatenate(colours)
            step = max(1, -(-len(cloud) // _MOST_POINTS))
            self._scene.show_cloud("/cloud", cloud[::step], colour[::step], _POINT)
