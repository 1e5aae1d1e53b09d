"""The engine that others are made from."""

from __future__ import annotations

from matchrt.errors import MatchRTError
from matchrt.runtime.backends import DEFAULT_BACKEND
from matchrt.runtime.engine_file import EngineFile


def require_source(file: EngineFile) -> None:
    """Raises `build-source` where other engines cannot be made from this one."""
    manifest = file.manifest
    if manifest.backend != DEFAULT_BACKEND or manifest.precision != "fp32":
        raise MatchRTError(
            "build-source",
            f"'{file.path}' is a {manifest.precision} engine for backend {manifest.backend}; engines are made from "
            f"fp32 ones for backend {DEFAULT_BACKEND}.",
            f"Build that first: matchrt build {manifest.model}.",
        )
