"""Reading an engine from disk: never without its manifest, never when the two do not fit."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from matchrt._util.digest import sha256_bytes
from matchrt.errors import MatchRTError
from matchrt.manifest import EngineManifest, manifest_path, read_manifest
from matchrt.nvidia.modules import BACKENDS as NVIDIA
from matchrt.store import EngineStore, open_store

BUNDLED = ("loftr-lite",)
BACKENDS = ("onnxruntime", *NVIDIA)
# Runs LoFTR's Flax model from weights, without an engine file: `matchrt.flax.session`.
JAX = "jax"


@dataclass(frozen=True)
class EngineFile:
    """Verified engine bytes and their manifest."""

    path: Path
    data: bytes
    manifest: EngineManifest


def engine_path(model_or_engine: str | Path, store: EngineStore | None = None, backend: str | None = None) -> Path:
    """The file of an engine given by path, by a bundled model's name, or by the name of a model with one stored engine.

    backend: of the engine, among those of that name; None for any (a bundled model's is onnxruntime).
    Errors: backend-unknown, engine-missing, engine-ambiguous (the store has several engines of the model; the message
    lists them).
    """
    require_backend(backend)
    name, path = str(model_or_engine), Path(model_or_engine)
    if name in BUNDLED and backend in (None, "onnxruntime"):
        return Path(str(resources.files("matchrt") / "assets" / f"{name}.onnx"))
    if path.is_file():
        return path
    store = store or open_store()
    stored = [engine for engine in store.engines(name) if backend in (None, engine.manifest.backend)]
    if len(stored) == 1:
        return stored[0].path
    if stored:
        raise MatchRTError(
            "engine-ambiguous",
            f"The store has {len(stored)} engines of '{name}': {', '.join(str(engine.path) for engine in stored)}.",
            "Name the file of the one that you mean, or its backend where that tells them apart (--backend).",
        )
    raise _missing(name, store, backend)


def require_backend(backend: str | None) -> None:
    """Raises `backend-unknown` for a name that is no backend; None is any."""
    known = (*BACKENDS, JAX)
    if backend not in (None, *known):
        raise MatchRTError("backend-unknown", f"There is no backend '{backend}'.", f"Known: {', '.join(known)}.")


def _missing(name: str, store: EngineStore, backend: str | None) -> MatchRTError:
    if backend is None:
        return MatchRTError(
            "engine-missing",
            f"'{name}' is neither an engine file, nor a bundled model ({', '.join(BUNDLED)}), nor in '{store.root}'.",
            "Build one with `matchrt build MODEL --checkpoint FILE`; `matchrt engines` lists what is built.",
        )
    model, checkpoint = (name, "") if name in BUNDLED else ("MODEL", " --checkpoint FILE")
    return MatchRTError(
        "engine-missing",
        f"'{name}' is neither an engine file, nor has '{store.root}' an engine of it for backend {backend}.",
        f"Build one: matchrt build {model}{checkpoint} --backend {backend}; `matchrt engines` lists what is built.",
    )


def read_engine(
    model_or_engine: str | Path, store: EngineStore | None = None, backend: str | None = None
) -> EngineFile:
    """Reads and verifies an engine.

    backend: refuse an engine of another one. Errors: those of `engine_path`, manifest-*, engine-backend,
    engine-digest (bytes do not fit the manifest).
    """
    path = engine_path(model_or_engine, store, backend)
    manifest = read_manifest(manifest_path(path))
    if backend not in (None, manifest.backend):
        raise MatchRTError(
            "engine-backend",
            f"'{path}' is for backend {manifest.backend}, not {backend}.",
            "Leave --backend out, or name an engine of that backend.",
        )
    rebuild = f"Build it again: matchrt build {manifest.model}."
    try:
        data = path.read_bytes()
    except OSError as error:
        raise MatchRTError("engine-missing", f"'{path}' cannot be read: {error.strerror}.", rebuild) from error
    if len(data) != manifest.engine_bytes:
        message = f"'{path}' has {len(data)} bytes; its manifest says {manifest.engine_bytes}."
        raise MatchRTError("engine-digest", message, rebuild)
    if sha256_bytes(data) != manifest.engine_sha256:
        raise MatchRTError("engine-digest", f"'{path}' is not the file that its manifest describes.", rebuild)
    if manifest.backend not in BACKENDS:
        raise MatchRTError(
            "engine-backend",
            f"'{path}' is for backend '{manifest.backend}'; this matchrt runs {', '.join(BACKENDS)}.",
            rebuild,
        )
    return EngineFile(path, data, manifest)
