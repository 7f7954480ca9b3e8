"""The small stand-in has the signatures of RLBench's and PyRep's source, read without importing it."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import fake_rlbench as fake
import pytest
from rlbench_worlds import rlbench_sources

# What stands in for a class, its file, its name there, and the methods that the adapter calls.
COMMON = [
    (fake.CameraConfig, "rlbench/observation_config.py", "CameraConfig", ["__init__"]),
    (fake.ObservationConfig, "rlbench/observation_config.py", "ObservationConfig", ["__init__"]),
    (
        fake.Scene,
        "rlbench/backend/scene.py",
        "Scene",
        ["__init__", "step", "register_step_callback", "get_observation", "get_demo"],
    ),
    (fake.Task, "rlbench/backend/task.py", "Task", ["__init__", "success", "get_waypoints"]),
    (fake.Waypoint, "rlbench/backend/waypoints.py", "Waypoint", ["start_of_path"]),
    (fake.Discrete, "rlbench/action_modes/gripper_action_modes.py", "Discrete", ["__init__", "action"]),
    (fake.Demo, "rlbench/demo.py", "Demo", ["__init__"]),
    (fake.RLBench, "rlbench/environment.py", "Environment", ["__init__", "launch", "shutdown", "get_task"]),
    (fake.Arm, "pyrep/robots/arms/arm.py", "Arm", ["solve_ik_via_sampling"]),
    (fake.Arm, "pyrep/robots/robot_component.py", "RobotComponent", ["set_control_loop_enabled"]),
    (
        fake.VisionSensor,
        "pyrep/objects/vision_sensor.py",
        "VisionSensor",
        [
            "create",
            "set_perspective_angle",
            "set_near_clipping_plane",
            "set_far_clipping_plane",
            "get_intrinsic_matrix",
            "handle_explicitly",
            "capture_rgb",
            "capture_depth",
        ],
    ),
    (fake.VisionSensor, "pyrep/objects/object.py", "Object", ["set_matrix", "get_matrix", "remove"]),
]
PLANNING = "rlbench/action_modes/arm_action_modes.py", "EndEffectorPoseViaPlanning", ["__init__", "action"]
EPISODES = "rlbench/task_environment.py", "TaskEnvironment"
EPISODE_METHODS = ["set_variation", "reset", "get_observation", "step"]
VERSIONS = {
    "peract": [(fake.PerActPlanning, *PLANNING), (fake.PerActTaskEnvironment, *EPISODES, EPISODE_METHODS)],
    "current": [(fake.CurrentPlanning, *PLANNING), (fake.CurrentTaskEnvironment, *EPISODES, EPISODE_METHODS)],
}


def parsed(sources: tuple[Path, Path], file: str) -> ast.Module:
    pyrep, rlbench = sources
    return ast.parse(((pyrep if file.startswith("pyrep") else rlbench) / file).read_text())


def parameters(module: ast.Module, name: str, method: str) -> list[str]:
    (found,) = [node for node in module.body if isinstance(node, ast.ClassDef) and node.name == name]
    (function,) = [node for node in found.body if isinstance(node, ast.FunctionDef) and node.name == method]
    return [argument.arg for argument in function.args.args if argument.arg != "self"]


@pytest.mark.parametrize("version", VERSIONS)
def test_signatures(version: str) -> None:
    sources = rlbench_sources(version)
    for stand_in, file, name, methods in [*COMMON, *VERSIONS[version]]:
        module = parsed(sources, file)
        for method in methods:
            real = parameters(module, name, method)
            ours = [word for word in inspect.signature(getattr(stand_in, method)).parameters if word != "self"]
            assert [word for word in real if word in ours] == ours, f"{name}.{method}"
            if method not in ("__init__", "get_task"):  # whoever is called back is called with all of them
                assert ours == real, f"{name}.{method}"


@pytest.mark.parametrize("version", VERSIONS)
def test_exceptions_exist(version: str) -> None:
    sources = rlbench_sources(version)
    for file, names in {
        "rlbench/backend/exceptions.py": [
            "InvalidActionError",
            "TaskEnvironmentError",
            "DemoError",
            "NoWaypointsError",
            "WaypointError",
        ],
        "pyrep/errors.py": ["ConfigurationPathError", "ConfigurationError", "IKError", "PyRepError"],
    }.items():
        known = {node.name for node in parsed(sources, file).body if isinstance(node, ast.ClassDef)}
        assert known >= set(names)
