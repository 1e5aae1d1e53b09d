"""The bundled engine where it sees small images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from matchrt.manifest import Profile, manifest_path
from matchrt.runtime.engine_file import EngineFile, read_engine


def small_engine(folder: Path) -> EngineFile:
    """`loftr-lite` with its best size at 160x224: the same graph, a twelfth of the pixels."""
    bundled = read_engine("loftr-lite")
    profile = Profile((64, 64), (160, 224), (480, 640))
    manifest = replace(bundled.manifest, input=replace(bundled.manifest.input, profile=profile), build_key="small",
                       self_test=None)  # the bundled engine's is for its own best size  # fmt: skip
    path = folder / "small.onnx"
    path.write_bytes(bundled.data)
    manifest.write(manifest_path(path))
    return read_engine(path)
