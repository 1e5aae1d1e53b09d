"""The ament_python package `matchrt_ros`: colcon build, or pip install."""

from setuptools import setup

NAME = "matchrt_ros"

setup(
    name=NAME,
    version="0.1.0",
    packages=[NAME],
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/launch", ["launch/match.launch.py"]),
        (f"share/{NAME}/config", ["config/match.yaml"]),
    ],
    install_requires=["setuptools"],
    zip_safe=False,
    maintainer="The matchrt authors",
    description="Matches the images of two topics, or of one topic with a keyframe, with a matchrt engine",
    license="Apache-2.0",
    entry_points={"console_scripts": [f"match_node = {NAME}.node:main"]},
)
