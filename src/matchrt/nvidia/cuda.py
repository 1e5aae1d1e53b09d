"""CUDA's runtime and driver through cuda-python, with a call that turns error codes into named errors."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import Any

from matchrt.errors import InternalError, MatchRTError, missing_package

EXTRA = "rtx"


def cuda_runtime() -> Any:
    """Returns the module `cuda.bindings.runtime`. Error: package-missing."""
    # The import statement takes a microsecond, and a run of an engine comes here a dozen times. A package has a module
    # as its attribute once that is imported.
    known = getattr(sys.modules.get("cuda.bindings"), "runtime", None)
    if known is not None:
        return known
    try:
        from cuda.bindings import runtime
    except ImportError as error:
        raise missing_package("cuda-python", EXTRA, "Running on an NVIDIA GPU") from error
    return runtime


def cuda_driver() -> Any:
    """Returns the module `cuda.bindings.driver`. Error: package-missing."""
    try:
        from cuda.bindings import driver
    except ImportError as error:
        raise missing_package("cuda-python", EXTRA, "Running on an NVIDIA GPU") from error
    return driver


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function of CUDA's runtime or driver and returns its results without the error code.

    Errors: device-missing (no driver, or no GPU), out-of-memory; cuda-failed with CUDA's name for what happened.
    """
    code, *values = function(*arguments)
    if int(code) != 0:
        raise _error(code, getattr(function, "__name__", "a CUDA call"))
    if not values:
        return None
    return values[0] if len(values) == 1 else tuple(values)


def quietly(free: Callable[..., Any], what: Any) -> None:
    """Frees a resource and raises nothing.

    When the interpreter ends, the driver may be gone already, and the resource with it.
    """
    with contextlib.suppress(Exception):
        free(what)


_NO_DEVICE = (
    "cudaErrorNoDevice",
    "cudaErrorInsufficientDriver",
    "cudaErrorSystemDriverMismatch",
    "cudaErrorInitializationError",
    "cudaErrorStubLibrary",
    "cudaErrorCompatNotSupportedOnDevice",
)


def _error(code: Any, function: str) -> MatchRTError:
    name = getattr(code, "name", str(code))
    if name in _NO_DEVICE:
        return MatchRTError(
            "device-missing",
            f"There is no usable NVIDIA GPU here ({name}).",
            "Run on a machine with an NVIDIA GPU and its driver (`matchrt doctor` says what is missing), "
            "or use an engine for backend onnxruntime.",
        )
    if name == "cudaErrorMemoryAllocation":
        return MatchRTError(
            "out-of-memory",
            "The GPU has not enough free memory.",
            "Close other programs on the GPU, or build an engine for smaller images.",
        )
    return InternalError(
        "cuda-failed", f"{function} failed: {name}.", "Run `matchrt doctor`; report it with its output."
    )
