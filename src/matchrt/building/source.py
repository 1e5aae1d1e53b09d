"""The engine that others are made from: where it is, and the check that it can serve."""

from __future__ import annotations

from pathlib import Path

from matchrt._util.reading import is_regular
from matchrt.errors import MatchRTError
from matchrt.families.registry import model_specs
from matchrt.manifest import EngineManifest, manifest_path
from matchrt.runtime.backends import DEFAULT_BACKEND
from matchrt.runtime.engine_file import EngineFile, engine_path
from matchrt.store import EngineStore


def require_source(file: EngineFile) -> None:
    """Raises `build-source` if other engines cannot be made from this one: it must be an fp32 ONNX engine."""
    manifest = file.manifest
    if not _is_source(manifest):
        raise MatchRTError(
            "build-source",
            f"'{file.path}' is a {manifest.precision} engine for backend {manifest.backend}; other engines are made "
            f"from fp32 engines for backend {DEFAULT_BACKEND}.",
            f"Build the fp32 engine first: matchrt build {manifest.model}.",
        )


def source_path(model: str, store: EngineStore) -> Path | None:
    """The file of the engine that a build starts from; None if `model` names a model, which is built from its weights.

    model: a model's name, which comes first; else an engine file; else the name of a model in the store that this
        matchrt does not know, such as one that was built from somebody's engine.
    Errors: those of `engine_path`.
    """
    if model in model_specs():
        return None
    path = Path(model)
    if path.suffix.lower() == ".onnx" or (path.name and is_regular(manifest_path(path))):
        return engine_path(model, store)
    stored = [engine for engine in store.engines(model) if _is_source(engine.manifest)]
    if len(stored) == 1:
        return stored[0].path
    return engine_path(model, store, DEFAULT_BACKEND) if stored else None


def _is_source(manifest: EngineManifest) -> bool:
    return (manifest.backend, manifest.precision) == (DEFAULT_BACKEND, "fp32")
