"""Reading an engine from disk. An engine is never read without its manifest, or if the two do not fit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from matchrt._util.reading import is_regular, read_regular
from matchrt._util.text import shortened
from matchrt.errors import MatchRTError
from matchrt.manifest import EngineManifest, manifest_path, read_manifest
from matchrt.runtime.backends import DEFAULT_BACKEND, built_for, require_backend
from matchrt.runtime.bundled import BUNDLED, bundled_path
from matchrt.runtime.engine_checks import (
    require_contract,
    require_digest,
    require_known_backend,
    require_self_contained,
    require_wanted_backend,
)
from matchrt.store import EngineStore, open_store


@dataclass(frozen=True)
class EngineFile:
    """Verified engine bytes and their manifest.

    path: the file that was read.
    data: its bytes, whose digest is the manifest's.
    manifest: what the engine is.
    """

    path: Path
    data: bytes
    manifest: EngineManifest


def engine_path(model_or_engine: str | Path, store: EngineStore | None = None, backend: str | None = None) -> Path:
    """The file of an engine, found by its path, a bundled model's name, or the name of a model with one stored engine.

    store: where engines are looked for; None for the default store.
    backend: that runs the engine, if several engines have that name; None for any (a bundled model's is the default
        one).
    Errors: backend-unknown, engine-missing, engine-ambiguous (the store has several engines of the model; the message
    lists them).
    """
    require_backend(backend)
    name, path, kind = str(model_or_engine), Path(model_or_engine), built_for(backend)
    # A file may have a bundled model's name; then a text means the model, and a Path the file.
    named = not (isinstance(model_or_engine, Path) and is_regular(path))
    if named and name in BUNDLED and kind in (None, DEFAULT_BACKEND):
        return bundled_path(name)
    if is_regular(path):
        return path
    store = store or open_store()
    stored = [engine for engine in store.engines(name) if kind in (None, engine.manifest.backend)]
    if len(stored) == 1:
        return stored[0].path
    if stored:
        raise MatchRTError(
            "engine-ambiguous",
            f"The store has {len(stored)} engines of '{name}': {', '.join(str(engine.path) for engine in stored)}.",
            "Name the file of the one that you mean, or its backend if their backends differ (--backend).",
        )
    raise _missing(name, store, kind)


def _missing(name: str, store: EngineStore, backend: str | None) -> MatchRTError:
    name = shortened(name)
    if backend is None:
        return MatchRTError(
            "engine-missing",
            f"'{name}' is neither an engine file, nor a bundled model ({', '.join(BUNDLED)}), nor in '{store.root}'.",
            "Build one with `matchrt build MODEL --checkpoint FILE`; `matchrt engines` lists what is built.",
        )
    model, checkpoint = (name, "") if name in BUNDLED else ("MODEL", " --checkpoint FILE")
    return MatchRTError(
        "engine-missing",
        f"'{name}' is not an engine file, and '{store.root}' has no engine of it for backend {backend}.",
        f"Build one: matchrt build {model}{checkpoint} --backend {backend}; `matchrt engines` lists what is built.",
    )


def read_engine(
    model_or_engine: str | Path, store: EngineStore | None = None, backend: str | None = None
) -> EngineFile:
    """Reads and verifies an engine. Arguments are those of `engine_path`.

    If `backend` runs engines of another one, the manifest that is returned names `backend`, which then runs the engine.

    Errors: those of `engine_path`, manifest-*, engine-backend (the engine is for another backend than `backend`, or for
    an unknown one), engine-digest (the bytes do not fit the manifest), engine-external and engine-rejected (an ONNX
    engine keeps tensors in other files, or is no ONNX graph).
    """
    path = engine_path(model_or_engine, store, backend)
    manifest = read_manifest(manifest_path(path))
    require_wanted_backend(manifest, path, built_for(backend))
    require_known_backend(manifest, path)
    require_contract(manifest, path)
    try:
        data = read_regular(path)
    except OSError as error:
        raise MatchRTError(
            "engine-missing",
            f"'{path}' cannot be read: {error.strerror}.",
            f"Build it again: matchrt build {manifest.model}.",
        ) from error
    require_digest(manifest, path, data)
    if built_for(manifest.backend) == DEFAULT_BACKEND:  # whose engines are ONNX graphs
        require_self_contained(manifest, path, data)
    return EngineFile(path, data, replace(manifest, backend=backend or manifest.backend))
