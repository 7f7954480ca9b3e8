#!/usr/bin/env bash
# A rosbridge server beside a robot's ROS, from the environment that install.sh made:
#
#     envs/ros/setup/rosbridge.sh [PORT] [ADDRESS] [FOLDER]     # defaults: 9090, 127.0.0.1, .ros in the checkout
#
# It has no password: an address other than loopback lets everyone in that network move the arm.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=$(cd "${3:-$here/../../../.ros}" && pwd)
export AMENT_PREFIX_PATH=$folder ROS_DISTRO=jazzy VIRTUAL_ENV=$folder ROS_DOMAIN_ID=${ROS_DOMAIN_ID:-0}
export FASTRTPS_DEFAULT_PROFILES_FILE=${FASTRTPS_DEFAULT_PROFILES_FILE:-$here/fastdds_loopback.xml}
export ROS_AUTOMATIC_DISCOVERY_RANGE=${ROS_AUTOMATIC_DISCOVERY_RANGE:-SYSTEM_DEFAULT}
LD_LIBRARY_PATH=$("$folder/bin/python" -c 'import os; print(os.environ["LD_LIBRARY_PATH"])')
export LD_LIBRARY_PATH
libpython=$("$folder/bin/python" -c 'import glob, os, sysconfig
print(sorted(glob.glob(os.path.join(sysconfig.get_config_var("LIBDIR"), "libpython3.*.so*")))[0])')
server=$(echo "$folder"/lib/python3*/site-packages/rosbridge_server_rs/rosbridge_server_rs_jazzy)
LD_PRELOAD=$libpython exec "$server" --bind "${2:-127.0.0.1}:${1:-9090}" --log-ansi false --no-rosapi
