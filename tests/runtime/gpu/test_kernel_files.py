"""The kernels that the package ships are those of their source."""

from __future__ import annotations

import importlib.util
import os
import re
from importlib.resources import files
from pathlib import Path

import pytest

from matchrt._util.digest import sha256_bytes
from matchrt.runtime.gpu.frames.device_code import KERNELS, ptx_text
from tools import compile_kernels

SOURCE = (files("matchrt.runtime.gpu.frames") / "frames.cu").read_bytes()


def nvrtc_folder() -> Path | None:
    """Where libnvrtc.so.12 is: MATCHRT_NVRTC, or NVIDIA's package; None if it is not here."""
    if given := os.environ.get("MATCHRT_NVRTC"):
        return Path(given)
    found = importlib.util.find_spec("nvidia")
    roots = [] if found is None else list(found.submodule_search_locations or [])
    return next((path.parent for root in roots for path in Path(root).glob("cuda_nvrtc/lib/libnvrtc.so.12")), None)


def test_the_assembly_names_its_source() -> None:
    first, *rest = ptx_text().decode("ascii").splitlines()
    assert first == f"// of frames.cu, SHA-256 {sha256_bytes(SOURCE)}", "run tools/compile_kernels.py"
    text = "\n".join(rest)
    assert ".target sm_75" in text and ".version 8.4" in text
    assert set(re.findall(r"\.visible \.entry (\w+)\(", text)) == set(KERNELS)


def test_the_source_is_ascii_and_has_unix_lines() -> None:
    """Its digest is the same in every checkout."""
    assert SOURCE.isascii() and b"\r" not in SOURCE


def test_compiling_again_gives_the_same() -> None:
    folder = nvrtc_folder()
    if folder is None:
        pytest.skip("NVRTC 12.4 is not here (MATCHRT_NVRTC names its folder)")
    compiler = compile_kernels.open_nvrtc(folder)
    if compile_kernels.version_of(compiler) != compile_kernels.VERSION:
        pytest.skip(f"this is NVRTC {compile_kernels.version_of(compiler)}")
    assert compile_kernels.shipped_text(SOURCE, compiler) == ptx_text().decode("ascii")
    with pytest.raises(SystemExit, match="error"):
        compile_kernels.compile_ptx(b"what", compiler)
