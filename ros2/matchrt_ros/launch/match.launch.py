"""Starts match_node with config/match.yaml.

ros2 launch matchrt_ros match.launch.py image0:=/left/image_rect image1:=/right/image_rect
ros2 launch matchrt_ros match.launch.py mode:=previous image:=/camera/image_raw engine:=/opt/engines/lite.engine
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node


def generate_launch_description() -> LaunchDescription:
    """Arguments: the parameter file, engine and mode, and the topics to read."""
    config = Path(get_package_share_directory("matchrt_ros")) / "config" / "match.yaml"
    arguments = {
        "params": str(config),
        "engine": "eloftr-lite",
        "mode": "two_topics",
        "image": "image",
        "image0": "image0",
        "image1": "image1",
    }
    node = Node(
        package="matchrt_ros",
        executable="match_node",
        name="matchrt",
        output="screen",
        parameters=[
            LaunchConfiguration("params"),
            {"engine": LaunchConfiguration("engine"), "mode": LaunchConfiguration("mode")},
        ],
        remappings=[(topic, LaunchConfiguration(topic)) for topic in ("image", "image0", "image1")],
    )
    declared = [DeclareLaunchArgument(name, default_value=value) for name, value in arguments.items()]
    return LaunchDescription([*declared, node])
