"""Finds the TensorRT modules that are installed, and the dialect for each."""

from __future__ import annotations

import importlib
from typing import Any

from matchrt.errors import MatchRTError, missing_package
from matchrt.nvidia.dialect import Dialect

# backend -> the extra that installs its module, which has the backend's name
BACKENDS = {"tensorrt": "tensorrt", "tensorrt_rtx": "rtx"}
_OLDEST_RTX = (1, 4)
# From this version on, a context takes its scratch memory together with its size.
_OLDEST_TENSORRT = (10, 1)


def open_dialect(backend: str) -> Dialect:
    """The dialect of the installed module. Errors: package-missing, package-broken, package-version."""
    return make_dialect(backend, _load(backend))


def make_dialect(backend: str, module: Any) -> Dialect:
    """The dialect for a module that is already imported. Error: package-version."""
    version = tuple(int(part) for part in module.__version__.split(".")[:2])
    if backend == "tensorrt_rtx":
        from matchrt.nvidia.rtx import TensorRTRTX

        if version >= _OLDEST_RTX:
            return TensorRTRTX(module)
        raise _too_old(backend, module, "1.4 or later")
    if _OLDEST_TENSORRT <= version < (11,):
        from matchrt.nvidia.tensorrt10 import TensorRT10

        return TensorRT10(module)
    if version[0] == 11:
        from matchrt.nvidia.tensorrt11 import TensorRT11

        return TensorRT11(module)
    raise _too_old(backend, module, "10.1 to 11")


def _load(backend: str) -> Any:
    extra = BACKENDS[backend]
    try:
        return importlib.import_module(backend)
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == backend:
            raise missing_package(backend, extra, f"The backend {backend}") from error
        raise MatchRTError(
            "package-broken",
            f"The package '{backend}' is installed but does not load: {error}.",
            f"Install it again, with its libraries: pip install --force-reinstall 'matchrt[{extra}]'.",
        ) from error


def _too_old(backend: str, module: Any, wanted: str) -> MatchRTError:
    return MatchRTError(
        "package-version",
        f"{backend} {module.__version__} is not a version that matchrt knows; it knows {wanted}.",
        f"Install another version: pip install 'matchrt[{BACKENDS[backend]}]'.",
    )
