"""The kernels of `frames.cu`, compiled for the CPU: the same source, run thread by thread.

So tests without a GPU see the arithmetic, the layout of the structures and every index of what runs on one. NVIDIA's
compiler and the GPU are left out: tests marked `gpu` compare with them.
"""

from __future__ import annotations

import ctypes
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src" / "matchrt" / "runtime" / "gpu" / "frames" / "frames.cu"
KERNELS = {"first_pass": "Jobs", "second_pass": "Jobs", "to_pixels": "Points"}

_AROUND = """
#include <math.h>
#define __global__
#define __device__
#define __grid_constant__
struct Dimension { unsigned x, y, z; };
static thread_local Dimension blockIdx, blockDim, threadIdx;
static float __fadd_rn(float a, float b) { return a + b; }
static float __fmul_rn(float a, float b) { return a * b; }
static double __dadd_rn(double a, double b) { return a + b; }
static double __dsub_rn(double a, double b) { return a - b; }
static double __dmul_rn(double a, double b) { return a * b; }
#include "frames.cu"
template <class Given> static void run(void (*kernel)(Given), const void *given, const unsigned *size) {
    blockDim = {size[3], size[4], 1};
    for (blockIdx.z = 0; blockIdx.z < size[2]; ++blockIdx.z)
    for (blockIdx.y = 0; blockIdx.y < size[1]; ++blockIdx.y)
    for (blockIdx.x = 0; blockIdx.x < size[0]; ++blockIdx.x)
    for (threadIdx.y = 0; threadIdx.y < size[4]; ++threadIdx.y)
    for (threadIdx.x = 0; threadIdx.x < size[3]; ++threadIdx.x)
        kernel(*static_cast<const Given *>(given));
}
"""
_EACH = """
extern "C" void run_{name}(const void *given, const unsigned *size) {{ run<const {type}>({name}, given, size); }}
extern "C" unsigned size_{name}() {{ return sizeof({type}); }}
"""


@functools.lru_cache(maxsize=1)
def _library() -> ctypes.CDLL:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("there is no g++, which compiles the kernels for the CPU")
    folder = Path(tempfile.mkdtemp(prefix="matchrt-kernels-"))
    text = _AROUND + "".join(_EACH.format(name=name, type=kind) for name, kind in KERNELS.items())
    (folder / "kernels.cpp").write_text(text)
    command = [compiler, "-O2", "-std=c++17", "-ffp-contract=off", "-shared", "-fPIC", f"-I{SOURCE.parent}"]
    try:
        subprocess.run([*command, "-o", folder / "kernels.so", folder / "kernels.cpp"], check=True, timeout=120)
        return ctypes.CDLL(str(folder / "kernels.so"))
    finally:
        shutil.rmtree(folder)


def run_kernel(name: str, given: bytes, grid: tuple[int, int, int], block: tuple[int, int]) -> None:
    """Runs a kernel on memory of the host. given: its structure."""
    sizes = (ctypes.c_uint * 5)(*grid, *block)
    getattr(_library(), f"run_{name}")(given, sizes)


def given_size(name: str) -> int:
    """The size of a kernel's structure, as the compiler lays it out."""
    return int(getattr(_library(), f"size_{name}")())
