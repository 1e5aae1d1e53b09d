"""Machines with stubs in place of CUDA and TensorRT, and engines built on them."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from matchrt._util.digest import sha256_bytes
from matchrt.engines.build import GraphFacts, build_engine
from matchrt.manifest import FRAMES, FrameContract, InputContract, MatchContract, Profile, Source, manifest_path
from matchrt.nvidia.dialect import BuilderOptions
from matchrt.runtime.backend import get_backend
from matchrt.runtime.engine_file import EngineFile
from support.cuda_stub import CudaStub
from support.tensorrt_stub import Script, make_tensorrt, make_tensorrt_rtx

# What `machine` fixtures are made for: name -> backend, version.
KINDS = {
    "tensorrt-10": ("tensorrt", "10.9.0.34"),
    "tensorrt-11": ("tensorrt", "11.4.0.106"),
    "rtx": ("tensorrt_rtx", "1.7.1.116"),
}
SLOTS = 16
PROFILE = Profile((32, 32), (48, 64), (128, 128))


@dataclass(frozen=True)
class Machine:
    """Its script says what was called and tells the stubs what to do."""

    backend: str
    version: str
    script: Script

    @property
    def cuda(self) -> CudaStub:
        return self.script.cuda


def make_machine(monkeypatch: pytest.MonkeyPatch, kind: str, version: str | None = None) -> Machine:
    """Puts the stubs where `import` finds them. kind: of `KINDS`."""
    backend, usual = KINDS[kind]
    script = Script()
    making = make_tensorrt_rtx if backend == "tensorrt_rtx" else make_tensorrt
    module = making(script, version or usual)
    monkeypatch.setitem(sys.modules, backend, module)
    install_cuda(monkeypatch, script.cuda)
    return Machine(backend, version or usual, script)


def install_cuda(monkeypatch: pytest.MonkeyPatch, cuda: CudaStub) -> None:
    """`from cuda.bindings import runtime` gives the stub, and so does `driver`."""
    package, bindings = ModuleType("cuda"), ModuleType("cuda.bindings")
    bindings.runtime = cuda.module  # type: ignore[attr-defined]
    bindings.driver = cuda.driver  # type: ignore[attr-defined]
    package.bindings = bindings  # type: ignore[attr-defined]
    modules = {"cuda": package, "cuda.bindings": bindings,
               "cuda.bindings.runtime": cuda.module, "cuda.bindings.driver": cuda.driver}  # fmt: skip
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)


def matcher_graph(
    size: tuple[int, int] | None,
    channels: int = 1,
    slots: int = SLOTS,
    frames: FrameContract | None = None,
    pairs: int = 1,
) -> bytes:
    """An ONNX file with the contract of an engine and nothing inside. size: None for a dynamic one.

    frames: what it takes in place of images; they have one size each. pairs: it takes any number up to that.
    """
    rows = 1 if pairs == 1 else "pairs"
    if frames is None:
        shapes = {f"image{i}": [rows, *(size or (f"h{i}", f"w{i}")), channels] for i in (0, 1)}
    else:
        assert frames.sizes is not None
        shapes = {name: [1, *frames.shape(of)] for name, of in zip(FRAMES, frames.sizes, strict=True)}
    images = [helper.make_tensor_value_info(name, TensorProto.UINT8, shape) for name, shape in shapes.items()]
    sizes = [helper.make_tensor_value_info(f"size{i}", TensorProto.INT32, [rows, 2]) for i in (0, 1)]
    outputs = [
        helper.make_tensor_value_info("keypoints0", TensorProto.FLOAT, [rows, slots, 2]),
        helper.make_tensor_value_info("keypoints1", TensorProto.FLOAT, [rows, slots, 2]),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, [rows, slots]),
        helper.make_tensor_value_info("num_matches", TensorProto.INT32, [rows]),
    ]
    inputs = images + (sizes if size is not None and frames is None else [])
    graph = helper.make_graph([], "matcher", inputs, outputs)
    return bytes(helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)]).SerializeToString())


def graph_facts(
    size: tuple[int, int] | None, slots: int = SLOTS, frames: FrameContract | None = None, pairs: int = 1
) -> GraphFacts:
    """What a manifest says of `matcher_graph`."""
    contract = (
        InputContract(1, 8, "letterbox", "area-linear", pairs, *size, frames=frames, any_batch=pairs > 1)
        if size is not None
        else InputContract(1, 8, "aspect", "area-linear", profile=PROFILE)
    )
    return GraphFacts(
        model="loftr-outdoor",
        family="loftr",
        precision="fp32",
        source=Source("outdoor_ds.ckpt", "0" * 64, "Apache-2.0", "nowhere"),
        input=contract,
        matching=MatchContract(slots, 0.2, 2, True, 8),
        passes=(),
        build_key="1" * 64,
    )


def make_engine(
    machine: Machine,
    size: tuple[int, int] | None = (32, 48),
    options: BuilderOptions | None = None,
    slots: int = SLOTS,
    frames: FrameContract | None = None,
    pairs: int = 1,
) -> EngineFile:
    """An engine built on the machine, static or (size None) dynamic, with that many slots for matches.

    frames: what it takes in place of images; they have one size each. pairs: it takes any number up to that.
    """
    builder = get_backend(machine.backend).builder(options or BuilderOptions())
    graph = matcher_graph(size, slots=slots, frames=frames, pairs=pairs)
    built = build_engine(graph, graph_facts(size, slots, frames, pairs), builder)
    return EngineFile(Path("outdoor.engine"), built.data, built.manifest)


def save_engine(engine: EngineFile, folder: Path) -> Path:
    """The engine as files."""
    path = folder / "outdoor.engine"
    path.write_bytes(engine.data)
    engine.manifest.write(manifest_path(path))
    return path


def with_plan(engine: EngineFile, **changes: Any) -> EngineFile:
    """The engine with other content than its manifest speaks of, and digests that fit."""
    data = json.dumps(json.loads(engine.data) | changes).encode()
    manifest = replace(engine.manifest, engine_sha256=sha256_bytes(data), engine_bytes=len(data))
    return replace(engine, data=data, manifest=manifest)
