"""A Franka Panda from primitives: published kinematics and inertias, own shapes, no mesh files.

Bodies and joints carry franka_description's names. The site `tool` is the tool centre point between the finger tips in
RLBench's convention: z out of the hand, y along the fingers' motion, x backwards in the start pose.
"""

from __future__ import annotations

import mujoco
import numpy as np

ARM_JOINTS = tuple(f"joint{i}" for i in range(1, 8))
FINGER_JOINTS = ("finger_joint1", "finger_joint2")
HAND_BODIES = ("hand", "left_finger", "right_finger")
ROBOT_BODIES = tuple(f"link{i}" for i in range(8)) + HAND_BODIES
PADS = ("left_pad", "right_pad")

# RLBench's start configuration, as read from its demonstrations (radians).
START = np.array([0.0, 0.1751, 0.0, -0.8731, 0.0, 1.2215, 0.7854])
# The middle of the comfortable range above the table: where the null space of the inverse kinematics is pulled to.
COMFORTABLE = np.radians([0.0, 10.0, 0.0, -120.0, 0.0, 130.0, 45.0])

FINGER_OPEN = 0.04  # metres that each finger can travel
# Commanding the fingers far through each other turns their position servo into a nearly constant squeeze
# (350 N/m times 0.12 m = 42 N on the pair).
FINGER_SQUEEZE = -0.12

# Position servos: torque = stiffness * (target - q) - damping * velocity, capped at the real joints' torque.
# Much more damping than critical, with capped torque, makes light joints tremble at the time step's frequency.
SERVO_STIFFNESS = np.array([4500, 4500, 3500, 3500, 2000, 2000, 2000])
SERVO_DAMPING = np.array([300, 300, 200, 200, 40, 40, 40])
SERVO_TORQUE = np.array([87, 87, 87, 87, 12, 12, 12])
SERVO_LAG = SERVO_DAMPING / SERVO_STIFFNESS  # [7] seconds: what velocity feed-forward has to cancel

TOOL_HEIGHT = 0.1034  # metres from the hand's frame to the tool centre point
T_HAND_TOOL = np.array([[-1.0, 0, 0, 0], [0, -1.0, 0, 0], [0, 0, 1.0, TOOL_HEIGHT], [0, 0, 0, 1.0]])

# Mass, centre of mass and inertia (xx yy zz xy xz yz) of link 0 to 7, from franka_description.
_INERTIALS = (
    ("0.629769", "-0.041018 -0.00014 0.049974", "0.00315 0.00388 0.004285 8.2904e-7 0.00015 8.2299e-6"),
    ("4.970684", "0.003875 0.002081 -0.04762", "0.70337 0.70661 0.009117 -0.000139 0.006772 0.019169"),
    ("0.646926", "-0.003141 -0.02872 0.003495", "0.007962 0.02811 0.025995 -0.003925 0.010254 0.000704"),
    ("3.228604", "0.027518 0.039252 -0.066502", "0.037242 0.036155 0.01083 -0.004761 -0.011396 -0.012805"),
    ("3.587895", "-0.05317 0.104419 0.027454", "0.025853 0.019552 0.028323 0.007796 -0.001332 0.008641"),
    ("1.225946", "-0.011953 0.041065 -0.038437", "0.035549 0.029474 0.008627 -0.002117 -0.004037 0.000229"),
    ("1.666555", "0.060149 -0.014117 -0.010517", "0.001964 0.004354 0.005433 0.000109 -0.001158 0.000341"),
    ("0.735522", "0.010517 -0.004252 0.061597", "0.012516 0.010027 0.004815 -0.000428 -0.001196 -0.000741"),
)


def _inertial(link: int) -> str:
    mass, centre, inertia = _INERTIALS[link]
    return f'<inertial mass="{mass}" pos="{centre}" fullinertia="{inertia}"/>'


def _finger(side: str, joint: str, quaternion: str) -> str:
    return f"""
<body name="{side}_finger" pos="0 0 0.0584" quat="{quaternion}" gravcomp="1">
  <inertial mass="0.015" pos="0 0 0" diaginertia="2.375e-6 2.375e-6 7.5e-7"/>
  <joint name="{joint}" class="finger"/>
  <!-- all as thick as the pad: an edge that stands out catches on what the finger pushes -->
  <geom type="box" size="0.0095 0.0075 0.011" pos="0 0.0205 0.012" material="dark"/>
  <geom type="box" size="0.0095 0.0055 0.017" pos="0 0.0125 0.034" material="grey"/>
  <geom name="{side}_pad" class="pad" size="0.0095 0.0045 0.0100" pos="0 0.0047 0.0435" material="dark"/>
</body>"""


def _actuators() -> str:
    lines = []
    servos = zip(ARM_JOINTS, SERVO_STIFFNESS, SERVO_DAMPING, SERVO_TORQUE, strict=True)
    for joint, stiffness, damping, torque in servos:
        lines.append(
            f'<general name="{joint}" joint="{joint}" gainprm="{stiffness}" biastype="affine" '
            f'biasprm="0 {-stiffness} {-damping}" forcerange="{-torque} {torque}"/>'
        )
    return "\n".join(lines)


def panda_spec(base: tuple[float, float, float]) -> mujoco.MjSpec:
    """A model with nothing but the robot in it, its base at `base` (world metres), facing +x.

    gravcomp=1 on every link: the real arm compensates its weight in firmware, and without it the servos sag.
    """
    x, y, z = base
    return mujoco.MjSpec.from_string(f"""
<mujoco model="manifield">
  <compiler angle="radian" autolimits="true"/>
  <default>
    <default class="panda">
      <joint armature="0.1" damping="1" axis="0 0 1" range="-2.8973 2.8973"/>
      <geom group="2" friction="0.8 0.005 0.0001"/>
      <default class="look"><geom contype="0" conaffinity="0"/></default>
      <default class="pad">
        <geom type="box" condim="4" friction="1.5 0.02 0.0005" solimp="0.95 0.99 0.001" solref="0.004 1" priority="1"/>
      </default>
      <default class="finger"><joint axis="0 1 0" type="slide" range="0 {FINGER_OPEN}"/></default>
    </default>
  </default>
  <asset>
    <material name="white" rgba="0.85 0.85 0.86 1" specular="0.4" shininess="0.4"/>
    <material name="grey" rgba="0.7 0.72 0.74 1" specular="0.3" shininess="0.3"/>
    <material name="dark" rgba="0.2 0.2 0.22 1" specular="0.3" shininess="0.3"/>
  </asset>
  <worldbody>
    <body name="link0" childclass="panda" pos="{x} {y} {z}">
      {_inertial(0)}
      <geom type="box" size="0.09 0.07 0.02" pos="-0.03 0 0.02" material="grey"/>
      <geom type="capsule" size="0.06" fromto="-0.09 0 0.06 -0.06 0 0.06" material="grey"/>
      <geom type="cylinder" size="0.072" fromto="0 0 0.02 0 0 0.141" material="white"/>
      <geom type="cylinder" size="0.064" fromto="0 0 0.141 0 0 0.150" material="dark" class="look"/>
      <body name="link1" pos="0 0 0.333" gravcomp="1">
        {_inertial(1)}
        <joint name="joint1"/>
        <geom type="capsule" size="0.06" fromto="0 0 -0.183 0 0 -0.06" material="white"/>
        <geom type="cylinder" size="0.062" fromto="0 -0.06 0 0 0.065 0" material="white" class="look"/>
        <geom type="cylinder" size="0.050" fromto="0 -0.067 0 0 0.067 0" material="dark" class="look"/>
        <body name="link2" quat="1 -1 0 0" gravcomp="1">
          {_inertial(2)}
          <joint name="joint2" range="-1.7628 1.7628"/>
          <geom type="capsule" size="0.06" fromto="0 0 -0.06 0 0 0.06" material="white"/>
          <geom type="cylinder" size="0.06" fromto="0 -0.12 0 0 0 0" material="white" class="look"/>
          <body name="link3" pos="0 -0.316 0" quat="1 1 0 0" gravcomp="1">
            {_inertial(3)}
            <joint name="joint3"/>
            <geom type="capsule" size="0.06" fromto="0 0 -0.195 0 0 -0.070" material="white"/>
            <geom type="cylinder" size="0.058" fromto="0 0 -0.205 0 0 -0.198" material="dark" class="look"/>
            <geom type="capsule" size="0.055" fromto="0 0 -0.06 0.0825 0 0" material="white"/>
            <body name="link4" pos="0.0825 0 0" quat="1 1 0 0" gravcomp="1">
              {_inertial(4)}
              <joint name="joint4" range="-3.0718 -0.0698"/>
              <geom type="capsule" size="0.06" fromto="0 0 -0.06 0 0 0.06" material="white"/>
              <geom type="cylinder" size="0.052" fromto="0 0 -0.122 0 0 0.122" material="dark" class="look"/>
              <geom type="capsule" size="0.055" fromto="0 0 0 -0.0825 0.09 0" material="white"/>
              <body name="link5" pos="-0.0825 0.384 0" quat="1 -1 0 0" gravcomp="1">
                {_inertial(5)}
                <joint name="joint5"/>
                <geom type="capsule" size="0.058" fromto="0 0 -0.300 0 0 -0.220" material="white"/>
                <geom type="capsule" size="0.030" fromto="0 0.08 -0.200 0 0.08 -0.06" material="white"/>
                <geom type="capsule" size="0.045" fromto="0 0.045 -0.22 0 0.06 -0.12" material="white" class="look"/>
                <body name="link6" quat="1 1 0 0" gravcomp="1">
                  {_inertial(6)}
                  <joint name="joint6" range="-0.0175 3.7525"/>
                  <geom type="capsule" size="0.050" fromto="0 0 -0.06 0 0 0.01" material="white"/>
                  <geom type="cylinder" size="0.042" fromto="0 0 -0.112 0 0 0.02" material="dark" class="look"/>
                  <geom type="capsule" size="0.045" fromto="0.01 0 0 0.088 0 0" material="white"/>
                  <body name="link7" pos="0.088 0 0" quat="1 1 0 0" gravcomp="1">
                    {_inertial(7)}
                    <joint name="joint7"/>
                    <geom type="cylinder" size="0.044" fromto="0 0 -0.05 0 0 0.085" material="white"/>
                    <geom type="cylinder" size="0.040" fromto="0 0 0.085 0 0 0.107" material="dark"/>
                    <body name="hand" pos="0 0 0.107" quat="0.9238795 0 0 -0.3826834" gravcomp="1">
                      <inertial mass="0.73" pos="-0.01 0 0.03" diaginertia="0.001 0.0025 0.0017"/>
                      <!-- narrower towards the fingers: the camera on the hand looks past it, as in RLBench -->
                      <geom type="box" size="0.0315 0.102 0.011" pos="0 0 0.025" material="grey"/>
                      <geom type="box" size="0.0165 0.102 0.011" pos="0 0 0.047" material="grey"/>
                      <geom type="box" size="0.0105 0.085 0.005" pos="0 0 0.061" material="dark" class="look"/>
                      <geom type="box" size="0.026 0.03 0.012" pos="0 0 0.013" material="white" class="look"/>
                      <site name="tool" pos="0 0 {TOOL_HEIGHT}" quat="0 0 0 1" size="0.004" group="4"/>
                      {_finger("left", "finger_joint1", "1 0 0 0")}
                      {_finger("right", "finger_joint2", "0 0 0 1")}
                    </body>
                  </body>
                </body>
              </body>
            </body>
          </body>
        </body>
      </body>
    </body>
  </worldbody>
  <tendon>
    <fixed name="fingers"><joint joint="finger_joint1" coef="0.5"/><joint joint="finger_joint2" coef="0.5"/></fixed>
  </tendon>
  <equality>
    <joint joint1="finger_joint1" joint2="finger_joint2" solimp="0.95 0.99 0.001" solref="0.005 1"/>
  </equality>
  <actuator>
    {_actuators()}
    <general name="fingers" tendon="fingers" forcerange="-100 100"
             gainprm="350" biastype="affine" biasprm="0 -350 -10"/>
  </actuator>
  <contact>
    <exclude body1="link0" body2="link1"/>
    <exclude body1="link1" body2="link3"/>
    <exclude body1="link2" body2="link4"/>
    <exclude body1="link3" body2="link5"/>
    <exclude body1="link4" body2="link6"/>
    <exclude body1="link5" body2="link7"/>
    <exclude body1="hand" body2="link6"/>
    <exclude body1="hand" body2="left_finger"/>
    <exclude body1="hand" body2="right_finger"/>
  </contact>
</mujoco>""")
