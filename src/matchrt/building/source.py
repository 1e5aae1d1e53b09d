"""The check that an engine can serve as the source of others."""

from __future__ import annotations

from matchrt.errors import MatchRTError
from matchrt.runtime.backends import DEFAULT_BACKEND
from matchrt.runtime.engine_file import EngineFile


def require_source(file: EngineFile) -> None:
    """Raises `build-source` if other engines cannot be made from this one: it must be an fp32 ONNX engine."""
    manifest = file.manifest
    if manifest.backend != DEFAULT_BACKEND or manifest.precision != "fp32":
        raise MatchRTError(
            "build-source",
            f"'{file.path}' is a {manifest.precision} engine for backend {manifest.backend}; other engines are made "
            f"from fp32 engines for backend {DEFAULT_BACKEND}.",
            f"Build the fp32 engine first: matchrt build {manifest.model}.",
        )
