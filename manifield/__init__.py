"""Manifield: learn many manipulation tasks from a few demonstrations each, told in words what to do."""

__version__ = "0.1.0"
