"""Makes a graph for one size of images from a graph for any size: what depends on the sizes alone is computed once."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import numpy_helper

from matchrt.export.passes.base import run_passes
from matchrt.export.passes.fold import FoldConstants, RemoveDeadNodes, RemoveIdentities
from matchrt.export.passes.half_storage import HalfStorage
from matchrt.manifest import PassRecord

# Shapes become known from the inputs on, a few nodes further with each round; two or three rounds are usual.
_ROUNDS = 8


def fix_sizes(model: onnx.ModelProto, sizes: Mapping[str, int]) -> tuple[onnx.ModelProto, tuple[PassRecord, ...]]:
    """The graph for these values of its symbolic dimensions, and what was done to it. `model` is changed.

    sizes: the value of each symbolic dimension of the inputs, by its name.
    Shapes that are known are put in as constants here, and not by onnx-graphsurgeon, which gives a scalar that is taken
    from a shape one dimension too many. Errors: those of `run_passes`.
    """
    for value in (*model.graph.input, *model.graph.output):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param in sizes:
                dimension.dim_value = sizes[dimension.dim_param]
    before, known = len(model.graph.node), 0
    for _ in range(_ROUNDS):
        del model.graph.value_info[:]
        model = onnx.shape_inference.infer_shapes(model)
        found = _store_shapes(model.graph)
        if not found:
            break
        known += found
        model, _ = run_passes(model, (FoldConstants(),))
    del model.graph.value_info[:]
    said = ", ".join(f"{name} {value}" for name, value in sizes.items())
    changed = f"{said}: {known} shapes are known, {before - len(model.graph.node)} nodes are computed"
    model, records = run_passes(model, (RemoveIdentities(), RemoveDeadNodes(), HalfStorage()))
    return model, (PassRecord("fix-sizes", True, changed), *records)


def _store_shapes(graph: onnx.GraphProto) -> int:
    """Replaces the Shape nodes whose result is known by constants, and returns how many."""
    shapes = {value.name: _dimensions(value) for value in (*graph.input, *graph.value_info)}
    kept, stored = [], 0
    for node in graph.node:
        shape = shapes.get(node.input[0]) if node.op_type == "Shape" else None
        if shape is not None:
            ends = {attribute.name: attribute.i for attribute in node.attribute}
            shape = shape[ends.get("start", 0) : ends.get("end", len(shape))]
        if shape is None or None in shape:
            kept.append(onnx.NodeProto.FromString(node.SerializeToString()))
            continue
        graph.initializer.append(numpy_helper.from_array(np.array(shape, np.int64), node.output[0]))
        stored += 1
    del graph.node[:]
    graph.node.extend(kept)
    return stored


def _dimensions(value: onnx.ValueInfoProto) -> list[int | None] | None:
    """The dimensions, None for one that is not known; None if even their number is not."""
    kind = value.type.tensor_type
    if not kind.HasField("shape"):
        return None
    return [entry.dim_value if entry.HasField("dim_value") else None for entry in kind.shape.dim]
