"""The C functions that RLBench's tasks call, over the world of `recorded_coppeliasim`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.spatial.transform import Rotation

if TYPE_CHECKING:
    from recorded_coppeliasim import RecordedCoppeliaSim

LONGEST_LINE = 40  # frames; farther goals have no straight path, so PyRep asks for a planned one
SPECIAL = 0xFFFF  # an object's special properties at first: collidable and all the rest


def functions(world: RecordedCoppeliaSim) -> dict[str, Callable[..., Any]]:
    """Every function by its C name; arguments as cffi gives them."""
    ffi, sim, things = world.ffi, world.sim, world._things
    null = ffi.NULL
    boxes = _bounding_boxes(sim)

    def text(pointer: Any) -> str:
        return ffi.string(pointer).decode()

    def fill(pointer: Any, values: Any) -> int:
        for index, value in enumerate(values):
            pointer[index] = float(value)
        return 1

    # Application

    def launch(application: Any, options: int, scene: Any, folder: Any) -> int:
        world.open_scene()
        return 1

    def step(if_running: int) -> int:
        if if_running and world.running:
            world._advance()
        return 1

    def start() -> int:
        world.running = True
        return 1

    def stop() -> int:
        world.running = False
        return 1

    # Objects

    def find(name: Any) -> int:
        wanted = text(name)
        return next((handle for handle, thing in things.items() if thing.name == wanted), -1)

    def name(handle: int) -> Any:
        return world.buffer("char", things[handle].name.encode()) if handle in things else null

    def kind(handle: int) -> int:
        return things[handle].kind if handle in things else -1

    def parent(handle: int) -> int:
        return things[handle].parent

    def set_parent(handle: int, new: int, keep: int) -> int:
        things[handle].parent = new
        return 1

    def relative(handle: int, base: int) -> np.ndarray:
        matrix = world.matrix(handle)
        return matrix if base == -1 else np.linalg.inv(world.matrix(base)) @ matrix

    def position(handle: int, base: int, out: Any) -> int:
        return fill(out, world.pose(handle)[:3] if base == -1 and is_plain(handle) else relative(handle, base)[:3, 3])

    def quaternion(handle: int, base: int, out: Any) -> int:
        if base == -1 and is_plain(handle):
            return fill(out, world.pose(handle)[3:])
        return fill(out, Rotation.from_matrix(relative(handle, base)[:3, :3]).as_quat())

    def orientation(handle: int, base: int, out: Any) -> int:
        return fill(out, Rotation.from_matrix(relative(handle, base)[:3, :3]).as_euler("XYZ"))

    def matrix(handle: int, base: int, out: Any) -> int:
        return fill(out, relative(handle, base)[:3].ravel())

    def is_plain(handle: int) -> bool:
        return things[handle].kind != sim["sim_object_visionsensor_type"]

    def move(handle: int, base: int, change: Callable[[np.ndarray], None]) -> int:
        """Poses of the recorded world cannot be changed, but where RLBench wants them chooses the recording."""
        thing = things[handle]
        if callable(thing.pose):
            return 1
        pose = relative(handle, base)
        change(pose)
        pose = pose if base == -1 else world.matrix(base) @ pose
        thing.pose = np.concatenate([pose[:3, 3], Rotation.from_matrix(pose[:3, :3]).as_quat()])
        if thing.name == "open_drawer":
            world._placed = thing.pose.tobytes()
            world._choose_recording()
        return 1

    def set_position(handle: int, base: int, values: Any) -> int:
        target = np.array([values[i] for i in range(3)])
        if things[handle].name == "waypoint1":  # put on the anchor of the variation's drawer
            anchors = [world.pose(world.handle(f"waypoint_anchor_{name}")) for name in ("bottom", "middle", "top")]
            world.variation = int(np.argmin([np.linalg.norm(anchor[:3] - target) for anchor in anchors]))
            world._choose_recording()

        def change(pose: np.ndarray) -> None:
            pose[:3, 3] = target

        return move(handle, base, change)

    def set_orientation(handle: int, base: int, values: Any) -> int:
        def change(pose: np.ndarray) -> None:
            pose[:3, :3] = Rotation.from_euler("XYZ", [values[i] for i in range(3)]).as_matrix()

        return move(handle, base, change)

    def set_quaternion(handle: int, base: int, values: Any) -> int:
        def change(pose: np.ndarray) -> None:
            pose[:3, :3] = Rotation.from_quat([values[i] for i in range(4)]).as_matrix()

        return move(handle, base, change)

    def set_matrix(handle: int, base: int, values: Any) -> int:
        wanted = np.eye(4)
        wanted[:3] = np.array([values[i] for i in range(12)]).reshape(3, 4)
        if not is_plain(handle):  # as it is given: a camera's axes must come back to the digit
            things[handle].values["matrix"] = wanted
            return 1

        def change(pose: np.ndarray) -> None:
            pose[:] = wanted

        return move(handle, base, change)

    def rotate(given: Any, axis: Any, origin: Any, angle: float, out: Any) -> int:
        turn = np.eye(4)
        direction = np.array([axis[i] for i in range(3)])
        turn[:3, :3] = Rotation.from_rotvec(direction / np.linalg.norm(direction) * angle).as_matrix()
        middle = np.eye(4)
        middle[:3, 3] = [origin[i] for i in range(3)]
        start = np.eye(4)
        start[:3] = np.array([given[i] for i in range(12)]).reshape(3, 4)
        return fill(out, (middle @ turn @ np.linalg.inv(middle) @ start)[:3].ravel())

    def tree(base: int, wanted: int, options: int, count: Any) -> Any:
        found = [handle for handle in world.tree(base) if not (options & 1 and handle == base)]
        if wanted != sim["sim_handle_all"]:
            found = [handle for handle in found if things[handle].kind == wanted]
        count[0] = len(found)
        return world.buffer("int", found or [0])

    def remove(handle: int) -> int:
        return 1 if things.pop(handle, None) else -1

    def remove_model(handle: int) -> int:
        if handle not in things:
            return -1
        for part in world.tree(handle):
            things.pop(part)
        return 1

    def configuration(handle: int) -> Any:
        return world.buffer("char", b"configuration")

    def extension(handle: int, index: int, key: Any) -> Any:
        found = things[handle].extension
        return world.buffer("char", found.encode()) if found else null

    def model_property(handle: int) -> int:
        plain = 0 if things[handle].model else sim["sim_modelproperty_not_model"]
        return things[handle].values.get("model", plain)

    def special(handle: int) -> int:
        return things[handle].values.get("special", SPECIAL)

    def put(key: str) -> Callable[[int, Any], int]:
        def set_value(handle: int, value: Any) -> int:
            things[handle].values[key] = value
            return 1

        return set_value

    def get_int(handle: int, parameter: int, out: Any) -> int:
        default = {sim["sim_jointintparam_ctrl_enabled"]: 1}
        out[0] = things[handle].values.get(parameter, default.get(parameter, 0))
        return 1

    def set_int(handle: int, parameter: int, value: int) -> int:
        if parameter == sim["sim_visionintparam_resolution_x"]:
            things[handle].values["size"] = value
        things[handle].values[parameter] = value
        return 1

    def get_float(handle: int, parameter: int, out: Any) -> int:
        thing = things[handle]
        camera = world._camera(thing)
        if parameter == sim["sim_jointfloatparam_velocity"]:
            value = (
                world.recorded("joint_velocities")[world._joint_handles.index(handle)]
                if handle in world._joint_handles
                else 0.0
            )
        elif parameter == sim["sim_jointfloatparam_upper_limit"]:
            value = 100.0  # no path is slowed down: a frame a step
        elif camera is not None:
            misc = world.recording.frames[world.frame]["misc"]
            intrinsics = np.asarray(misc[f"{camera}_camera_intrinsics"], float)
            value = {
                sim["sim_visionfloatparam_perspective_angle"]: 2 * np.arctan(intrinsics[0, 2] / -intrinsics[0, 0]),
                sim["sim_visionfloatparam_near_clipping"]: misc[f"{camera}_camera_near"],
                sim["sim_visionfloatparam_far_clipping"]: misc[f"{camera}_camera_far"],
            }[parameter]
        else:
            value = boxes.get(parameter, thing.values.get(parameter, 0.0))
        out[0] = float(value)
        return 1

    def set_float(handle: int, parameter: int, value: float) -> int:
        keys = {
            sim["sim_visionfloatparam_perspective_angle"]: "angle",
            sim["sim_visionfloatparam_near_clipping"]: "near",
            sim["sim_visionfloatparam_far_clipping"]: "far",
        }
        things[handle].values[parameter] = value
        if parameter in keys:
            things[handle].values[keys[parameter]] = value
        return 1

    # Joints

    def joint_position(handle: int, out: Any) -> int:
        joint = things[handle].joint
        assert joint is not None
        return fill(out, [joint()])

    def set_joint_position(handle: int, value: float) -> int:
        if handle in world._joint_handles:
            world.joints[world._joint_handles.index(handle)] = value
            world.targets[world._joint_handles.index(handle)] = value
        elif handle in world._finger_handles:
            world.fingers[world._finger_handles.index(handle)] = value
        return 1

    def joint_target(handle: int, value: float) -> int:
        if handle in world._joint_handles:
            world.targets[world._joint_handles.index(handle)] = value
        return 1

    def joint_speed(handle: int, value: float) -> int:
        if handle in world._finger_handles:
            world.finger_speeds[world._finger_handles.index(handle)] = value
        return 1

    def get_joint_speed(handle: int, out: Any) -> int:
        return fill(out, [0.0])

    def joint_force(handle: int, out: Any) -> int:
        return fill(out, [world.recorded("joint_forces")[world._joint_handles.index(handle)]])

    def joint_interval(handle: int, cyclic: Any, out: Any) -> int:
        cyclic[0] = b"\0" if isinstance(cyclic[0], bytes) else 0
        return fill(out, [0.0, 0.04] if handle in world._finger_handles else [-2.9, 5.8])

    # Sensors

    def force_sensor(handle: int, force: Any, torque: Any) -> int:
        which = int(things[handle].name[-1]) if "touchSensor" in things[handle].name else None
        values = np.zeros(3) if which is None else world.recorded("gripper_touch_forces")[3 * which : 3 * which + 3]
        fill(torque, np.zeros(3))
        return fill(force, values)

    def proximity(handle: int, entity: int, point: Any) -> int:
        return 0

    def create_sensor(options: int, ints: Any, floats: Any, colour: Any) -> int:
        handle = world._add(f"Vision_sensor{len(things)}", "sensor")
        things[handle].values |= {"explicit": options & 1, "size": ints[0]}
        for parameter, value in (
            ("sim_visionfloatparam_near_clipping", floats[0]),
            ("sim_visionfloatparam_far_clipping", floats[1]),
            ("sim_visionfloatparam_perspective_angle", floats[2]),
        ):
            set_float(handle, sim[parameter], value)
        return handle

    def handle_sensor(handle: int, values: Any, counts: Any) -> int:
        values[0], counts[0] = world.floats(np.zeros(1)), world.buffer("int", [0])
        return 0

    def resolution(handle: int, out: Any) -> int:
        out[0] = out[1] = things[handle].values.get("size", 128)
        return 1

    def image(handle: int) -> Any:
        return world.floats(world.picture(handle)[0][::-1])  # rows from the bottom up

    def depth(handle: int) -> Any:
        metres = sim["sim_handleflag_depthbuffermeters"]
        handle, in_metres = (handle - metres, True) if handle >= metres else (handle, False)
        values = world.picture(handle)[1]
        if not in_metres:
            near, far = ffi.new("float*"), ffi.new("float*")
            get_float(handle, sim["sim_visionfloatparam_near_clipping"], near)
            get_float(handle, sim["sim_visionfloatparam_far_clipping"], far)
            values = (values - near[0]) / (far[0] - near[0])
        return world.floats(values[::-1])

    # Motion

    def tip_configuration(*arguments: Any) -> int:
        out, pairs = arguments[5], arguments[7]
        goal = world._goal_frame()
        if goal is None or (world.blocked and pairs):
            return 0
        return fill(out, world.recording.joints[goal])

    def straight_path(group: int, count: int, joints: Any, points: int, pairs: int, *rest: Any) -> Any:
        goal = world._goal_frame()
        if goal is None or world.pathless or (world.blocked and pairs):
            return null
        if abs(goal - world.arm_frame) > LONGEST_LINE:
            return null
        return world.floats(world._path_to(goal, points))

    def script(kind: int, function: Any, ints: Any, int_count: int, floats: Any, float_count: int, *rest: Any) -> int:
        strings, string_count, data, size, out_ints, out_int_count, out_floats, out_float_count, *tail = rest
        assert text(function) == "getNonlinearPath@PyRep", text(function)
        wanted = np.array([floats[i] for i in range(7)])
        ignores = bool(ints[1])
        goal = int(np.abs(world.recording.joints - wanted).sum(axis=1).argmin())
        path = np.zeros(0) if world.pathless or (world.blocked and not ignores) else world._path_to(goal).ravel()
        out_ints[0], out_int_count[0] = world.buffer("int", [0]), 0
        out_floats[0], out_float_count[0] = world.floats(path), path.size
        tail[0][0], tail[1][0] = ffi.cast("char**", world.buffer("char", b"")), 0
        tail[2][0], tail[3][0] = ffi.cast("char*", world.buffer("char", b"")), 0
        return 1

    def trajectory(
        dofs: int, step_: float, flags: int, now: Any, limits: Any, chosen: Any, goal: Any, data: Any
    ) -> int:
        """The length of the whole path, reached one recorded frame a step."""
        count = max(1, len(world._path) - 1)
        done = np.abs(np.diff(world.recording.joints[world._path], axis=0))
        reached = np.cumsum(np.linalg.norm(done, axis=1)) if len(done) else np.ones(1)
        reached = reached / reached[-1] if reached[-1] > 0 else np.arange(1, count + 1) / count
        handle = len(world._trajectories) + 1
        world._trajectories[handle] = [float(goal[0] * share) for share in reached]
        return handle

    def trajectory_step(handle: int, step_: float, out: Any, data: Any, reserved: Any) -> int:
        left = world._trajectories[handle]
        fill(out, [left.pop(0), 0.0, 0.0])
        return 0 if left else 1

    zero, one = (lambda *_: 0), (lambda *_: 1)
    return {
        "simExtLaunchUIThread": launch,
        "simExtCanInitSimThread": one,
        "simExtSimThreadInit": one,
        "simExtSimThreadDestroy": one,
        "simExtPostExitRequest": one,
        "simExtGetExitRequest": zero,
        "simExtStep": step,
        "simStartSimulation": start,
        "simStopSimulation": stop,
        "simSetStringParameter": one,
        "simGetSimulationTimeStep": lambda: 0.05,
        "simReleaseBuffer": world.release,
        "simGetObjectHandle": find,
        "simGetObjectName": name,
        "simGetObjectType": kind,
        "simGetObjectParent": parent,
        "simSetObjectParent": set_parent,
        "simGetObjectPosition": position,
        "simGetObjectQuaternion": quaternion,
        "simGetObjectOrientation": orientation,
        "simGetObjectMatrix": matrix,
        "simSetObjectPosition": set_position,
        "simSetObjectOrientation": set_orientation,
        "simSetObjectQuaternion": set_quaternion,
        "simSetObjectMatrix": set_matrix,
        "simRotateAroundAxis": rotate,
        "simGetObjectsInTree": tree,
        "simRemoveObject": remove,
        "simRemoveModel": remove_model,
        "simLoadModel": lambda file: world.load_task(Path(text(file))),
        "simCreateDummy": lambda size, colour: world._add(f"Dummy{len(things)}", "dummy"),
        "simGetConfigurationTree": configuration,
        "simSetConfigurationTree": one,
        "simResetDynamicObject": one,
        "simGetExtensionString": extension,
        "simGetModelProperty": model_property,
        "simSetModelProperty": put("model"),
        "simGetObjectSpecialProperty": special,
        "simSetObjectSpecialProperty": put("special"),
        "simGetObjectInt32Parameter": get_int,
        "simSetObjectInt32Parameter": set_int,
        "simGetObjectFloatParameter": get_float,
        "simSetObjectFloatParameter": set_float,
        "simSetExplicitHandling": put("explicit"),
        "simGetExplicitHandling": lambda handle: things[handle].values.get("explicit", 0),
        "simGetJointPosition": joint_position,
        "simSetJointPosition": set_joint_position,
        "simSetJointTargetPosition": joint_target,
        "simSetJointTargetVelocity": joint_speed,
        "simGetJointTargetVelocity": get_joint_speed,
        "simGetJointForce": joint_force,
        "simGetJointInterval": joint_interval,
        "simReadForceSensor": force_sensor,
        "simCheckProximitySensor": proximity,
        "simCreateVisionSensor": create_sensor,
        "simHandleVisionSensor": handle_sensor,
        "simGetVisionSensorResolution": resolution,
        "simGetVisionSensorImage": image,
        "simGetVisionSensorDepthBuffer": depth,
        "simGetIkGroupHandle": one,
        "simGetCollectionHandle": one,
        "simCheckCollision": zero,
        "simGetConfigForTipPose": tip_configuration,
        "simGenerateIkPath": straight_path,
        "simExtCallScriptFunction": script,
        "simRMLPos": trajectory,
        "simRMLStep": trajectory_step,
        "simRMLRemove": one,
        "simAddDrawingObject": one,
        "simAddDrawingObjectItem": one,
    }


def _bounding_boxes(sim: dict[str, Any]) -> dict[int, float]:
    """Bounding boxes: half a metre of workspace for objects, a hand's breadth for models."""
    sizes = {}
    for axis, (low, high) in {"x": (-0.3, 0.3), "y": (-0.3, 0.3), "z": (0.0, 0.0)}.items():
        sizes[sim[f"sim_objfloatparam_objbbox_min_{axis}"]] = low
        sizes[sim[f"sim_objfloatparam_objbbox_max_{axis}"]] = high
        sizes[sim[f"sim_objfloatparam_modelbbox_min_{axis}"]] = low / 3
        sizes[sim[f"sim_objfloatparam_modelbbox_max_{axis}"]] = high / 3
    return sizes
