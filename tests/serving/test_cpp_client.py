"""The C++ client, built with the compiler and gRPC of this machine, against the real service."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PILImage
from support.serving import ROOT, Running

from matchrt.runtime.bundled import DEFAULT_MODEL
from matchrt.runtime.matches import Matches

NEEDED = ("cmake", "g++", "protoc", "grpc_cpp_plugin")
SETTINGS = ("-DCMAKE_BUILD_TYPE=Debug", "-DMATCHRT_WERROR=ON")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if missing := [name for name in NEEDED if shutil.which(name) is None]:
        pytest.skip(
            f"{', '.join(missing)} not installed (Debian: apt-get install cmake g++ libgrpc++-dev libprotobuf-dev "
            "protobuf-compiler-grpc)"
        )
    if not any(Path("/usr/include", name).is_dir() for name in ("grpcpp",)):
        pytest.skip("the headers of gRPC for C++ are not installed (Debian: apt-get install libgrpc++-dev)")
    folder = tmp_path_factory.mktemp("cpp")
    for command in (
        ["cmake", "-S", str(ROOT / "examples" / "cpp"), "-B", str(folder), *SETTINGS],
        ["cmake", "--build", str(folder), "-j2"],
    ):
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr
    return folder / "matchrt_client"


def ask(program: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Asks for the model that the tests' service has; of two options the last counts."""
    words = [program, "--model", "loftr-lite", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)


def check(printed: str, expected: Matches) -> None:
    rows = np.array([line.split() for line in printed.splitlines()], np.float32)
    assert np.array_equal(rows[:, :2], expected.keypoints0)
    assert np.array_equal(rows[:, 2:4], expected.keypoints1)
    assert np.array_equal(rows[:, 4], expected.scores)


def test_the_client_asks_for_what_the_service_has_by_default() -> None:
    header = (ROOT / "examples" / "cpp" / "client" / "client.h").read_text(encoding="utf-8")
    assert re.findall(r'string model = "(.*)";', header) == [DEFAULT_MODEL]


def test_files_and_pixels(program: Path, server: Running, pair: Any, tmp_path: Path) -> None:
    address = f"127.0.0.1:{server.grpc}"
    files = ask(program, address, *pair.paths)
    assert files.returncode == 0, files.stderr
    check(files.stdout, pair.expected)
    raw = []
    for path in pair.paths:
        raw.append(tmp_path / f"{path.stem}.raw")
        raw[-1].write_bytes(np.array(PILImage.open(path)).tobytes())
    pixels = ask(program, address, *raw, "--raw", 120, 160, 1, "--min-score", 0.9)
    assert pixels.returncode == 0, pixels.stderr
    check(pixels.stdout, pair.expected.filter(0.9))


def test_what_goes_wrong_is_said(program: Path, server: Running, pair: Any, tmp_path: Path) -> None:
    address = f"127.0.0.1:{server.grpc}"
    text = tmp_path / "text.jpg"
    text.write_text("no image at all")
    for arguments, code, words in (
        ((address, text, pair.paths[1]), 1, "error[3]"),  # INVALID_ARGUMENT
        ((address, *pair.paths, "--model", "other"), 1, "error[5]"),  # NOT_FOUND
        ((address, *pair.paths, "--raw", 7, 7, 1), 2, "HEIGHT"),
        ((address, pair.paths[0]), 2, "IMAGE1"),
    ):
        ran = ask(program, *arguments)
        assert ran.returncode == code and words in ran.stderr and not ran.stdout, ran.stderr
