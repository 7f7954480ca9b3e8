"""A scene in the browser, drawn from plain arrays: clouds, voxels, cameras, grippers, paths. The one file that draws.

It knows nothing of episodes: whoever has points, coloured cells or a pose of the gripper shows them with it, under a
name of their own; showing again under the same name replaces. Everything is in world metres.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import viser
from scipy.spatial.transform import Rotation

from envs.interface import CameraView
from manifield.errors import InputError

OPEN, CLOSED, NOW = (0, 150, 136), (245, 124, 0), (33, 33, 33)
CAMERA, BOX = (69, 90, 100), (144, 164, 174)

FINGER, WRIST = 0.045, 0.10  # metres from the tool centre point back to the palm and to the wrist
SPREAD = {True: 0.04, False: 0.008}  # metres from the middle to a finger, open and closed
FRUSTUM = 0.09  # metres from a camera to its picture, at a field of view of 40°

GAP = 0.92  # of a cell is filled by its cube, so that one sees each

# The corners of a cube of edge 1 around the origin, and two triangles for each of its faces, seen from outside.
CORNERS = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)], np.float32)
FACES = np.array(
    [[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1],
     [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]]
)  # fmt: skip
EDGES = np.array([(a, b) for a in range(8) for b in range(a) if bin(a ^ b).count("1") == 1])


class Scene:
    """Draws into a viser server, for all browsers that look at it."""

    def __init__(self, server: viser.ViserServer) -> None:
        self._scene = server.scene
        self._cameras: dict[str, viser.CameraFrustumHandle] = {}
        self._nodes: dict[str, Any] = {}
        self._scene.set_up_direction("+z")
        # Light that leaves a voxel's upper face its colour and makes the others a little darker; viser's own bleaches.
        self._scene.configure_default_lights(enabled=False)
        self._scene.configure_environment_map(None)
        self._scene.add_light_ambient("/lights/all around", intensity=2.2)
        self._scene.add_light_directional("/lights/above", intensity=1.1, position=(0.6, -0.9, 2.4))
        # From beside the front camera, over the table to the robot.
        server.initial_camera.up = (0.0, 0.0, 1.0)
        server.initial_camera.fov = np.radians(45.0)
        server.initial_camera.position = (2.05, -1.5, 2.1)
        server.initial_camera.look_at = (0.32, 0.2, 1.1)

    def show_cloud(self, name: str, points: np.ndarray, colours: np.ndarray, size: float) -> None:
        """Points [N, 3] with colours [N, 3] uint8, drawn `size` metres large."""
        if not len(points):
            return self.clear(name)
        shown = self._nodes.get(name)
        if isinstance(shown, viser.PointCloudHandle):  # lighter for the browser than a new one
            shown.points, shown.colors, shown.point_size = points, colours, size
            return
        # Half precision would move points by up to half a millimetre, and in steps that show on a flat table.
        self._nodes[name] = self._scene.add_point_cloud(
            name, points, colours, point_size=size, point_shape="circle", precision="float32", point_shading="flat"
        )

    def show_voxels(self, name: str, centres: np.ndarray, colours: np.ndarray, size: np.ndarray) -> None:
        """Boxes of `size` [3] around centres [M, 3], with colours [M, 3] uint8 (of what is seen, of a value...)."""
        if not len(centres):
            return self.clear(name)
        self._nodes[name] = self._scene.add_batched_meshes_simple(
            name,
            CORNERS * np.asarray(size, np.float32) * GAP,
            FACES,
            batched_wxyzs=np.tile(np.array([1.0, 0.0, 0.0, 0.0], np.float32), (len(centres), 1)),
            batched_positions=centres,
            batched_colors=_linear(colours),
            flat_shading=True,
            lod="off",
            cast_shadow=False,
            receive_shadow=False,
        )

    def show_camera(self, name: str, view: CameraView) -> None:
        """A camera as a frustum with its picture; a click on it looks through it.

        Raises:
            InputError: its pose is none.
        """
        try:
            rotation = Rotation.from_matrix(view.T_world_camera[:3, :3])
        except ValueError:
            raise InputError(f"{name}: its pose is no rotation and translation: {view.T_world_camera}") from None
        wxyz, position = _wxyz(rotation), view.T_world_camera[:3, 3]
        height, width = view.rgb.shape[:2]
        fov = 2 * np.arctan(height / 2 / view.intrinsics[1, 1])
        handle = self._cameras.get(name)
        if handle is not None and handle.fov == fov and handle.aspect == width / height:
            handle.wxyz, handle.position, handle.image = wxyz, position, view.rgb
            return
        handle = self._scene.add_camera_frustum(
            name,
            fov,
            width / height,
            scale=FRUSTUM,
            thickness=1.5,
            thickness_units="screen",
            color=CAMERA,
            image=view.rgb,
            jpeg_quality=90,
            wxyz=wxyz,
            position=position,
            cast_shadow=False,
            receive_shadow=False,
        )

        @handle.on_click
        def look_through(event: viser.SceneNodePointerEvent) -> None:
            event.client.camera.wxyz, event.client.camera.position = handle.wxyz, handle.position
            event.client.camera.fov = handle.fov

        self._cameras[name] = handle

    def show_gripper(
        self,
        name: str,
        pose: np.ndarray,
        is_open: bool,
        colour: tuple[int, int, int],
        label: str = "",
        width: float = 2.5,
    ) -> None:
        """A gripper at a pose [7] (position, quaternion xyzw of the tool centre point): palm, fingers and axes.

        Args:
            width: of its lines, pixels. label: written beside the wrist.
        """
        half = SPREAD[bool(is_open)]
        left, right, back = np.array([0, half, 0]), np.array([0, -half, 0]), np.array([0, 0, -FINGER])
        hand = [[left, left + back], [left + back, right + back], [right + back, right], [back, [0, 0, -WRIST]]]
        self._nodes[name] = self._scene.add_frame(
            name,
            axes_length=0.05,
            axes_radius=0.0005 * width,
            origin_radius=0.0,
            wxyz=_wxyz(Rotation.from_quat(pose[3:])),
            position=pose[:3],
        )
        self._scene.add_line_segments(
            f"{name}/hand", np.array(hand), np.array(colour), thickness=width, thickness_units="screen"
        )
        if label:
            self._scene.add_label(f"{name}/label", label, position=(0.0, 0.0, -WRIST), anchor="bottom-center")

    def show_lines(self, name: str, segments: np.ndarray, colour: tuple[int, int, int], width: float = 3.0) -> None:
        """Line segments [N, 2, 3], `width` pixels wide."""
        if not len(segments):
            return self.clear(name)
        # One colour for all: viser brightens colours that are given for every segment.
        self._nodes[name] = self._scene.add_line_segments(
            name, segments, np.array(colour), thickness=width, thickness_units="screen"
        )

    def show_box(self, name: str, low: np.ndarray, high: np.ndarray) -> None:
        """The edges of the box from corner `low` to corner `high`, [3] each."""
        corners = (CORNERS + 0.5) * (np.asarray(high) - low) + low
        self.show_lines(name, corners[EDGES], BOX, width=1.0)

    def names(self, below: str) -> list[str]:
        """Names under which something is shown that begin with `below`."""
        return [name for nodes in (self._nodes, self._cameras) for name in nodes if name.startswith(below)]

    def set_visible(self, name: str, visible: bool) -> None:
        """Show or hide what has been shown under a name; nothing happens where nothing has."""
        node = self._nodes.get(name) or self._cameras.get(name)
        if node is not None:
            node.visible = visible

    def clear(self, below: str) -> None:
        """Remove everything whose name begins with `below`."""
        for name in self.names(below):
            (self._nodes if name in self._nodes else self._cameras).pop(name).remove()


def _linear(colours: np.ndarray) -> np.ndarray:
    """uint8 colours as the shares of light that viser takes colours of batched meshes for (the inverse of sRGB)."""
    shares = colours / 255.0
    light = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    return np.rint(light * 255).astype(np.uint8)


def _wxyz(rotation: Rotation) -> np.ndarray:
    """[4] quaternion with the real part first, as viser has it."""
    return np.roll(rotation.as_quat(), 1)
