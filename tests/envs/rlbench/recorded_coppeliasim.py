"""A test double of CoppeliaSim's C library that plays recorded RLBench episodes.

RLBench's and PyRep's own Python runs above it, unchanged: the double takes the place of `pyrep.backend._sim_cffi`.
Every function has the C type that PyRep's `cffi_build.py` declares, and is called through it, so that arguments of
wrong types or numbers are refused as the real library's would be.

The world is a recording of one episode. The arm's joints decide which of its frames is the present one: the nearest
with the same state of the gripper; poses, cameras, pictures, forces and the drawers' positions are that frame's. A path
leads along the recorded frames to the one whose tip is nearest to the goal, one frame a simulation step, and does not
exist where no frame comes near. Pictures of sensors that PyRep creates are drawn from the fused points of the five
recorded cameras. Which of a variation's episodes is played depends on where RLBench has put the task.

What it cannot show: physics, contact and grasping, collisions (only switched on or off for all goals: `blocked`),
inverse kinematics away from the recordings, rendering, timing, threads, and whether CoppeliaSim starts.
"""

from __future__ import annotations

import hashlib
import re
import runpy
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from cffi import FFI
from scipy.spatial.transform import Rotation

from demos.store import Episode, open_episode
from perception.cameras import back_project, project

SENSORS = {  # by RLBench's names of the cameras
    "left_shoulder": "cam_over_shoulder_left",
    "right_shoulder": "cam_over_shoulder_right",
    "overhead": "cam_overhead",
    "wrist": "cam_wrist",
    "front": "cam_front",
}
NEAR_A_GOAL = (0.02, 0.4)  # metres and radians off the goal at which a recorded frame counts as there
STILL = 0.01  # radians: joints that differ by less stand still
SNAP = 0.15  # radians: the joints take the values of a recorded frame that is so near
FINGER = 0.04  # metres, open
TIME_STEP = 0.05


@dataclass
class Thing:
    """An object of the scene. pose: [7], or a function that gives the present one. values: parameters that were set."""

    name: str
    kind: int
    parent: int = -1
    pose: Any = None
    joint: Callable[[], float] | None = None
    extension: str = ""
    model: bool = False
    values: dict[Any, Any] = field(default_factory=dict)


class Recording:
    """One episode as arrays by frame."""

    def __init__(self, episode: Episode) -> None:
        self.episode = episode
        self.frames = episode._frames
        self.joints = self.series("joint_positions")
        self.tip = self.series("gripper_pose")
        self.open = self.series("gripper_open").reshape(-1) > 0.5
        self.fingers = self.series("gripper_joint_positions")
        self.state = self.series("task_low_dim_state")
        self.view = lru_cache(16)(episode.view)

    def series(self, name: str) -> np.ndarray:
        return np.stack([np.asarray(frame[name], float).reshape(-1) for frame in self.frames])

    def cloud(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """Fused points [n, 3] and colours [n, 3] of a frame's five pictures."""
        views = [self.view(frame, camera) for camera in self.episode.cameras]
        points = [back_project(v.depth, v.intrinsics, v.T_world_camera).reshape(-1, 3) for v in views]
        return np.concatenate(points), np.concatenate([v.rgb.reshape(-1, 3) for v in views])


# The objects of open_drawer in the order of the recorded low-dimensional state, with their kinds.
OPEN_DRAWER = (
    ("drawer_frame", "shape"),
    ("drawer_joint_bottom", "joint"),
    ("waypoint1", "dummy"),
    ("drawer_legs", "shape"),
    ("drawer_joint_middle", "joint"),
    ("drawer_joint_top", "joint"),
    ("drawer_bottom", "shape"),
    ("waypoint2", "dummy"),
    ("waypoint0", "dummy"),
    ("drawer_middle", "shape"),
    ("drawer_top", "shape"),
    ("waypoint_anchor_bottom", "dummy"),
    ("waypoint_anchor_middle", "dummy"),
    ("waypoint_anchor_top", "dummy"),
)
EXTENSIONS = {"waypoint1": "close_gripper()", "waypoint2": "ignore_collisions"}


class RecordedCoppeliaSim:
    """The double. Install it with `install`, before anything of PyRep's is imported.

    blocked: every way that may not touch anything is barred, goals included. pathless: arm poses are found, ways to
    them are not. steps: how often physics has gone on. drawn: how many pictures were drawn.
    """

    def __init__(self, pyrep: Path, episodes: list[Path]) -> None:
        text = (pyrep / "cffi_build" / "cffi_build.py").read_text()
        declarations = text.split('ffibuilder.cdef("""')[1].split('""")')[0]
        self.ffi = FFI()
        self.ffi.cdef(declarations)
        self.sim = runpy.run_path(str(pyrep / "pyrep" / "backend" / "simConst.py"))
        self._kinds = {
            "shape": self.sim["sim_object_shape_type"],
            "joint": self.sim["sim_object_joint_type"],
            "dummy": self.sim["sim_object_dummy_type"],
            "sensor": self.sim["sim_object_visionsensor_type"],
            "force": self.sim["sim_object_forcesensor_type"],
            "proximity": self.sim["sim_object_proximitysensor_type"],
        }
        self.recordings: dict[int, list[Recording]] = {}
        for path in episodes:
            episode = open_episode(path)
            self.recordings.setdefault(episode.variation, []).append(Recording(episode))
        self.variation = next(iter(self.recordings))
        self.recording = self.recordings[self.variation][0]
        self.blocked = self.pathless = False
        self.steps = self.drawn = 0
        self.running = False
        self._buffers: dict[int, Any] = {}
        self._things: dict[int, Thing] = {}
        self._handles = count(11)
        self._path: list[int] = []
        self._trajectories: dict[int, list[float]] = {}
        self._placed = b""
        self.joints = self.recording.joints[0].copy()
        self.targets = self.joints.copy()
        self.fingers = self.recording.fingers[0].copy()
        self.finger_speeds = np.zeros(2)
        self.lib = Library(self, declarations)

    def install(self) -> None:
        """Be `pyrep.backend._sim_cffi`."""
        module = ModuleType("pyrep.backend._sim_cffi")
        module.ffi, module.lib = self.ffi, self.lib  # type: ignore[attr-defined]
        sys.modules["pyrep.backend._sim_cffi"] = module

    # The recorded world

    @property
    def is_open(self) -> bool:
        return bool(self.fingers[0] > 0.9 * FINGER)

    @property
    def arm_frame(self) -> int:
        """The frame whose joints are nearest."""
        return int(np.abs(self.recording.joints - self.joints).sum(axis=1).argmin())

    @property
    def frame(self) -> int:
        """The present frame: the nearest with the same state of the gripper, the earliest of those about as near."""
        recording = self.recording
        distance = np.abs(recording.joints - self.joints).max(axis=1)
        same = recording.open == self.is_open
        distance = np.where(same, distance, np.inf) if same.any() else distance
        nearest = distance.min()
        return int(np.flatnonzero(distance <= nearest + (STILL if nearest > 1e-5 else 0.0))[0])

    def recorded(self, name: str) -> np.ndarray:
        return np.asarray(self.recording.frames[self.frame][name], float).reshape(-1)

    def _state(self, start: int) -> Callable[[], np.ndarray]:
        return lambda: self.recording.state[self.frame][start : start + 7]

    def _choose_recording(self) -> None:
        """One of the variation's episodes, by where the task was put."""
        known = self.recordings[self.variation]
        self.recording = known[hashlib.sha256(self._placed).digest()[-1] % len(known)]

    def _advance(self) -> None:
        self.steps += 1
        self.joints = self.targets.copy()
        if self.finger_speeds.any():
            closed = self.recording.fingers[~self.recording.open]
            low = closed[0] if len(closed) else np.zeros(2)
            self.fingers = (self.fingers + self.finger_speeds * TIME_STEP).clip(low, FINGER)
        frame = self.frame
        if np.abs(self.recording.joints[frame] - self.joints).max() < SNAP:
            self.joints = self.recording.joints[frame].copy()
            self.targets = self.joints.copy()
        if not self.finger_speeds.any() and self.recording.open[frame] == self.is_open:
            self.fingers = self.recording.fingers[frame].copy()

    def _goal_frame(self) -> int | None:
        """The recorded frame that the target of inverse kinematics means."""
        goal = self.pose(self.handle("Panda_target"))
        far = np.linalg.norm(self.recording.tip[:, :3] - goal[:3], axis=1)
        turn = (Rotation.from_quat(self.recording.tip[:, 3:]) * Rotation.from_quat(goal[3:]).inv()).magnitude()
        cost = np.where((far <= NEAR_A_GOAL[0]) & (turn <= NEAR_A_GOAL[1]), far + NEAR_A_GOAL[0] * turn, np.inf)
        same = np.where(self.recording.open == self.is_open, cost, np.inf)
        best = int((same if np.isfinite(same).any() else cost).argmin())
        if not np.isfinite(cost[best]):
            return None
        return int(np.flatnonzero((same if np.isfinite(same).any() else cost) <= cost[best] + NEAR_A_GOAL[0] / 20)[-1])

    def _path_to(self, goal: int, points: int | None = None) -> np.ndarray:
        """[points, 7] joints along the recorded frames from the present one, each of them one of the points (None: the
        only ones)."""
        here = self.arm_frame
        self._path = list(range(here, goal + 1)) if goal >= here else list(range(here, goal - 1, -1))
        along = self.recording.joints[self._path].copy()
        along[0] = self.joints
        if len(along) == 1:
            along = np.concatenate([along, along + 1e-6])
        segments = len(along) - 1
        share, more = divmod((points or len(along)) - 1, segments)
        at = np.concatenate(
            [i + np.arange(share + (i < more)) / (share + (i < more)) for i in range(segments)] + [[segments]]
        )
        return np.stack([np.interp(at, np.arange(len(along)), along[:, joint]) for joint in range(7)], axis=1)

    # The scene

    def _add(self, name: str, kind: str, parent: int = -1, **details: Any) -> int:
        handle = next(self._handles)  # never one that something else had
        if details.get("pose") is None:
            details["pose"] = np.array([0.0, 0, 0, 0, 0, 0, 1])
        self._things[handle] = Thing(name, self._kinds[kind], parent, **details)
        return handle

    def open_scene(self) -> None:
        """RLBench's scene as it is when the simulator has started: the arm, the hand, the cameras."""
        self._things.clear()
        self.recording = next(iter(self.recordings.values()))[0]
        self.joints[:] = self.targets[:] = self.recording.joints[0]
        self.fingers[:] = self.recording.fingers[0]
        arm = self._add("Panda", "shape", model=True)
        self._joint_handles = [
            self._add(f"Panda_joint{i + 1}", "joint", arm, joint=lambda i=i: float(self.joints[i])) for i in range(7)
        ]
        self._add("Panda_link7_visual", "shape", arm)
        self._add("Panda_target", "dummy", arm)
        self._add("Panda_tip", "dummy", arm, pose=lambda: self.recording.tip[self.arm_frame])
        hand = self._add("Panda_gripper", "shape", arm, model=True)
        self._finger_handles = [
            self._add(f"Panda_gripper_joint{i + 1}", "joint", hand, joint=lambda i=i: float(self.fingers[i]))
            for i in range(2)
        ]
        self._add("Panda_gripper_attachProxSensor", "proximity", hand)
        self._add("Panda_gripper_attachPoint", "force", hand)
        for i in range(2):
            self._add(f"Panda_gripper_touchSensor{i}", "force", hand)
        self._add("workspace", "shape", pose=np.array([0.2, 0, 0.752, 0, 0, 0, 1.0]))
        for name in SENSORS.values():
            self._add(name, "sensor")
            self._add(f"{name}_mask", "sensor")

    def handle(self, name: str) -> int:
        return next(handle for handle, thing in self._things.items() if thing.name == name)

    def pose(self, handle: int) -> np.ndarray:
        pose = self._things[handle].pose
        return np.asarray(pose() if callable(pose) else pose, float)

    def matrix(self, handle: int) -> np.ndarray:
        """[4, 4]; of RLBench's cameras as they were recorded."""
        thing = self._things[handle]
        if "matrix" in thing.values:
            return thing.values["matrix"]
        camera = self._camera(thing)
        if camera is not None:
            return np.asarray(self.recording.frames[self.frame]["misc"][f"{camera}_camera_extrinsics"], float)
        pose, matrix = self.pose(handle), np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = Rotation.from_quat(pose[3:]).as_matrix(), pose[:3]
        return matrix

    def _camera(self, thing: Thing) -> str | None:
        return next((camera for camera, name in SENSORS.items() if thing.name in (name, f"{name}_mask")), None)

    def tree(self, base: int) -> list[int]:
        found = []
        for handle, thing in self._things.items():
            if base == self.sim["sim_handle_scene"] or handle == base or thing.parent in found:
                found.append(handle)
        return found

    def load_task(self, file: Path) -> int:
        if file.stem != "open_drawer":
            return -1
        base = self._add("open_drawer", "dummy", model=True)
        start = 0
        for name, kind in OPEN_DRAWER:
            joint = (lambda k=start + 7: float(self.recording.state[self.frame][k])) if kind == "joint" else None
            self._add(name, kind, base, pose=self._state(start), joint=joint, extension=EXTENSIONS.get(name, ""))
            start += 8 if kind == "joint" else 7
        return base

    # Pictures

    def picture(self, handle: int) -> tuple[np.ndarray, np.ndarray]:
        """Colour [H, W, 3] as floats and depth [H, W] metres."""
        self.drawn += 1
        thing = self._things[handle]
        camera = self._camera(thing)
        if camera is None:
            return self._fused(handle)
        view = self.recording.view(self.frame, camera)
        colour = view.rgb
        if thing.name.endswith("_mask"):
            colour = np.stack([view.mask & 255, view.mask >> 8 & 255, view.mask >> 16], axis=-1)
            return (colour / 255.0).astype(np.float32), view.depth
        # A quarter step up, so that truncation gives the recorded value back.
        return ((colour + 0.25) / 255.0).astype(np.float32), view.depth

    def _fused(self, handle: int) -> tuple[np.ndarray, np.ndarray]:
        thing = self._things[handle]
        points, colours = self.recording.cloud(self.frame)
        size, near, far, angle = (thing.values[key] for key in ("size", "near", "far", "angle"))
        T_world_camera = self.matrix(handle) * [-1.0, -1.0, 1.0, 1.0]
        focal = size / 2 / np.tan(angle / 2)
        intrinsics = np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]])
        pixels, depth = project(points, intrinsics, T_world_camera)
        column, row = np.rint(pixels[:, 0]).astype(int), np.rint(pixels[:, 1]).astype(int)
        seen = (depth > near) & (depth < far) & (column >= 0) & (row >= 0) & (column < size) & (row < size)
        order = np.flatnonzero(seen)[np.argsort(-depth[seen])]  # the nearest last
        colour, distance = np.zeros((size, size, 3), np.float32), np.full((size, size), far, np.float32)
        colour[row[order], column[order]] = (colours[order] + 0.25) / 255.0
        distance[row[order], column[order]] = depth[order]
        return colour, distance

    # Buffers that PyRep gives back

    def buffer(self, kind: str, values: Any) -> Any:
        pointer = self.ffi.new(f"{kind}[]", values)
        self._buffers[int(self.ffi.cast("uintptr_t", pointer))] = pointer
        return pointer

    def floats(self, array: np.ndarray) -> Any:
        data = np.ascontiguousarray(array, np.float32)
        pointer = self.ffi.new("float[]", data.size)
        self.ffi.memmove(pointer, data.tobytes(), data.nbytes)
        self._buffers[int(self.ffi.cast("uintptr_t", pointer))] = pointer
        return pointer

    def release(self, pointer: Any) -> int:
        self._buffers.pop(int(self.ffi.cast("uintptr_t", pointer)), None)
        return 1


class Library:
    """The functions by their C names. Those that the double lacks say so when they are called."""

    def __init__(self, world: RecordedCoppeliaSim, declarations: str) -> None:
        from recorded_functions import functions

        self._error: BaseException | None = None
        self._callbacks: dict[str, Any] = {}
        declared = {
            name: f"{result}(*)({arguments})"
            for result, name, arguments in re.findall(
                r"^((?:const )?\w+\s?\**)\s*\b(sim\w+)\(([^;]*)\);", declarations, re.MULTILINE
            )
        }
        for name, function in functions(world).items():
            nothing = world.ffi.NULL if "*(*)" in declared[name] else 0
            self._callbacks[name] = world.ffi.callback(declared[name], self._guarded(function, nothing))

    def _guarded(self, function: Callable[..., Any], nothing: Any) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            try:
                result = function(*arguments)
            except BaseException as error:  # an exception cannot pass through C: it is raised behind it
                self._error = error
                return nothing
            return nothing if result is None else result

        return call

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name not in self._callbacks:
            raise NotImplementedError(f"the double of CoppeliaSim has no {name}")

        def call(*arguments: Any) -> Any:
            result = self._callbacks[name](*arguments)
            error, self._error = self._error, None
            if error is not None:
                raise error
            return result

        return call
