"""A ROS 2 node around `matchrt.Matcher`. Only `node` needs ROS; the other modules are plain Python."""
