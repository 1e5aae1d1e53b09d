"""Starts match_node with config/match.yaml, or with a parameter file of yours.

ros2 launch matchrt_ros match.launch.py image0:=/left/image_rect image1:=/right/image_rect
ros2 launch matchrt_ros match.launch.py mode:=previous image:=/camera/image_raw engine:=/opt/engines/lite.engine
ros2 launch matchrt_ros match.launch.py params:=/opt/robot/match.yaml
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

# Arguments that take the place of the parameter file's values where they are given.
_OVER_THE_FILE = ("engine", "mode")
_TOPICS = ("image", "image0", "image1")


def generate_launch_description() -> LaunchDescription:
    """Arguments: the parameter file, engine and mode (empty: the file's), and the topics to read."""
    config = Path(get_package_share_directory("matchrt_ros")) / "config" / "match.yaml"
    defaults = {"params": str(config)} | dict.fromkeys(_OVER_THE_FILE, "") | {topic: topic for topic in _TOPICS}
    declared = [DeclareLaunchArgument(name, default_value=value) for name, value in defaults.items()]
    return LaunchDescription([*declared, OpaqueFunction(function=_nodes)])


def _nodes(context: LaunchContext) -> list[Node]:
    given = {name: LaunchConfiguration(name).perform(context) for name in _OVER_THE_FILE}
    node = Node(
        package="matchrt_ros",
        executable="match_node",
        name="matchrt",
        output="screen",
        parameters=[LaunchConfiguration("params"), {name: value for name, value in given.items() if value}],
        remappings=[(topic, LaunchConfiguration(topic)) for topic in _TOPICS],
    )
    return [node]
