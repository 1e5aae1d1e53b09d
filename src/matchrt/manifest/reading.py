"""Reads manifests. A manifest may come from a stranger, so every field is checked before anything uses it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matchrt._util.from_json import parse_json
from matchrt._util.reading import read_regular
from matchrt._util.strict_json import read_json
from matchrt._util.text import printable, shown
from matchrt.errors import MatchRTError
from matchrt.manifest.fields import SCHEMA, EngineManifest
from matchrt.manifest.rules import check_values

# The longest part of a manifest is the answer of its self-test: 27 bytes for each of at most 65536 matches.
_MOST_BYTES = 16 << 20
# Schema 1 had other names for the backend. Its manifests are read too.
_SCHEMA_1_NAMES = {"flavor": "backend", "flavor_version": "backend_version"}
_REBUILD = "Rebuild the engine with `matchrt build`, or restore the .json that was written beside it."


def manifest_path(engine: Path) -> Path:
    """The manifest's path beside an engine: `x.onnx` -> `x.onnx.json`."""
    return engine.with_name(engine.name + ".json")


def read_manifest(path: Path) -> EngineManifest:
    """Reads and validates a manifest. Errors: manifest-missing, manifest-invalid, manifest-schema."""
    try:
        data = read_regular(path, _MOST_BYTES)
    except FileNotFoundError as error:
        raise MatchRTError(
            "manifest-missing", f"'{path}' is missing: an engine needs its manifest.", _REBUILD
        ) from error
    except OSError as error:
        raise MatchRTError("manifest-invalid", f"'{path}' cannot be read: {error.strerror}.", _REBUILD) from error
    return parse_manifest(data, path)


def parse_manifest(data: bytes, path: Path) -> EngineManifest:
    """The manifest in a file's content. path: of the file, for messages. Errors: manifest-invalid, manifest-schema."""
    try:
        raw = _upgraded(read_json(data, unique_keys=True))
    except ValueError as error:
        why = printable(str(error))
        raise MatchRTError("manifest-invalid", f"'{path}' is not readable JSON: {why}.", _REBUILD) from error
    if isinstance(raw, dict) and raw.get("schema") != SCHEMA:
        message = f"'{path}' has manifest schema {shown(raw.get('schema'))}; this matchrt reads {SCHEMA}."
        raise MatchRTError("manifest-schema", message, _REBUILD)
    try:
        manifest = parse_json(EngineManifest, raw, "manifest")
        assert isinstance(manifest, EngineManifest)
        check_values(manifest)
    except ValueError as error:
        raise MatchRTError("manifest-invalid", f"'{path}': {error}.", _REBUILD) from error
    return manifest


def _upgraded(raw: Any) -> Any:
    """A manifest of schema 1 with today's names; any other value unchanged."""
    if not isinstance(raw, dict) or type(raw.get("schema")) is not int or raw["schema"] != 1:
        return raw
    return {_SCHEMA_1_NAMES.get(name, name): value for name, value in raw.items()} | {"schema": SCHEMA}
