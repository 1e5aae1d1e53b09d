"""The C++ node compiles, against stand-ins of rclcpp and TensorRT, and the real headers of messages where they are."""

from __future__ import annotations

import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "ros2" / "matchrt_ros_cpp"
STUB = ROOT / "tests" / "support" / "ros_stub"
MOCKS = [ROOT / "tests" / "support" / "tensorrt_mock" / name for name in ("tensorrt-10.9", "common")]


def compile_node(folders: list[Path]) -> None:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("g++ is not installed")
    flags = ["-std=c++17", "-fsyntax-only", "-Wall", "-Wextra", "-Werror"]
    includes = [f"-I{ROOT / 'examples' / 'cpp' / 'include'}"]
    systems = [word for folder in (*folders, *MOCKS) for word in ("-isystem", str(folder))]
    source = str(PACKAGE / "src" / "match_node.cpp")
    ran = subprocess.run([compiler, *flags, *includes, *systems, source], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


def test_it_compiles_against_stand_ins() -> None:
    compile_node([STUB])


def test_it_compiles_with_the_messages_real_headers(tmp_path: Path) -> None:
    headers = Path(sys.prefix) / "include"
    if not (headers / "sensor_msgs" / "sensor_msgs" / "msg" / "image.hpp").is_file():
        pytest.skip("the wheel ros-sensor-msgs is not installed (ros2/requirements.txt)")
    shutil.copytree(STUB / "rclcpp", tmp_path / "rclcpp")  # no wheel has rclcpp
    packages = [folder for folder in headers.iterdir() if folder.is_dir() and (folder / folder.name).is_dir()]
    compile_node([tmp_path, *packages])


def test_the_package_names_what_it_includes() -> None:
    root = ET.parse(PACKAGE / "package.xml").getroot()
    source = (PACKAGE / "src" / "match_node.cpp").read_text(encoding="utf-8")
    cmake = (PACKAGE / "CMakeLists.txt").read_text(encoding="utf-8")
    for package in [entry.text or "" for entry in root.findall("depend")]:
        assert f"#include <{package}/" in source and f"find_package({package} REQUIRED)" in cmake
    assert f"project({root.findtext('name')} " in cmake
