"""Names of engines work wherever files do, and what is no file is refused at once, wherever a file is named."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
import time
from pathlib import Path

import pytest
from support.commands import CommandLine
from support.tiny_engines import tiny_engine

from matchrt.manifest import manifest_path, read_manifest
from matchrt.runtime.bundled import photographs_folder
from matchrt.runtime.engine_file import read_engine
from matchrt.store import EngineStore

PHOTOGRAPHS = [photographs_folder() / f"cup_{i}.jpg" for i in (0, 1)]


@pytest.fixture
def stored(tmp_path: Path) -> tuple[str, Path]:
    """A store with an engine of a model that this matchrt does not know."""
    file = read_engine(tiny_engine(tmp_path, model="somebodys"))
    EngineStore(tmp_path / "store").put(file.data, file.manifest, "somebodys.onnx")
    return "somebodys", tmp_path / "store"


def test_names_of_bundled_and_stored_engines(cli: CommandLine, stored: tuple[str, Path], tmp_path: Path) -> None:
    name, store = stored
    for engine, model in (("loftr-lite", "loftr-lite"), (name, name)):
        found = cli("inspect", engine, "--store", store, "--json").json
        assert found["kind"] == "engine" and found["manifest"]["model"] == model
        assert cli("export-triton", engine, tmp_path / "models", "--store", store).code == 0
    assert cli("match", *PHOTOGRAPHS, "--engine", name, "--store", store).code == 0
    assert cli("bench", name, "--store", store, "--runs", 1, "--warm-up", 0, "--images", *PHOTOGRAPHS).code in (0, 2)
    # A build from it begins, and ends at what this engine lacks: it is not taken for a model's name.
    ran = cli("build", name, "--precision", "fp16", "--store", store, "--height", 64, "--width", 64)
    assert "error[build-source]" in ran.err
    found = cli("diagnose", "loftr-lite", "--model", "loftr-lite", "--json").json
    assert found["explained"] and found["path"].endswith("loftr-lite.safetensors")


def test_a_file_comes_before_a_name(cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(tiny_engine(tmp_path, model="other"), "loftr-lite")
    shutil.copy(manifest_path(tmp_path / "tiny.onnx"), "loftr-lite.json")
    assert cli("inspect", "loftr-lite", "--json").json["manifest"]["model"] == "other"


@pytest.mark.parametrize("name", ["nothing", "a" * 5000, "../x", ".", "a\x1b[31m"])
def test_names_that_name_nothing(cli: CommandLine, tmp_path: Path, name: str) -> None:
    ran = cli.fails("inspect-missing", "inspect", name)
    assert len(ran.err) < 1000 and "\x1b" not in ran.err
    for command in (("export-triton", name, tmp_path / "m"), ("doctor", name), ("match", "--engine", name, "a", "b")):
        assert len(cli.fails("engine-missing", *command).err) < 3000
    assert cli("build", name).code == 2


@pytest.mark.skipif(sys.platform == "win32", reason="pipes and devices are files of Unix")
def test_what_is_no_file_is_refused_at_once(cli: CommandLine, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for odd in (pipe, Path("/dev/zero")):
        for code, *command in (
            ("inspect-missing", "inspect", odd),
            ("engine-missing", "match", *PHOTOGRAPHS, "--engine", odd),
            ("engine-missing", "serve", odd),
            ("token-file", "serve", "loftr-lite", "--token-file", odd),
            ("intrinsics-format", "match", *PHOTOGRAPHS, "--verify", "essential", "--intrinsics", odd),
            ("pairs-missing", "match", odd),
            ("store-unwritable", "build", "loftr-lite", "--store", odd),
            ("output-unwritable", "build", "loftr-lite", "--output", odd),
        ):
            begun = time.perf_counter()
            cli.fails(code, *command)
            assert time.perf_counter() - begun < 10, command
    engine = tiny_engine(tmp_path)
    manifest_path(engine).unlink()
    os.mkfifo(manifest_path(engine))
    for command in (("inspect", engine), ("match", *PHOTOGRAPHS, "--engine", engine), ("export-triton", engine, "m")):
        cli.fails("manifest-invalid", *command)


def test_the_store_is_refused_before_any_work(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for store in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / ("a" * 300)):
        cli.fails("store-unwritable", "build", "loftr-lite", "--store", store)
    assert "NOT writable" in cli("doctor", "--store", tmp_path / "file").out


def test_no_field_leaves_the_store(cli: CommandLine, tmp_path: Path) -> None:
    engine = tiny_engine(tmp_path)
    for model in (str(tmp_path / "elsewhere" / "ESCAPED"), "../ESCAPED", "weights", ".hidden", "a/b", "a\\b", "-o"):
        raw = json.loads(manifest_path(engine).read_text()) | {"model": model}
        manifest_path(engine).write_text(json.dumps(raw))
        cli.fails("manifest-invalid", "build", engine, "--precision", "fp16", "--store", tmp_path / "st")
    assert not (tmp_path / "st").exists() and not (tmp_path / "elsewhere").exists()
    manifest = read_manifest(manifest_path(tiny_engine(tmp_path)))
    for change in ({"model": "../x"}, {"model": "weights"}, {"build_key": "../../../../x"}, {"build_key": ""}):
        with pytest.raises(Exception, match="cannot be part of a path"):
            EngineStore(tmp_path / "st").put(b"", dataclasses.replace(manifest, **change), "x.onnx")
    with pytest.raises(Exception, match="cannot be part of a path"):
        EngineStore(tmp_path / "st").put(b"", manifest, "../x.onnx")
