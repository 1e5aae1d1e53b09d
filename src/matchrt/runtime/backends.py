"""The table of backends: which there are, and where the class of each lies.

A class is named as package metadata names entry points, `module:Class`, and is imported when the backend is asked for
(`matchrt.runtime.backend.get_backend`). So the table costs nothing to import, no backend's packages are needed before
it is used, and the runtime depends on none of the classes: they stand above it, in `matchrt.engines`, where building
is known too.

A new backend is a class, derived from `matchrt.runtime.backend.Backend`, and a line here.
"""

from __future__ import annotations

from matchrt.errors import MatchRTError

# Its engines are the ONNX graphs that all others are made from; the bundled engine is one of them.
DEFAULT_BACKEND = "onnxruntime"
BACKENDS: dict[str, str] = {
    DEFAULT_BACKEND: "matchrt.engines.onnxruntime:OnnxRuntimeBackend",
    "tensorrt": "matchrt.engines.tensorrt:TensorRTBackend",
    "tensorrt_rtx": "matchrt.engines.tensorrt:TensorRTRTXBackend",
    "jax": "matchrt.engines.jax:JaxBackend",
}


def backend_names() -> tuple[str, ...]:
    """Every backend's name, as in `--backend`, the default one first."""
    return tuple(BACKENDS)


def require_backend(name: str | None) -> None:
    """Raises `backend-unknown` for a name that is no backend; None is any."""
    if name is not None and name not in BACKENDS:
        raise MatchRTError("backend-unknown", f"There is no backend '{name}'.", f"Known: {', '.join(backend_names())}.")
