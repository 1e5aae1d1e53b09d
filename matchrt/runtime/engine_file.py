"""Reading an engine from disk: never without its manifest, never when the two do not fit."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from matchrt.digest import sha256_bytes
from matchrt.errors import MatchRTError
from matchrt.manifest import EngineManifest, manifest_path, read_manifest

BUNDLED = ("loftr-lite",)
FLAVORS = ("onnxruntime",)


@dataclass(frozen=True)
class EngineFile:
    """Verified engine bytes and their manifest."""

    path: Path
    data: bytes
    manifest: EngineManifest


def engine_path(model_or_engine: str | Path) -> Path:
    """The file of an engine given by path, or by the name of a bundled model. Error: engine-missing."""
    if str(model_or_engine) in BUNDLED:
        return Path(str(resources.files("matchrt") / "assets" / f"{model_or_engine}.onnx"))
    path = Path(model_or_engine)
    if path.is_file():
        return path
    raise MatchRTError(
        "engine-missing",
        f"'{model_or_engine}' is neither an engine file nor a bundled model ({', '.join(BUNDLED)}).",
        "Build an engine with `matchrt build MODEL --checkpoint FILE --output FILE`, then name that file.",
    )


def read_engine(model_or_engine: str | Path) -> EngineFile:
    """Reads and verifies an engine.

    Errors: engine-missing, manifest-*, engine-digest (bytes do not fit the manifest), engine-flavor.
    """
    path = engine_path(model_or_engine)
    manifest = read_manifest(manifest_path(path))
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
