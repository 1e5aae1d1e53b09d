"""Reading an engine from disk: never without its manifest, never when the two do not fit."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from matchrt.digest import sha256_bytes
from matchrt.errors import MatchRTError
from matchrt.manifest import EngineManifest, manifest_path, read_manifest
from matchrt.nvidia.modules import FLAVORS as NVIDIA
from matchrt.store import EngineStore, open_store

BUNDLED = ("loftr-lite",)
FLAVORS = ("onnxruntime", *NVIDIA)
# Runs LoFTR's Flax twin from weights, without an engine file: `matchrt.twin.session`.
JAX = "jax"


@dataclass(frozen=True)
class EngineFile:
    """Verified engine bytes and their manifest."""

    path: Path
    data: bytes
    manifest: EngineManifest


def engine_path(model_or_engine: str | Path, store: EngineStore | None = None, flavor: str | None = None) -> Path:
    """The file of an engine given by path, by a bundled model's name, or by the name of a model with one stored engine.

    flavor: of the engine, among those of that name; None for any (a bundled model's is onnxruntime).
    Errors: flavor-unknown, engine-missing, engine-ambiguous (the store has several engines of the model; the message
    lists them).
    """
    require_flavor(flavor)
    name, path = str(model_or_engine), Path(model_or_engine)
    if name in BUNDLED and flavor in (None, "onnxruntime"):
        return Path(str(resources.files("matchrt") / "assets" / f"{name}.onnx"))
    if path.is_file():
        return path
    store = store or open_store()
    stored = [engine for engine in store.engines(name) if flavor in (None, engine.manifest.flavor)]
    if len(stored) == 1:
        return stored[0].path
    if stored:
        raise MatchRTError(
            "engine-ambiguous",
            f"The store has {len(stored)} engines of '{name}': {', '.join(str(engine.path) for engine in stored)}.",
            "Name the file of the one that you mean, or its flavour where that tells them apart (--flavor).",
        )
    raise _missing(name, store, flavor)


def require_flavor(flavor: str | None) -> None:
    """Raises `flavor-unknown` for a name that is no flavour; None is any."""
    known = (*FLAVORS, JAX)
    if flavor not in (None, *known):
        raise MatchRTError("flavor-unknown", f"There is no flavour '{flavor}'.", f"Known: {', '.join(known)}.")


def _missing(name: str, store: EngineStore, flavor: str | None) -> MatchRTError:
    if flavor is None:
        return MatchRTError(
            "engine-missing",
            f"'{name}' is neither an engine file, nor a bundled model ({', '.join(BUNDLED)}), nor in '{store.root}'.",
            "Build one with `matchrt build MODEL --checkpoint FILE`; `matchrt engines` lists what is built.",
        )
    model, checkpoint = (name, "") if name in BUNDLED else ("MODEL", " --checkpoint FILE")
    return MatchRTError(
        "engine-missing",
        f"'{name}' is neither an engine file, nor has '{store.root}' an engine of it of flavour {flavor}.",
        f"Build one: matchrt build {model}{checkpoint} --flavor {flavor}; `matchrt engines` lists what is built.",
    )


def read_engine(model_or_engine: str | Path, store: EngineStore | None = None, flavor: str | None = None) -> EngineFile:
    """Reads and verifies an engine.

    flavor: refuse an engine of another one. Errors: those of `engine_path`, manifest-*, engine-digest (bytes do not fit
    the manifest), engine-flavor.
    """
    path = engine_path(model_or_engine, store, flavor)
    manifest = read_manifest(manifest_path(path))
    if flavor not in (None, manifest.flavor):
        raise MatchRTError(
            "engine-flavor",
            f"'{path}' is of flavour {manifest.flavor}, not {flavor}.",
            "Leave --flavor out, or name an engine of that flavour.",
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
    if manifest.flavor not in FLAVORS:
        raise MatchRTError(
            "engine-flavor",
            f"'{path}' is of flavour '{manifest.flavor}'; this matchrt runs {', '.join(FLAVORS)}.",
            rebuild,
        )
    return EngineFile(path, data, manifest)
