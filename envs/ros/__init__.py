"""A real arm over ROS: messages, transports, sensing, the safety layer, the arm as an `Environment`."""
