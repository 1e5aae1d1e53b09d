"""The C++ header, compiled for tests against the mock of each version of TensorRT (tests/support/tensorrt_mock)."""

from __future__ import annotations

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.workers import once, shared_folder

ROOT = Path(__file__).resolve().parents[2]
CPP = ROOT / "examples" / "cpp"
MOCK = ROOT / "tests" / "support" / "tensorrt_mock"
CHECK = ROOT / "tests" / "support" / "cpp" / "header_check.cpp"
WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Wold-style-cast", "-Wnon-virtual-dtor", "-Werror")
# The versions of the mock whose programs run, the oldest and the newest interface, each with its sanitizers.
SANITIZERS = {"tensorrt-8.6": "address", "tensorrt-11.1": "address,undefined"}
RUN = tuple(SANITIZERS)
NEWEST = RUN[-1]
# Those that are only compiled.
COMPILED = ("tensorrt-10.9", "tensorrt_rtx-1.6")


@dataclass(frozen=True)
class Program:
    """A compiled header_check.cpp. version: of the mock, a name of its folder."""

    path: Path
    version: str

    @property
    def backend_version(self) -> str:
        """What the mock says its version is."""
        return {"tensorrt-8.6": "8.6.1.6", NEWEST: "11.1.0.106"}[self.version]

    def run(self, *words: object) -> subprocess.CompletedProcess[str]:
        """Runs it. A report of a sanitizer fails the test, whatever the test expects."""
        command = [str(self.path), *map(str, words)]
        ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert "Sanitizer" not in ran.stderr and "runtime error" not in ran.stderr, ran.stderr
        assert ran.returncode in (0, 1), ran.stderr
        return ran

    def said(self, *words: object) -> str:
        """What it prints when it succeeds."""
        ran = self.run(*words)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    def match(self, engine: Path, *words: object) -> subprocess.CompletedProcess[str]:
        """The program match_engine: words are RAW0 RAW1 HEIGHT WIDTH."""
        return self.run("match", engine, *words)


def compiler() -> str:
    """g++, or the test is skipped."""
    found = shutil.which("g++")
    if found is None:
        pytest.skip("g++ is not installed")
    return found


def compile_command(version: str, *flags: str) -> list[str]:
    """The command that compiles header_check.cpp with the mock's folder of that name as a system folder."""
    own = [f"-I{CPP / 'include'}", f"-I{CPP}"]
    vendors = ["-isystem", str(MOCK / version), "-isystem", str(MOCK / "common")]
    return [compiler(), "-std=c++17", "-O0", *WARNINGS, *flags, *own, *vendors, str(CHECK)]


def programs(factory: pytest.TempPathFactory) -> dict[str, Program]:
    """A program for each version, compiled once a run for all workers, all at the same time."""
    compiler()

    def build(folder: Path, version: str) -> subprocess.CompletedProcess[str]:
        flags = ["-fsyntax-only"]
        if version in SANITIZERS:
            flags = [f"-fsanitize={SANITIZERS[version]}", "-fno-sanitize-recover=all", "-o", str(folder / version)]
        return subprocess.run(compile_command(version, *flags), capture_output=True, text=True, check=False)

    def fill(folder: Path) -> None:
        with ThreadPoolExecutor() as pool:
            for ran in pool.map(lambda version: build(folder, version), (*RUN, *COMPILED)):
                assert ran.returncode == 0, ran.stderr

    folder = once(shared_folder(factory) / "cpp-programs", fill)
    return {version: Program(folder / version, version) for version in RUN}


def vendor_folder(factory: pytest.TempPathFactory) -> Path:
    """A folder like TensorRT's, with libraries that hold nothing, and what CMake needs to find CUDA beside it."""

    def fill(folder: Path) -> None:
        root = folder / "tensorrt"
        (root / "lib").mkdir(parents=True)
        shutil.copytree(MOCK / "tensorrt-10.9", root / "include")
        shutil.copytree(MOCK / "common", root / "common")
        (folder / "empty.cpp").write_text("")
        for name in ("nvinfer", "tensorrt_rtx"):
            library = root / "lib" / f"lib{name}.so"
            subprocess.run([compiler(), "-shared", "-o", library, folder / "empty.cpp"], check=True)
        (folder / "FindCUDAToolkit.cmake").write_text(
            "set(CUDAToolkit_FOUND TRUE)\nadd_library(CUDA::cudart INTERFACE IMPORTED)\n"
            f"target_include_directories(CUDA::cudart INTERFACE {root / 'common'})\n"
        )

    return once(shared_folder(factory) / "cpp-vendor", fill)
