"""Where the cameras of a real arm are: hand-eye calibration, and a check of what it is worth.

Only `board` and `hand_eye` need OpenCV (`pip install -e '.[calibration]'`).
"""
