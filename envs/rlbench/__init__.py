"""RLBench's tasks in CoppeliaSim as an `Environment`, over RLBench's and PyRep's own Python.

Importing this package imports neither of them: `installation` looks whether they can be used, `session` loads them.
"""
