"""Describes an ONNX file."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx

from matchrt._util.digest import sha256_bytes
from matchrt._util.onnx_wire import external_tensors
from matchrt._util.reading import read_regular
from matchrt.errors import MatchRTError
from matchrt.export.element_types import element_types


def inspect_onnx(path: Path) -> dict[str, Any]:
    """Inputs, outputs, operators, element types by part, and size of an ONNX file. Error: onnx-invalid."""
    try:
        data = read_regular(path)
        outside = external_tensors(data)
        model = onnx.load_model_from_string(data)
        if not outside:  # else the checker looks for the other files, which need not be here
            onnx.checker.check_model(model)
    except Exception as error:
        # protobuf and the checker raise types of their own for damaged files.
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise MatchRTError("onnx-invalid", f"'{path}' is not a valid ONNX file: {why}.", "Export it again.") from error
    graph, types = model.graph, element_types(model)
    return {
        "kind": "onnx",
        "path": str(path),
        "bytes": len(data),
        "sha256": sha256_bytes(data),
        "opset": {entry.domain or "ai.onnx": entry.version for entry in model.opset_import},
        "producer": f"{model.producer_name} {model.producer_version}".strip(),
        "inputs": [_value(value) for value in graph.input],
        "outputs": [_value(value) for value in graph.output],
        "nodes": len(graph.node),
        "operators": dict(Counter(node.op_type for node in graph.node).most_common()),
        "weights": len(graph.initializer),
        "external": [asdict(tensor) for tensor in outside],
        "operator_types": {name: dict(counts) for name, counts in types.operators.items()},
        "parts": {
            name: {"nodes": dict(part.nodes), "weight_bytes": dict(part.weights)} for name, part in types.parts.items()
        },
    }


def _value(value: onnx.ValueInfoProto) -> dict[str, Any]:
    tensor = value.type.tensor_type
    shape = [d.dim_param or d.dim_value for d in tensor.shape.dim]
    return {"name": value.name, "dtype": onnx.TensorProto.DataType.Name(tensor.elem_type).lower(), "shape": shape}
