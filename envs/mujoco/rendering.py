"""Calibrated colour and depth pictures of a scene, both out of one drawing pass."""

from __future__ import annotations

import atexit
import os
import weakref
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import mujoco
import numpy as np

from envs.interface import CameraView
from envs.mujoco import GL_HELP
from envs.mujoco.cameras import CameraMount
from envs.mujoco.scene import IMAGE_LIMIT
from envs.mujoco.simulation import Simulation
from manifield.errors import InputError
from perception.cameras import intrinsics_from_fov

_MAX_GEOMS = 1000
SMALLEST_IMAGE = 16  # pixels: less shows nothing, and is a typing mistake


class Renderer:
    """Draws the scenes of one environment, one after the other, in one graphics context.

    The uploaded part of a scene (textures, the floor) is the same in all of them, see `scene.base_scene`: no task adds
    textures or meshes. So the context made for the first scene serves them all, which saves most of a reset's time.
    """

    def __init__(self, image_size: int, with_masks: bool = False) -> None:
        self._window: Any = None
        self._context: mujoco.MjrContext | None = None
        self._uploaded: tuple | None = None
        if not SMALLEST_IMAGE <= image_size <= IMAGE_LIMIT:
            raise InputError(f"image_size {image_size}: must be from {SMALLEST_IMAGE} to {IMAGE_LIMIT} pixels")
        self._size = image_size
        self._with_masks = with_masks
        self._rectangle = mujoco.MjrRect(0, 0, image_size, image_size)

    def load(self, simulation: Simulation, cameras: Mapping[str, CameraMount]) -> None:
        """Turn to another scene."""
        self._simulation = simulation
        self._cameras = dict(cameras)
        model = simulation.model
        self._scene = mujoco.MjvScene(model, _MAX_GEOMS)
        self._options = mujoco.MjvOption()
        uploaded = (model.tex_data.tobytes(), model.nmesh, model.nhfield, model.nskin)
        if self._context is not None and uploaded != self._uploaded:
            self._make_current()
            self._context.free()
            self._context = None
        if self._context is None:
            self._make_current()
            self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
            mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._context)
            # Depth runs from 0 at the far plane to 1 at the near one: floating point then resolves far points best.
            self._context.readDepthMap = mujoco.mjtDepthMap.mjDEPTH_ZEROFAR
            self._uploaded = uploaded

    def view(self, name: str) -> CameraView:
        """The picture that the camera `name` sees now."""
        simulation, mount = self._simulation, self._cameras[name]
        model, data = simulation.model, simulation.data
        camera_id = model.camera(name).id
        self._make_current()
        camera = mujoco.MjvCamera()
        camera.type, camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED.value, camera_id
        mujoco.mjv_updateScene(model, data, self._options, None, camera, mujoco.mjtCatBit.mjCAT_ALL.value, self._scene)
        rgb = np.empty((self._size, self._size, 3), np.uint8)
        raw_depth = np.empty((self._size, self._size), np.float32)
        mujoco.mjr_render(self._rectangle, self._scene, self._context)
        mujoco.mjr_readPixels(rgb, raw_depth, self._rectangle, self._context)
        T_world_camera = np.eye(4)
        T_world_camera[:3, :3] = data.cam_xmat[camera_id].reshape(3, 3) * [1.0, -1.0, -1.0]
        T_world_camera[:3, 3] = data.cam_xpos[camera_id]
        return CameraView(
            rgb=np.ascontiguousarray(rgb[::-1]),  # OpenGL's rows run upwards
            depth=np.minimum(self._metres(raw_depth[::-1]), np.float32(mount.far)),
            intrinsics=intrinsics_from_fov(np.radians(mount.fov), self._size, self._size),
            T_world_camera=T_world_camera,
            near=mount.near,
            far=mount.far,
            mask=self._mask() if self._with_masks else None,
        )

    def close(self) -> None:
        """Free the graphics context; harmless twice."""
        if self._context is not None:
            self._make_current()
            self._context.free()
            self._context = None
        if self._window is not None:
            self._window.free()
            self._window = None

    def __del__(self) -> None:
        # Left to itself, MuJoCo would free its objects in whatever context is current then: another renderer's.
        self.close()

    def _make_current(self) -> None:
        if self._window is None:
            self._window = _open_window()
            # Before the graphics library is shut down, which was registered earlier.
            atexit.register(_close_if_alive, weakref.ref(self))
        self._window.make_current()

    def _metres(self, raw_depth: np.ndarray) -> np.ndarray:
        """[H, W] float32 metres along the camera's z from the depth buffer, undoing OpenGL's projection."""
        visual = self._simulation.model.vis.map
        extent = self._simulation.model.stat.extent
        # The driver builds its projection in single precision; the inversion needs its very numbers, in double.
        near, far = np.float32(visual.znear * extent), np.float32(visual.zfar * extent)
        scale = np.float32(-0.5) * -(far + near) / (far - near) - np.float32(0.5)
        offset = np.float32(-0.5) * -(np.float32(2) * far * near) / (far - near)
        return (float(offset) / (raw_depth.astype(np.float64) + float(scale))).astype(np.float32)

    def _mask(self) -> np.ndarray:
        """[H, W] int32 id of the geom seen by the camera of the last `view`, -1 where there is none."""
        flags = self._scene.flags
        flags[mujoco.mjtRndFlag.mjRND_SEGMENT.value] = flags[mujoco.mjtRndFlag.mjRND_IDCOLOR.value] = 1
        colors = np.empty((self._size, self._size, 3), np.uint8)
        mujoco.mjr_render(self._rectangle, self._scene, self._context)
        mujoco.mjr_readPixels(colors, None, self._rectangle, self._context)
        flags[mujoco.mjtRndFlag.mjRND_SEGMENT.value] = flags[mujoco.mjtRndFlag.mjRND_IDCOLOR.value] = 0
        ids = np.full(self._scene.ngeom + 1, -1, np.int32)
        for geom in self._scene.geoms[: self._scene.ngeom]:
            if geom.segid >= 0 and geom.objtype == mujoco.mjtObj.mjOBJ_GEOM.value:
                ids[geom.segid + 1] = geom.objid
        codes = colors[::-1].astype(np.int32)
        return ids[codes[..., 0] + (codes[..., 1] << 8) + (codes[..., 2] << 16)]


def _open_window() -> Any:
    """A graphics context, without a display where the library allows it.

    Taken from the library by name: what MuJoCo itself offers depends on whether MUJOCO_GL was set when somebody first
    imported it. Raises InputError if the library or its driver is missing.
    """
    library = os.environ.get("MUJOCO_GL", "").lower()
    try:
        module = import_module(f"mujoco.{library}" if library in ("egl", "osmesa", "glfw") else "mujoco.gl_context")
        return module.GLContext(IMAGE_LIMIT, IMAGE_LIMIT)
    except Exception as error:  # ImportError, AttributeError, RuntimeError or the driver's own
        raise InputError(f"no OpenGL context for MUJOCO_GL={library} ({error}): {GL_HELP}") from error


def _close_if_alive(reference: weakref.ref[Renderer]) -> None:
    renderer = reference()
    if renderer is not None:
        renderer.close()
