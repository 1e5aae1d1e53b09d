"""What TensorRT-RTX itself says about engines, on a machine without a GPU."""

from __future__ import annotations

import importlib
from pathlib import Path


def check_header(engine: Path) -> None:
    """The vendor's own reader takes the bytes; on a machine without GPU it says what is missing, and no more."""
    trt = importlib.import_module("tensorrt_rtx")
    kinds = trt.EngineInvalidityDiagnostics
    runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
    validity, diagnostics = runtime.get_engine_validity(engine.read_bytes())
    wrong = int(kinds.MALFORMED_ENGINE) | int(kinds.VERSION_MISMATCH)
    assert validity != trt.EngineValidity.INVALID or not int(diagnostics) & wrong
