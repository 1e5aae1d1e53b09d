"""Conditions on a graph that several passes share. Each raises `pass-requirement` where it does not hold."""

from __future__ import annotations

from collections import Counter

import onnx

from matchrt.export.passes.base import unmet_requirement


def require_flat(name: str, model: onnx.ModelProto) -> None:
    """The pass `name` sees every reader of a tensor only where no function and no subgraph hides one."""
    require_no_functions(name, model)
    if any(attribute.HasField("g") or attribute.graphs for node in model.graph.node for attribute in node.attribute):
        raise unmet_requirement(name, "the graph has subgraphs")


def require_no_functions(name: str, model: onnx.ModelProto) -> None:
    """The pass `name` sees every operator only where no function of the file hides one."""
    if model.functions:
        raise unmet_requirement(name, "the graph has functions of its own")


def require_unique_names(name: str, model: onnx.ModelProto) -> None:
    """The pass `name` knows nodes by their names, so every node needs one of its own."""
    names = Counter(node.name for node in model.graph.node)
    if twice := [found for found, count in names.items() if count > 1 or not found]:
        raise unmet_requirement(name, f"the node name '{twice[0]}' is empty or not unique")


def require_weights_inside(name: str, model: onnx.ModelProto) -> None:
    """The pass `name` computes with weights, so their values have to be in the file."""
    if any(weight.data_location == onnx.TensorProto.EXTERNAL for weight in model.graph.initializer):
        raise unmet_requirement(name, "weights are stored outside the file")
