from __future__ import annotations

import sys
from pathlib import Path

# The ROS package is no part of the Python package, and is not installed here.
PACKAGE = Path(__file__).resolve().parents[2] / "ros2" / "matchrt_ros"
sys.path.insert(0, str(PACKAGE))
