"""`manifield doctor`: looks at everything that the project can use on this machine, and says what to do about the rest.

examine.py       the verb: which checks there are, side by side, and their table
findings.py      what a check says, and pieces of Python tried out in a process of their own
core.py          what nothing goes without
simulators.py    CoppeliaSim with RLBench      robot.py    ROS
packages.py      what pyproject.toml asks for  weights.py  networks' weights
"""
