"""The embedded simulator: RLBench's workspace, cameras and tasks in MuJoCo.

MuJoCo chooses its graphics library while it is imported, so the choice is made here, before any module of this package
can import it: EGL draws without a display, and one software-rendering thread per process is the fastest on a CPU.
"""

import os

from manifield.errors import InputError

os.environ.setdefault("MUJOCO_GL", "egl")
os.environ.setdefault("LP_NUM_THREADS", "0")

GL_HELP = (
    "install one with 'apt-get install libegl1 libgl1-mesa-dri' (MUJOCO_GL=egl) or 'apt-get install libosmesa6' "
    "(MUJOCO_GL=osmesa)"
)

try:
    import mujoco as _mujoco  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "mujoco":
        raise
    raise InputError("the package 'mujoco' is missing: pip install 'mujoco>=3.3,<5'") from error
except Exception as error:  # MuJoCo's GL loaders raise ImportError, AttributeError or RuntimeError, by library
    raise InputError(f"no OpenGL library for MUJOCO_GL={os.environ['MUJOCO_GL']} ({error}): {GL_HELP}") from error
