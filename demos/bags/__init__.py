"""Bags: what crossed a robot's bus, recorded; read without ROS, written so that ROS 2's own tools read them too.

Needs the library `rosbags` (`pip install -e '.[bags]'`).
"""
