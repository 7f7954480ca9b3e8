"""ROS: the bus through rclpy, whose Python is another one, and a rosbridge server for hosts without ROS."""

from __future__ import annotations

import socket

from manifield.doctor.findings import Failed, Finding, attempt
from manifield.errors import InputError

_RCLPY = """
import os, platform, rclpy
from control_msgs.action import FollowJointTrajectory, GripperCommand
from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, JointState
from tf2_msgs.msg import TFMessage
found = f"ROS 2 {os.environ.get('ROS_DISTRO', '')}, Python {platform.python_version()}"
"""
BRIDGE = ("127.0.0.1", 9090)


def check_rclpy(timeout: float) -> Finding:
    """The Python that can import rclpy, with the messages that an arm speaks."""
    from envs.ros.rclpy_bus import find_python, ros_environment

    try:
        python = find_python(None)
    except InputError as error:
        return Finding("ros: rclpy", False, str(error))
    try:
        found = attempt(_RCLPY, timeout, python, ros_environment(python, domain=0, loopback_only=True))
    except Failed as failure:
        text = f"{python}: {failure}; run envs/ros/setup/install.sh again, or name another with MANIFIELD_ROS_PYTHON"
        return Finding("ros: rclpy", False, text)
    return Finding("ros: rclpy", True, f"{found} at {python}")


def check_rosbridge(address: tuple[str, int] = BRIDGE, timeout: float = 2.0) -> Finding:
    """Whether a rosbridge server answers on this machine."""
    host, port = address
    key = b"GET / HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" % host.encode()
    key += b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: bWFuaWZpZWxkLWRvY3Rvcg==\r\n\r\n"
    try:
        with socket.create_connection(address, timeout) as connection:
            connection.settimeout(timeout)
            connection.sendall(key)
            answer = connection.recv(64)
    except OSError:
        text = f"no server at {host}:{port} (needed with transport=rosbridge only): start rosbridge on the robot's host"
        return Finding("ros: rosbridge", False, text)
    if b" 101 " not in answer:
        text = f"what listens at {host}:{port} is no websocket server: give rosbridge that port, or name its own"
        return Finding("ros: rosbridge", False, text)
    return Finding("ros: rosbridge", True, f"a websocket server answers at {host}:{port}")
