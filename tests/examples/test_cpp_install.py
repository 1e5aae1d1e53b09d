"""CMake with the C++ headers: the documented lines, the installed package, and programs that find it.

NVIDIA's headers are the mock's, which have parameters that are not used, as the real ones do.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from support.cpp_programs import CPP, MOCK, compile_command, vendor_folder
from support.workers import once, shared_folder

from matchrt._version import __version__

pytestmark = pytest.mark.skipif(
    shutil.which("cmake") is None or shutil.which("g++") is None, reason="CMake or g++ is not installed"
)
STRICT = "-DMATCHRT_WERROR=ON"
# What a program of a user says. -Wunused-parameter would stop it at a header that is no system header.
PROGRAM = """
#include <matchrt/engine.h>
#include <matchrt/version.h>
#include <cstdio>
int main(int count, char** values) {
  try {
    matchrt::Engine engine(values[count - 1]);
  } catch (const matchrt::Error& error) {
    std::printf("%s %s\\n", MATCHRT_VERSION, error.code.c_str());
  }
}
"""
CONSUMER = """
cmake_minimum_required(VERSION 3.22)
project(consumer CXX)
find_package(matchrt {version} CONFIG REQUIRED{components})
add_executable(consumer main.cpp)
target_link_libraries(consumer PRIVATE {target})
target_compile_options(consumer PRIVATE -Wall -Wextra -Werror)
"""


def ran(*command: object, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, command)], cwd=folder, capture_output=True, text=True, check=False, timeout=300)


def succeeded(*command: object, folder: Path | None = None) -> str:
    found = ran(*command, folder=folder)
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return vendor_folder(tmp_path_factory)


def settings(vendor: Path) -> list[str]:
    return [f"-DTENSORRT_ROOT={vendor / 'tensorrt'}", f"-DCMAKE_MODULE_PATH={vendor}", "-DCMAKE_BUILD_TYPE=Debug"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prefix of an installation, which was moved after it was made."""

    def fill(folder: Path) -> None:
        succeeded("cmake", "-S", CPP, "-B", folder / "build", "-DMATCHRT_CLIENT=OFF")
        succeeded("cmake", "--install", folder / "build", "--prefix", folder / "made")
        (folder / "made").rename(folder / "moved")

    return once(shared_folder(tmp_path_factory) / "cpp-installed", fill) / "moved"


def consumer(folder: Path, version: str = "0.1", components: str = "", target: str = "matchrt::matchrt") -> Path:
    folder.mkdir(exist_ok=True)
    lines = CONSUMER.format(version=version, components=components and f" COMPONENTS {components}", target=target)
    (folder / "CMakeLists.txt").write_text(lines)
    (folder / "main.cpp").write_text(PROGRAM)
    return folder


def test_the_documented_line_takes_headers_that_give_warnings(vendor: Path, tmp_path: Path) -> None:
    build = tmp_path / "build"
    documented = ("cmake", "-S", CPP, "-B", build, "-DMATCHRT_CLIENT=OFF", settings(vendor)[0])
    succeeded(*documented, *settings(vendor)[1:], STRICT, "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON")
    succeeded("cmake", "--build", build)
    assert "error[manifest-missing]" in ran(build / "match_engine", "absent", "a", "b", 48, 64).stderr
    # Our own warnings are errors then, and the vendor's are where its folder is no system folder.
    (command,) = (shlex.split(entry["command"]) for entry in json.loads((build / "compile_commands.json").read_text()))
    (tmp_path / "careless.h").write_text("inline int careless(int unused) { return 0; }\n")
    for changed in (
        [*command, "-fsyntax-only", "-include", str(tmp_path / "careless.h")],
        [word.replace("-isystem", "-I") for word in (*command, "-fsyntax-only")],
    ):
        failed = ran(*changed, folder=build)
        assert failed.returncode != 0 and "unused parameter" in failed.stderr, failed.stderr


def test_find_package_gives_the_headers_with_tensorrt(vendor: Path, installed: Path, tmp_path: Path) -> None:
    source = consumer(tmp_path / "source", components="tensorrt tensorrt_rtx", target="matchrt::tensorrt")
    prefix = f"-DCMAKE_PREFIX_PATH={installed}"
    succeeded("cmake", "-S", source, "-B", tmp_path / "build", prefix, *settings(vendor))
    succeeded("cmake", "--build", tmp_path / "build")
    assert succeeded(tmp_path / "build" / "consumer", "absent") == f"{__version__} manifest-missing\n"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("matchrt 0.1 CONFIG REQUIRED", ""),
        (f"matchrt {__version__} EXACT CONFIG REQUIRED", ""),
        ("matchrt 9.0 CONFIG REQUIRED", "version"),
        ("matchrt CONFIG REQUIRED COMPONENTS tensorrt", "NvInfer.h is not found"),
        ("matchrt CONFIG REQUIRED OPTIONAL_COMPONENTS tensorrt", ""),
        ("matchrt CONFIG REQUIRED COMPONENTS opencl", "no component opencl"),
    ],
)
def test_find_package_says_what_is_missing(installed: Path, tmp_path: Path, asked: str, said: str) -> None:
    # Without a language, nothing is compiled; and this machine's own TensorRT is not looked for.
    own = "set(CMAKE_FIND_USE_CMAKE_SYSTEM_PATH FALSE)\nset(CMAKE_FIND_USE_SYSTEM_ENVIRONMENT_PATH FALSE)\n"
    lines = f"cmake_minimum_required(VERSION 3.22)\nproject(consumer NONE)\n{own}find_package({asked})\n"
    (tmp_path / "CMakeLists.txt").write_text(lines)
    found = ran("cmake", "-S", tmp_path, "-B", tmp_path / "build", f"-Dmatchrt_ROOT={installed}")
    assert (found.returncode == 0) == (said == "") and said in " ".join(found.stderr.split()), found.stderr


def test_pkg_config_gives_the_headers(vendor: Path, installed: Path, tmp_path: Path) -> None:
    if shutil.which("pkg-config") is None:
        pytest.skip("pkg-config is not installed")
    folder = installed / "share" / "pkgconfig"
    ask = ("env", f"PKG_CONFIG_PATH={folder}", "pkg-config")
    assert succeeded(*ask, "--modversion", "matchrt").strip() == __version__
    flags = shlex.split(succeeded(*ask, "--cflags", "matchrt"))
    (tmp_path / "main.cpp").write_text(PROGRAM)
    vendors = ("-isystem", vendor / "tensorrt" / "include", "-isystem", vendor / "tensorrt" / "common")
    succeeded(
        "g++", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", *flags, *vendors, tmp_path / "main.cpp"
    )
    assert any(Path(flag[2:], "matchrt", "engine.h").is_file() for flag in flags)


def test_the_headers_as_a_part_of_another_project(tmp_path: Path) -> None:
    """By add_subdirectory or FetchContent: without the client, and a manifest is read without NVIDIA's headers."""
    source = consumer(tmp_path)
    lines = (source / "CMakeLists.txt").read_text().splitlines()
    lines[3] = f"add_subdirectory({CPP} matchrt)"
    (source / "CMakeLists.txt").write_text("\n".join(lines))
    (source / "main.cpp").write_text("#include <matchrt/parse_manifest.h>\nint main() { matchrt::Manifest(); }\n")
    succeeded("cmake", "-S", source, "-B", tmp_path / "build", "-DCMAKE_BUILD_TYPE=Debug")
    succeeded("cmake", "--build", tmp_path / "build")


def test_the_header_with_cudas_own_headers(tmp_path: Path) -> None:
    """NVIDIA's real CUDA headers, where there are any, in place of the mock's."""
    include = Path("/usr/local/cuda/include")
    if not (include / "cuda_runtime_api.h").is_file():
        pytest.skip("CUDA's headers are not installed in /usr/local/cuda")
    command = [
        word.replace(str(MOCK / "common"), str(include)) for word in compile_command("tensorrt-11.1", "-fsyntax-only")
    ]
    succeeded(*command)
