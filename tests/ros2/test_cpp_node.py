"""The C++ node builds and runs with stand-ins of rclcpp and TensorRT, and compiles with the messages' real headers."""

from __future__ import annotations

import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from support.cpp_programs import NEWEST, vendor_folder
from support.mock_engines import write_engine

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


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The node as a program that gives it images: tests/support/cpp/ros_node_check.cpp."""
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed")
    program = tmp_path_factory.mktemp("node") / "ros_node_check"
    mock = ROOT / "tests" / "support" / "tensorrt_mock"
    folders = (ROOT / "examples" / "cpp" / "include", PACKAGE / "src", STUB, mock / NEWEST, mock / "common")
    source = ROOT / "tests" / "support" / "cpp" / "ros_node_check.cpp"
    words = ["g++", "-std=c++17", "-O0", *(f"-I{folder}" for folder in folders), "-o", str(program), str(source)]
    ran = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return program


def run_node(node: Path, *words: object) -> tuple[int, list[str]]:
    ran = subprocess.run([str(node), *map(str, words)], capture_output=True, text=True, check=False, timeout=60)
    return ran.returncode, ran.stdout.splitlines()


def test_each_image_is_matched_with_the_one_before_it(node: Path, tmp_path: Path) -> None:
    engine = write_engine(tmp_path)
    code, said = run_node(node, engine, "48x64", "48x64", "100x64", "48x64")
    assert code == 0
    assert [line for line in said if "session-input" not in line] == [
        "not matched",
        "matched",
        "not matched",
        "matched",
    ]


def test_a_first_image_that_the_engine_does_not_take_does_not_stay(node: Path, tmp_path: Path) -> None:
    code, said = run_node(node, write_engine(tmp_path), "100x64", "48x64", "48x64")
    assert (
        code == 0 and said[0] == "not matched" and "session-input" in said[1] and said[2:] == ["not matched", "matched"]
    )


def test_a_node_that_cannot_start_says_why(node: Path, tmp_path: Path) -> None:
    for words, part in (((), "engine:=FILE"), ((tmp_path / "absent",), "manifest-missing")):
        code, said = run_node(node, *words)
        assert code == 2 and part in said[0]


@pytest.mark.parametrize("installed", [False, True])
def test_the_cmake_file_builds_it(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, installed: bool) -> None:
    """With stand-ins of ament_cmake and of ROS's packages; from the clone, and as a copy with installed headers."""
    if shutil.which("cmake") is None or shutil.which("g++") is None:
        pytest.skip("CMake or g++ is not installed")
    vendor = vendor_folder(tmp_path_factory)
    (tmp_path / "Findament_cmake.cmake").write_text("set(ament_cmake_FOUND TRUE)\nmacro(ament_package)\nendmacro()\n")
    for name in ("rclcpp", "sensor_msgs"):
        (tmp_path / f"Find{name}.cmake").write_text(
            f"set({name}_FOUND TRUE)\nset({name}_TARGETS {name}::{name})\n"
            f"add_library({name}::{name} INTERFACE IMPORTED)\n"
            f"target_include_directories({name}::{name} INTERFACE {STUB})\n"
        )

    def cmake(*words: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["cmake", *map(str, words)], capture_output=True, text=True, check=False, timeout=300)

    source, build = PACKAGE, tmp_path / "build"
    settings = [f"-DTENSORRT_ROOT={vendor / 'tensorrt'}", f"-DCMAKE_MODULE_PATH={tmp_path};{vendor}"]
    if installed:
        source = shutil.copytree(PACKAGE, tmp_path / "workspace" / "src" / "matchrt_ros_cpp")
        missing = cmake("-S", source, "-B", build, *settings)
        assert missing.returncode != 0 and "matchrt_ROOT=PREFIX" in missing.stderr
        prefix = tmp_path / "prefix"
        assert cmake("-S", ROOT / "examples/cpp", "-B", tmp_path / "cpp", "-DMATCHRT_CLIENT=OFF").returncode == 0
        assert cmake("--install", tmp_path / "cpp", "--prefix", prefix).returncode == 0
        settings.append(f"-Dmatchrt_ROOT={prefix}")
    for words in (("-S", source, "-B", build, "-DCMAKE_BUILD_TYPE=Debug", *settings), ("--build", build)):
        ran = cmake(*words)
        assert ran.returncode == 0, ran.stdout + ran.stderr
    assert (build / "match_node").is_file()
    # What is installed is the node alone.
    assert cmake("--install", build, "--prefix", tmp_path / "node").returncode == 0
    assert [path.name for path in (tmp_path / "node").rglob("*") if path.is_file()] == ["match_node"]


def test_the_package_names_what_it_includes() -> None:
    root = ET.parse(PACKAGE / "package.xml").getroot()
    source = (PACKAGE / "src" / "match_node.cpp").read_text(encoding="utf-8")
    cmake = (PACKAGE / "CMakeLists.txt").read_text(encoding="utf-8")
    for package in [entry.text or "" for entry in root.findall("depend")]:
        assert f"#include <{package}/" in source and f"find_package({package} REQUIRED)" in cmake
    assert f"project({root.findtext('name')} " in cmake
