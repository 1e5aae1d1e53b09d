"""Describes a checkpoint or an ONNX file."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from matchrt._util.digest import sha256_file
from matchrt.errors import MatchRTError
from matchrt.export.element_types import element_types
from matchrt.export.weights.network import fitting_models, notes, own_part
from matchrt.export.weights.read import Checkpoint, read_checkpoint
from matchrt.export.weights.report import LoadReport


@dataclass(frozen=True)
class Part:
    """The tensors of a checkpoint under one prefix.

    name: the first two steps of the keys.
    tensors: their number.
    elements: the number of values in them.
    """

    name: str
    tensors: int
    elements: int


def checkpoint_parts(checkpoint: Checkpoint, prefix: str) -> list[Part]:
    """The tensors by the first two steps of their keys, in the order of the file. Raises nothing.

    prefix: what precedes the network's keys; it is left out.
    """
    tensors: Counter[str] = Counter()
    elements: Counter[str] = Counter()
    for key, tensor in checkpoint.tensors.items():
        name = ".".join(key.removeprefix(prefix).split(".")[:2])
        tensors[name] += 1
        elements[name] += tensor.numel()
    return [Part(name, tensors[name], elements[name]) for name in tensors]


def inspect_checkpoint(path: Path) -> dict[str, Any]:
    """Everything about a checkpoint as JSON values. `models` lists the known models that it fits completely.

    `tensors_sha256` is the digest of the network's tensors, as a build from the file states it.

    Errors: those of `read_checkpoint`.
    """
    checkpoint = read_checkpoint(path)
    reports = fitting_models(checkpoint)
    closest, best = next(iter(reports.items()))
    own = own_part(checkpoint, best.file)
    fitting = [name for name, report in reports.items() if report.complete]
    return {
        "kind": "checkpoint",
        "path": str(path),
        "bytes": path.stat().st_size,
        "format": checkpoint.format,
        "wrapper": checkpoint.wrapper,
        "ignored": list(checkpoint.ignored),
        "prefix": best.prefix,
        "tensors": len(checkpoint.tensors),
        "elements": checkpoint.elements,
        "dtypes": dict(Counter(str(t.dtype).removeprefix("torch.") for t in checkpoint.tensors.values())),
        "sha256": checkpoint.file_sha256,
        "tensors_sha256": own.tensors_sha256,
        "metadata": dict(checkpoint.metadata),
        "parts": [vars(part) for part in checkpoint_parts(checkpoint, best.prefix)],
        "models": fitting,
        "closest": closest,
        "account": best.summary(),
        "notes": list(notes(checkpoint, best)),
        "problems": _problems(best),
    }


def _problems(report: LoadReport) -> list[dict[str, Any]]:
    return [{"fate": e.fate, "key": e.key, "shape": list(e.shape), "detail": e.detail} for e in report.problems[:50]]


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
