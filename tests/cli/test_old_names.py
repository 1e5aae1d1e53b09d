"""Names from before 0.1.0: options that --help no longer shows, and manifests of schema 1."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from support.commands import CommandLine

from matchrt.cli.app import _current_names
from matchrt.errors import MatchRTError
from matchrt.manifest import manifest_path, read_manifest
from matchrt.runtime.engine_file import engine_path, read_engine


def test_flavor_is_a_hidden_name_of_backend(cli: CommandLine) -> None:
    for arguments in (("--flavor", "no-backend"), ("--flavor=no-backend",)):
        ran = cli.fails("backend-unknown", "match", "a.jpg", "b.jpg", *arguments)
        assert "'no-backend'" in ran.err
    assert "--flavor" not in cli("match", "--help").out
    # What follows `--` are names of files.
    assert _current_names(["match", "--flavor", "x", "--", "--flavor"]) == ["match", "--backend", "x", "--", "--flavor"]


@pytest.fixture
def first_schema(tmp_path: Path) -> Path:
    """The bundled engine with its manifest as schema 1 had it."""
    bundled, engine = engine_path("loftr-lite"), tmp_path / "engine.onnx"
    shutil.copy(bundled, engine)
    raw = json.loads(manifest_path(bundled).read_text())
    raw |= {"schema": 1, "flavor": raw.pop("backend"), "flavor_version": raw.pop("backend_version")}
    manifest_path(engine).write_text(json.dumps(raw))
    return engine


def test_a_manifest_of_schema_1_is_read(first_schema: Path, cli: CommandLine) -> None:
    assert read_engine(first_schema).manifest == read_engine("loftr-lite").manifest
    assert cli("inspect", first_schema, "--json").json["manifest"]["backend"] == "onnxruntime"


@pytest.mark.parametrize("schema", [True, 0, 3, "1", None])
def test_other_schemas_are_not_taken_for_it(first_schema: Path, schema: object) -> None:
    path = manifest_path(first_schema)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": schema}))
    with pytest.raises(MatchRTError) as caught:
        read_manifest(path)
    assert caught.value.code == "manifest-schema"
