"""GNFactor's `nerf_data`, with GNFactor's own code on the other side: it reads what we write, we read what it writes.

Its functions are taken out of its source one by one; the source is found as RLBench's is (`make rlbench-test`).
"""

from __future__ import annotations

import ast
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from demos.field_views import DEPTH_BITS, FAR, NEAR, read_field_views, write_field_views
from envs.interface import CameraView
from perception.cameras import look_at

ROOT = Path(os.environ.get("MANIFIELD_RLBENCH_SOURCE") or Path(__file__).resolve().parents[2] / ".rlbench")
AGENT = "GNFactor/agents/gnfactor_bc/qattention_gnfactor_bc_agent.py"
RECORDER = "third_party/YARR/yarr/utils/video_utils.py"
PICTURES = "third_party/RLBench/rlbench/backend/utils.py"


def from_source(file: str, *names: str) -> dict[str, Any]:
    """Functions and constants of a file of GNFactor's, without importing what stands around them."""
    path = ROOT / "GNFactor" / file
    if not path.is_file():
        pytest.skip(f"no source in {path}: `make rlbench-test` fetches it, or set MANIFIELD_RLBENCH_SOURCE")
    wanted = [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.FunctionDef) and node.name in names)
        or (isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) in names)
    ]
    assert len(wanted) == len(names), f"{file}: {names}"
    module = ast.Module(sorted(wanted, key=lambda node: isinstance(node, ast.FunctionDef)), [])
    found: dict[str, Any] = {"np": np, "Image": Image}
    exec(compile(module, str(path), "exec"), found)
    return found


def views() -> list[CameraView]:
    """Three views from different places, each with a focal length of its own."""
    made = []
    for number, fov in enumerate((40.0, 60.0, 52.5)):
        rng = np.random.default_rng(number)
        focal = 64 / np.tan(np.radians(fov) / 2)
        made.append(
            CameraView(
                rng.integers(0, 256, (128, 128, 3), dtype=np.uint8),
                rng.uniform(0.3, 3.0, (128, 128)).astype(np.float32),
                np.array([[focal, 0.0, 64.0], [0.0, focal, 64.0], [0.0, 0.0, 1.0]]),
                look_at(np.array([1.3, number - 1.0, 1.5]), np.array([0.2, 0.0, 1.0])),
                NEAR,
                FAR,
            )
        )
    return made


def test_gnfactor_reads_what_we_write(tmp_path: Path) -> None:
    agent = from_source(AGENT, "parse_camera_file", "parse_img_file")
    utils = from_source(PICTURES, "image_to_float_array", "DEFAULT_RGB_SCALE_FACTOR", "DEFAULT_GRAY_SCALE_FACTOR")
    write_field_views(tmp_path, 7, views())
    folder = tmp_path / "nerf_data" / "7"
    for number, view in enumerate(views()):
        extrinsic, intrinsic, focal = agent["parse_camera_file"](folder / "poses" / f"{number}.txt")
        # RLBench's axes: x left, y up, negative focal length. Each view has its own.
        assert focal == pytest.approx(-view.intrinsics[0, 0], abs=1e-6)
        np.testing.assert_allclose(np.diag(intrinsic), [focal, focal, 1], atol=1e-6)
        np.testing.assert_allclose(intrinsic[:2, 2], [64, 64])
        np.testing.assert_allclose(extrinsic, view.T_world_camera * [-1, -1, 1, 1], atol=1e-8)
        np.testing.assert_allclose(
            agent["parse_img_file"](folder / "images" / f"{number}.png") * 255, view.rgb, atol=1e-4
        )
        stored = utils["image_to_float_array"](Image.open(folder / "depths" / f"{number}.png"), 2**24 - 1)
        np.testing.assert_allclose(NEAR + stored * (FAR - NEAR), view.depth, atol=(FAR - NEAR) / 2**DEPTH_BITS)


def test_we_read_what_gnfactor_writes(tmp_path: Path) -> None:
    recorder = from_source(RECORDER, "save_extrinsic_and_intrinsic")
    utils = from_source(PICTURES, "float_array_to_rgb_image", "ClipFloatValues", "DEFAULT_RGB_SCALE_FACTOR")
    folder = tmp_path / "nerf_data" / "0"
    for kind in ("images", "depths", "poses"):
        (folder / kind).mkdir(parents=True)
    for number, view in enumerate(views()):
        negative = view.intrinsics * [[-1, 1, 1], [1, -1, 1], [1, 1, 1]]
        pose = folder / "poses" / f"{number}.txt"
        recorder["save_extrinsic_and_intrinsic"](None, pose, view.T_world_camera * [-1, -1, 1, 1], negative)
        Image.fromarray(view.rgb).save(folder / "images" / f"{number}.png")
        between = (view.depth.astype(np.float64) - NEAR) / (FAR - NEAR)
        utils["float_array_to_rgb_image"](between, scale_factor=2**24 - 1).save(folder / "depths" / f"{number}.png")
    for read, view in zip(read_field_views(tmp_path, 0), views(), strict=True):
        np.testing.assert_array_equal(read.rgb, view.rgb)
        np.testing.assert_allclose(read.depth, view.depth, atol=2e-6)
        np.testing.assert_allclose(read.intrinsics, view.intrinsics, atol=1e-6)
        np.testing.assert_allclose(read.T_world_camera, view.T_world_camera, atol=1e-6)
