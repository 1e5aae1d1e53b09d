"""Engine files of the mock of TensorRT (tests/support/tensorrt_mock), with real manifests."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from matchrt._util.digest import sha256_bytes
from matchrt.manifest import EngineManifest, Portability, TensorSpec, manifest_path
from support.manifests import bundled_manifest

VERSION = "11.1.0.106"


def mock_tensor(spec: TensorSpec) -> str:
    """The line of a tensor in the mock's engine file."""
    return " ".join([spec.name, spec.dtype, *(str(side if isinstance(side, int) else -1) for side in spec.shape)])


def write_engine(folder: Path, *orders: str, sized: bool = True, **changes: Any) -> Path:
    """A mock's engine with a real manifest: static 48x64 with sizes, or dynamic; without a self-test.

    orders: what the mock does otherwise (its header lists them).
    """
    bundled = bundled_manifest()
    sizes = tuple(TensorSpec(f"size{i}", "int32", (1, 2)) for i in (0, 1)) if sized else ()
    height, width = (48, 64) if sized else ("h", "w")
    images = tuple(TensorSpec(f"image{i}", "uint8", (1, height, width, 1)) for i in (0, 1))
    contract = bundled.input
    if sized:
        contract = dataclasses.replace(contract, height=48, width=64, profile=None, fitting="letterbox")
    tensors = [mock_tensor(spec) for spec in (*images, *sizes, *bundled.outputs)]
    data = "".join(f"{line}\n" for line in (*tensors, *(f"#{order}" for order in orders))).encode()
    manifest: EngineManifest = dataclasses.replace(
        bundled, backend="tensorrt", backend_version=VERSION, portability=Portability(("8.9",), False, "exact"),
        inputs=(*images, *sizes), input=contract, engine_bytes=len(data), engine_sha256=sha256_bytes(data),
        matching=dataclasses.replace(bundled.matching, default_score=0.05), self_test=None,
    )  # fmt: skip
    path = folder / "mock.engine"
    path.write_bytes(data)
    dataclasses.replace(manifest, **changes).write(manifest_path(path))
    return path
