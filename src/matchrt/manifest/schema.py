"""The published JSON Schema of manifests, for programs that read them in other languages."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from matchrt._util.strict_json import read_json
from matchrt.manifest.fields import SCHEMA


def schema_path() -> Path:
    """The file of the JSON Schema (draft 2020-12) of the manifests that this version writes. Raises nothing."""
    return Path(str(resources.files("matchrt") / "assets" / f"engine-manifest-{SCHEMA}.schema.json"))


def manifest_schema() -> dict[str, Any]:
    """That schema as a JSON value.

    It has the rules of docs/engine-contract.md that JSON Schema can say. What it refuses is refused when the engine is
    opened, and the other way round, but for what compares one value with another. Raises nothing.
    """
    found: dict[str, Any] = read_json(schema_path().read_bytes())
    return found
