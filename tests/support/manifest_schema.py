"""The JSON Schema of manifests, asked for every engine that any test opens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock


@contextmanager
def every_manifest_validates() -> Iterator[None]:
    """While it is entered, an engine is opened only if the published schema takes its manifest.

    Nothing is asked where jsonschema_rs is not installed: other validators take longer than opening an engine.
    """
    try:
        from jsonschema_rs import Draft202012Validator
    except ImportError:
        yield
        return
    from matchrt._util.strict_json import read_json
    from matchrt.manifest import EngineManifest, manifest_schema
    from matchrt.runtime import engine_checks

    validator = Draft202012Validator(manifest_schema())
    check_contract = engine_checks.check_contract

    def check(manifest: EngineManifest) -> None:
        check_contract(manifest)
        assert validator.is_valid(read_json(manifest.to_json())), "the schema refuses what matchrt reads"

    with mock.patch.object(engine_checks, "check_contract", check):
        yield
