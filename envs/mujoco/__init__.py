"""The embedded simulator: RLBench's workspace, cameras and tasks in MuJoCo.

MuJoCo chooses its graphics library while it is imported, so the choice is made here, before any module of this package
can import it: on Linux EGL, which draws without a display. One software-rendering thread per process is the fastest on
a CPU.
"""

import os
import sys

from manifield.errors import InputError

if sys.platform == "linux":
    os.environ.setdefault("MUJOCO_GL", "egl")
os.environ.setdefault("LP_NUM_THREADS", "0")

GL_HELP = (
    "install one with 'apt-get install libegl1 libgl1-mesa-dri' (MUJOCO_GL=egl) or 'apt-get install libosmesa6' "
    "(MUJOCO_GL=osmesa)"
)

try:
    import mujoco as _mujoco  # noqa: F401
except Exception as error:  # the GL loaders raise ImportError, AttributeError or RuntimeError, by library and release
    if isinstance(error, ModuleNotFoundError) and error.name == "mujoco":
        raise InputError("the package 'mujoco' is missing: pip install 'mujoco>=3.3,<5'") from error
    library = os.environ.get("MUJOCO_GL")
    raise InputError(f"no OpenGL library for MUJOCO_GL={library} ({error}): {GL_HELP}") from error
