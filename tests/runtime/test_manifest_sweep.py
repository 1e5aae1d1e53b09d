"""Every field of a real manifest, changed in more than twenty ways: refused by name, or without any effect."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from support.commands import CommandLine
from support.manifests import Where, mutants
from support.tiny_engines import SIDE, tiny_engine, tiny_frames_engine

from matchrt import Matcher
from matchrt._util.text import is_printable, printable_lines
from matchrt.building.request import file_name
from matchrt.errors import MatchRTError
from matchrt.manifest import FrameContract, manifest_path
from matchrt.runtime.engine_file import read_engine
from matchrt.serving.triton import export_triton
from matchrt.store import EngineStore

REFUSALS = {"manifest-invalid", "manifest-schema", "engine-digest", "engine-backend", "engine-graph", "engine-version"}
# What the field itself is about: the score from which users get matches, and the memory that a run is expected to take.
MEANT = {("matching", "default_score")}


@pytest.mark.parametrize("frames", [None, FrameContract("grey", ((80, 64), (64, 96)))])
def test_every_field(cli: CommandLine, tmp_path: Path, frames: FrameContract | None) -> None:
    path, sizes = tiny_engine(tmp_path), ((SIDE, SIDE), (SIDE, SIDE))
    if frames is not None:
        assert frames.sizes is not None
        path, sizes = tiny_frames_engine(tmp_path, frames), frames.sizes
    manifest = manifest_path(path)
    raw = json.loads(manifest.read_text())
    images = [np.random.default_rng(i).integers(0, 255, size, dtype=np.uint8) for i, size in enumerate(sizes)]
    with Matcher(path) as matcher:
        wanted = matcher.match(*images)
    count, harmless = 0, list[tuple[tuple[Where, str], str]]()
    for where, name, text in mutants(raw):
        count += 1
        what = (where, name)
        manifest.write_bytes(text.encode("utf-8", "surrogatepass"))
        begun = time.perf_counter()
        try:
            file = read_engine(path)
            with Matcher(path) as matcher:
                found = matcher.match(*images)
        except MatchRTError as error:
            assert error.code in REFUSALS, (what, error)
            assert is_printable(error.message) and len(error.message) < 1000, what
            continue
        finally:
            assert time.perf_counter() - begun < 2, what
        harmless.append((what, text))
        if where not in MEANT:
            same = (
                np.array_equal(getattr(found, f), getattr(wanted, f)) for f in ("keypoints0", "keypoints1", "scores")
            )
            assert all(same), what
        store = EngineStore(tmp_path / "store")
        built = store.folder(file.manifest.model, "0" * 64) / file_name(file.manifest, ".onnx")
        assert built.resolve().parent.parent.parent == store.root.resolve(), what
    assert count > 1274 and len(harmless) < count / 10, (count, len(harmless))
    # What is left is told and written without control characters, and adds no line to the configuration.
    for number, (what, text) in enumerate(harmless):
        manifest.write_text(text)
        ran = cli("inspect", path)
        assert ran.code == 0 and printable_lines(ran.out) == ran.out, what
        folder = export_triton(path, tmp_path / "models" / str(number))
        assert folder.parent == tmp_path / "models" / str(number), what
        lines = (folder / "config.pbtxt").read_text().splitlines()
        assert sum(line.startswith("backend:") for line in lines) == 1 and all(map(is_printable, lines)), what


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "1", '"x"', "[" * 100_000, '{"a":' * 100_000, "\ufeff{}"])
def test_no_manifest_at_all(tmp_path: Path, text: str) -> None:
    path = tiny_engine(tmp_path)
    manifest_path(path).write_text(text)
    with pytest.raises(MatchRTError) as caught:
        read_engine(path)
    assert caught.value.code in ("manifest-invalid", "manifest-schema")
