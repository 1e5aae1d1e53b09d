"""The table of backends: their names, and the module and class of each.

A class is named as package metadata names entry points, `module:Class`, and is imported when somebody asks for the
backend (`matchrt.runtime.backend.get_backend`). So the table costs nothing to import, and no backend's packages are
needed before it is used. The runtime depends on none of the classes: they are in `matchrt.engines`, a room above it,
which also knows how to build.

A new backend is a class that derives from `matchrt.runtime.backend.Backend`, and a line here; one that runs the engines
of another backend has a second line.
"""

from __future__ import annotations

from matchrt.errors import MatchRTError

# Its engines are the ONNX graphs that all others are made from; the bundled engine is one of them.
DEFAULT_BACKEND = "onnxruntime"
BACKENDS: dict[str, str] = {
    DEFAULT_BACKEND: "matchrt.engines.onnxruntime:OnnxRuntimeBackend",
    "tensorrt": "matchrt.engines.tensorrt:TensorRTBackend",
    "tensorrt_rtx": "matchrt.engines.tensorrt:TensorRTRTXBackend",
    "openvino": "matchrt.engines.openvino:OpenVinoBackend",
    "jax": "matchrt.engines.jax:JaxBackend",
}
# Backends that have no engines of their own, and the backend whose engines they run.
_RUNS_ENGINES_OF: dict[str, str] = {"openvino": DEFAULT_BACKEND}


def built_for(backend: str | None) -> str | None:
    """The backend that those engines are built for which `backend` runs; None for any. Raises nothing."""
    return None if backend is None else _RUNS_ENGINES_OF.get(backend, backend)


def backend_names() -> tuple[str, ...]:
    """The names of all backends, as in `--backend`, the default one first. Raises nothing."""
    return tuple(BACKENDS)


def require_backend(name: str | None) -> None:
    """Raises `backend-unknown` if there is no backend of that name; None stands for any backend."""
    if name is not None and name not in BACKENDS:
        raise MatchRTError("backend-unknown", f"There is no backend '{name}'.", f"Known: {', '.join(backend_names())}.")
