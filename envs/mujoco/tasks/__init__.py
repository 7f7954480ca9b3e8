"""The tasks of the embedded simulator, one file each, found by file name: a new file is a new task."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from envs.mujoco.tasks.base import Task
from manifield.errors import choose

TASKS = tuple(sorted(module.name for module in iter_modules(__path__) if module.name != "base"))


def make_task(name: str) -> Task:
    """A fresh task: the class in `tasks/<name>.py` whose name is the file's in camel case.

    Raises InputError for a name that has no file.
    """
    choose(name, TASKS, "task")
    class_name = "".join(word.capitalize() for word in name.split("_"))
    return getattr(import_module(f"{__name__}.{name}"), class_name)()
