"""Engines for Triton's model repositories: small graphs with the bundled engine's manifest but for what they change."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from onnx import TensorProto, helper

from matchrt._util.digest import sha256_bytes
from matchrt.manifest import TensorSpec, manifest_path, read_manifest
from matchrt.runtime.engine_file import engine_path


def rows_graph(batch: int, side: int = 4) -> bytes:
    """A graph of exactly `batch` rows, with the tensors of an engine of one match: each is the mean of an image."""
    images = [helper.make_tensor_value_info(f"image{i}", TensorProto.UINT8, [batch, side, side, 1]) for i in (0, 1)]
    shapes = {"scores": [batch, 1], "keypoints0": [batch, 1, 2], "keypoints1": [batch, 1, 2]}
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    outputs.append(helper.make_tensor_value_info("num_matches", TensorProto.INT32, [batch]))
    nodes = []
    for i in (0, 1):
        nodes += [
            helper.make_node("Cast", [f"image{i}"], [f"wide{i}"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", [f"wide{i}", "axes"], [f"mean{i}"], keepdims=0),
            helper.make_node("Reshape", [f"mean{i}", "column"], ["scores" if i == 0 else "other"]),
            helper.make_node("Concat", [("scores", "other")[i]] * 2, [f"twice{i}"], axis=1),
            helper.make_node("Reshape", [f"twice{i}", "point"], [f"keypoints{i}"]),
        ]
    nodes += [
        helper.make_node("Reshape", ["scores", "row"], ["counted"]),
        helper.make_node("Cast", ["counted"], ["num_matches"], to=TensorProto.INT32),
    ]
    numbers = {"axes": [1, 2, 3], "column": [batch, 1], "point": [batch, 1, 2], "row": [batch]}
    constants = [helper.make_tensor(name, TensorProto.INT64, [len(v)], v) for name, v in numbers.items()]
    graph = helper.make_graph(nodes, "rows", images, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()


def engine_of(folder: Path, data: bytes, **changes: Any) -> Path:
    """An engine file of those bytes, with the bundled engine's manifest but for the changes."""
    manifest = read_manifest(manifest_path(engine_path("loftr-lite")))
    path = folder / "own.onnx"
    path.write_bytes(data)
    fitting = {"engine_bytes": len(data), "engine_sha256": sha256_bytes(data), **changes}
    dataclasses.replace(manifest, **fitting).write(manifest_path(path))
    return path


def several_pairs(folder: Path, batch: int, side: int = 4) -> Path:
    """An engine of exactly `batch` pairs of `side` times `side` pixels."""
    manifest = read_manifest(manifest_path(engine_path("loftr-lite")))
    fixed = dataclasses.replace(manifest.input, batch=batch, divisor=4, height=side, width=side, profile=None)
    shapes = {"scores": (batch, 1), "keypoints0": (batch, 1, 2), "keypoints1": (batch, 1, 2)}
    return engine_of(
        folder, rows_graph(batch, side), input=fixed,
        matching=dataclasses.replace(manifest.matching, max_matches=1, coarse_stride=4),
        inputs=tuple(TensorSpec(f"image{i}", "uint8", (batch, side, side, 1)) for i in (0, 1)),
        outputs=(
            *(TensorSpec(name, "float32", shape) for name, shape in shapes.items()),
            TensorSpec("num_matches", "int32", (batch,)),
        ),
    )  # fmt: skip
