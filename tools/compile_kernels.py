"""Compiles `src/matchrt/runtime/gpu/frames/frames.cu` to `frames.ptx`, which the package ships.

    python -m pip download --no-deps nvidia-cuda-nvrtc-cu12==12.4.127     # NVIDIA's compiler, which needs no GPU
    python tools/compile_kernels.py --nvrtc FOLDER_WITH_libnvrtc [--check]

The driver compiles the PTX for the GPU at hand, so nobody who runs matchrt needs a compiler. The oldest compiler that
knows what the source uses is the right one: PTX of CUDA 12.4 runs on drivers from 550 on. --check changes nothing, and
fails if the file is not what the source gives. Error: exit code 1, with what the compiler said.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from matchrt._util import atomic
from matchrt._util.digest import sha256_bytes

FRAMES = Path(__file__).resolve().parents[1] / "src" / "matchrt" / "runtime" / "gpu" / "frames"
SOURCE, PTX = FRAMES / "frames.cu", FRAMES / "frames.ptx"
# Turing, the oldest GPUs that TensorRT for RTX runs on. PTX of it runs on all later ones.
OPTIONS = (b"--gpu-architecture=compute_75", b"--std=c++17")
VERSION = (12, 4)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nvrtc", type=Path, help="the folder of libnvrtc.so.12; else where the linker finds it")
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    arguments = parser.parse_args()
    compiler = open_nvrtc(arguments.nvrtc)
    if version_of(compiler) != VERSION:
        print(f"this is NVRTC {version_of(compiler)}, and {VERSION} is wanted", file=sys.stderr)
        return 1
    made = shipped_text(SOURCE.read_bytes(), compiler)
    if not arguments.check:
        atomic.write_text(PTX, made)
        return 0
    if PTX.read_text(encoding="ascii") != made:
        print(f"{PTX.name} is not what {SOURCE.name} gives: run tools/compile_kernels.py", file=sys.stderr)
        return 1
    return 0


def open_nvrtc(folder: Path | None) -> ctypes.CDLL:
    """NVIDIA's run-time compiler from a folder, or from where the linker finds it. Error: OSError."""
    return ctypes.CDLL("libnvrtc.so.12" if folder is None else str(folder / "libnvrtc.so.12"))


def version_of(compiler: ctypes.CDLL) -> tuple[int, int]:
    """Its version, (major, minor)."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    compiler.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return major.value, minor.value


def shipped_text(source: bytes, compiler: ctypes.CDLL) -> str:
    """The PTX of a source with a first line that names the source's digest. Error: SystemExit with the log."""
    return f"// of frames.cu, SHA-256 {sha256_bytes(source)}\n{compile_ptx(source, compiler)}"


def compile_ptx(source: bytes, compiler: ctypes.CDLL) -> str:
    """CUDA C to PTX. Error: SystemExit with the compiler's log."""
    program = ctypes.c_void_p()
    _check(compiler.nvrtcCreateProgram(ctypes.byref(program), source, b"frames.cu", 0, None, None), "a program")
    options = (ctypes.c_char_p * len(OPTIONS))(*OPTIONS)
    failed = compiler.nvrtcCompileProgram(program, len(OPTIONS), options)
    log = _text(compiler.nvrtcGetProgramLogSize, compiler.nvrtcGetProgramLog, program)
    if failed:
        raise SystemExit(log)
    return _text(compiler.nvrtcGetPTXSize, compiler.nvrtcGetPTX, program)


def _text(size_of: Callable[..., int], fetch: Callable[..., int], program: Any) -> str:
    size = ctypes.c_size_t()
    _check(size_of(program, ctypes.byref(size)), "a size")
    buffer = ctypes.create_string_buffer(size.value)
    _check(fetch(program, buffer), "a text")
    return buffer.value.decode("ascii")


def _check(code: int, what: str) -> None:
    if code:
        raise SystemExit(f"NVRTC gave no {what.removeprefix('a ')}: error {code}")


if __name__ == "__main__":
    raise SystemExit(main())
