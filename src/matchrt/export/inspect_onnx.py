"""Describes an ONNX file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import onnx

from matchrt._util.digest import sha256_file
from matchrt.errors import MatchRTError
from matchrt.export.element_types import element_types


def inspect_onnx(path: Path) -> dict[str, Any]:
    """Inputs, outputs, operators, element types by part, and size of an ONNX file. Error: onnx-invalid."""
    try:
        model = onnx.load(str(path), load_external_data=False)
        onnx.checker.check_model(model)
    except Exception as error:
        # protobuf and the checker raise types of their own for damaged files.
        raise MatchRTError(
            "onnx-invalid", f"'{path}' is not a valid ONNX file: {str(error).splitlines()[0]}.", "Export it again."
        ) from error
    graph, types = model.graph, element_types(model)
    return {
        "kind": "onnx",
        "path": str(path),
        "bytes": path.stat().st_size,
        "sha256": sha256_file(path),
        "opset": {entry.domain or "ai.onnx": entry.version for entry in model.opset_import},
        "producer": f"{model.producer_name} {model.producer_version}".strip(),
        "inputs": [_value(value) for value in graph.input],
        "outputs": [_value(value) for value in graph.output],
        "nodes": len(graph.node),
        "operators": dict(Counter(node.op_type for node in graph.node).most_common()),
        "weights": len(graph.initializer),
        "operator_types": {name: dict(counts) for name, counts in types.operators.items()},
        "parts": {
            name: {"nodes": dict(part.nodes), "weight_bytes": dict(part.weights)} for name, part in types.parts.items()
        },
    }


def _value(value: onnx.ValueInfoProto) -> dict[str, Any]:
    tensor = value.type.tensor_type
    shape = [d.dim_param or d.dim_value for d in tensor.shape.dim]
    return {"name": value.name, "dtype": onnx.TensorProto.DataType.Name(tensor.elem_type).lower(), "shape": shape}
