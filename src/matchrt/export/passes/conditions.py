"""Conditions on a graph that several passes share. Each raises `pass-requirement` if it does not hold."""

from __future__ import annotations

from collections import Counter

import onnx

from matchrt.export.passes.base import unmet_requirement


def require_flat(name: str, model: onnx.ModelProto) -> None:
    """Raises `pass-requirement` if the graph has functions or subgraphs.

    They may read a tensor, and the pass `name` must see every reader.
    """
    require_no_functions(name, model)
    if any(attribute.HasField("g") or attribute.graphs for node in model.graph.node for attribute in node.attribute):
        raise unmet_requirement(name, "the graph has subgraphs")


def require_no_functions(name: str, model: onnx.ModelProto) -> None:
    """Raises `pass-requirement` if the file has functions.

    They may hold operators, and the pass `name` must see every operator.
    """
    if model.functions:
        raise unmet_requirement(name, "the graph has functions of its own")


def require_unique_names(name: str, model: onnx.ModelProto) -> None:
    """Raises `pass-requirement` if two nodes have the same name, or a node has none.

    The pass `name` finds nodes by their names.
    """
    names = Counter(node.name for node in model.graph.node)
    if twice := [found for found, count in names.items() if count > 1 or not found]:
        raise unmet_requirement(name, f"the node name '{twice[0]}' is empty or not unique")


def require_weights_inside(name: str, model: onnx.ModelProto) -> None:
    """Raises `pass-requirement` if weights are stored outside the file.

    The pass `name` computes with their values.
    """
    if any(weight.data_location == onnx.TensorProto.EXTERNAL for weight in model.graph.initializer):
        raise unmet_requirement(name, "weights are stored outside the file")
