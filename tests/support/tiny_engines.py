"""An ONNX engine of one match, which loads and runs in a millisecond, with a real manifest."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from matchrt._util.digest import sha256_bytes
from matchrt.manifest import EngineManifest, FrameContract, TensorSpec, manifest_path, read_manifest
from matchrt.runtime.engine_file import engine_path

SIDE = 64
_SHAPES = {"keypoints0": (1, 1, 2), "keypoints1": (1, 1, 2), "scores": (1, 1)}


def tiny_graph() -> onnx.ModelProto:
    """Static 64x64 with sizes. The match joins the brightness of both images; its score is that of the first one."""
    inputs = [helper.make_tensor_value_info(f"image{i}", TensorProto.UINT8, [1, SIDE, SIDE, 1]) for i in (0, 1)]
    inputs += [helper.make_tensor_value_info(f"size{i}", TensorProto.INT32, [1, 2]) for i in (0, 1)]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in _SHAPES.items()]
    outputs.append(helper.make_tensor_value_info("num_matches", TensorProto.INT32, [1]))
    nodes = []
    for i in (0, 1):
        nodes += [
            helper.make_node("Cast", [f"image{i}"], [f"wide{i}"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", [f"wide{i}", "axes"], [f"mean{i}"], keepdims=0),
            helper.make_node("Reshape", [f"mean{i}", "column"], [f"flat{i}"]),
            helper.make_node("Div", [f"flat{i}", "full"], ["scores" if i == 0 else "unused"]),
            helper.make_node("Concat", [f"flat{i}", f"flat{i}"], [f"twice{i}"], axis=1),
            helper.make_node("Reshape", [f"twice{i}", "point"], [f"keypoints{i}"]),
        ]
    nodes.append(helper.make_node("Identity", ["one"], ["num_matches"]))
    numbers = {"axes": [1, 2, 3], "column": [1, 1], "point": [1, 1, 2]}
    constants = [helper.make_tensor(name, TensorProto.INT64, [len(v)], v) for name, v in numbers.items()]
    constants.append(helper.make_tensor("full", TensorProto.FLOAT, [], [255.0]))
    constants.append(helper.make_tensor("one", TensorProto.INT32, [1], [1]))
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def tiny_engine(folder: Path, graph: onnx.ModelProto | None = None, name: str = "tiny.onnx", **changes: Any) -> Path:
    """The engine and its manifest, which is the bundled engine's where the graph does not decide it.

    graph: another graph of the same inputs and outputs. changes: of the manifest.
    """
    data = (graph or tiny_graph()).SerializeToString()
    bundled = read_manifest(manifest_path(engine_path("loftr-lite")))
    images = tuple(TensorSpec(f"image{i}", "uint8", (1, SIDE, SIDE, 1)) for i in (0, 1))
    sizes = tuple(TensorSpec(f"size{i}", "int32", (1, 2)) for i in (0, 1))
    manifest: EngineManifest = dataclasses.replace(
        bundled,
        inputs=(*images, *sizes),
        outputs=(
            *(TensorSpec(name, "float32", shape) for name, shape in _SHAPES.items()),
            TensorSpec("num_matches", "int32", (1,)),
        ),
        input=dataclasses.replace(bundled.input, height=SIDE, width=SIDE, profile=None, fitting="letterbox"),
        matching=dataclasses.replace(bundled.matching, max_matches=1, default_score=0.01),
        engine_bytes=len(data),
        engine_sha256=sha256_bytes(data),
        onnx_sha256=sha256_bytes(data),
    )
    path = folder / name
    path.write_bytes(data)
    dataclasses.replace(manifest, **changes).write(manifest_path(path))
    return path


def tiny_frames_engine(folder: Path, frames: FrameContract) -> Path:
    """The tiny engine for frames, in a store in that folder; without a self-test, for it finds too few matches."""
    from matchrt.building.frames.engine import frames_engine
    from matchrt.runtime.engine_file import read_engine
    from matchrt.store import EngineStore

    file = read_engine(tiny_engine(folder))
    return frames_engine(file, frames, EngineStore(folder / "frames"), lambda what, share: None)[0].path
