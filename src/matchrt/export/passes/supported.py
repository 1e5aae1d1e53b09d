"""Refuses graphs that TensorRT cannot take or that break the engine contract, before a long build begins."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from matchrt.errors import InternalError
from matchrt.export.passes.base import PassResult
from matchrt.export.passes.conditions import require_no_functions

# Operators that no engine graph may have, and why.
FORBIDDEN = {
    "NonZero": "its output has a data-dependent shape, which rules out static memory and CUDA graphs",
    "Unique": "its output has a data-dependent shape",
    "Multinomial": "ONNX samples with replacement; sampling stays on the host",
    "RandomUniform": "an engine must give the same matches twice",
    "RandomNormal": "an engine must give the same matches twice",
    "Loop": "control flow stops kernel fusion and CUDA-graph capture",
    "If": "control flow stops kernel fusion and CUDA-graph capture",
    "Scan": "control flow stops kernel fusion and CUDA-graph capture",
    "SequenceConstruct": "TensorRT has no sequences",
}


# TensorRT takes no constants of these types. The exporter may write an index table in such a type to save space.
FORBIDDEN_TYPES = {onnx.TensorProto.UINT16, onnx.TensorProto.UINT32, onnx.TensorProto.UINT64, onnx.TensorProto.INT16}


@dataclass(frozen=True)
class RequireSupported:
    """A check: no forbidden operator or constant, no antialiased Resize, no Einsum that TensorRT rejects.

    name: the name of the pass in the manifest.
    """

    name: str = "require-supported"

    def requires(self, model: onnx.ModelProto) -> None:
        """The file must have no functions, because an operator inside one is not seen. Error: `pass-requirement`."""
        require_no_functions(self.name, model)

    def apply(self, model: onnx.ModelProto) -> PassResult:
        """Changes nothing."""
        return PassResult(model, 0, f"checked {len(model.graph.node)} nodes")

    def ensures(self, model: onnx.ModelProto) -> None:
        """Raises `graph-unsupported` with the nodes and the reasons."""
        problems = [f"{node.name} ({node.op_type}): {why}" for node in model.graph.node if (why := _problem(node))]
        problems += [
            f"{weight.name}: TensorRT takes no {onnx.TensorProto.DataType.Name(weight.data_type).lower()} constant"
            for weight in model.graph.initializer
            if weight.data_type in FORBIDDEN_TYPES
        ]
        if problems:
            raise InternalError(
                "graph-unsupported",
                f"The exported graph has {len(problems)} nodes that engines cannot take: {'; '.join(problems[:5])}.",
                "Report this as a bug, with the model and its options.",
            )


def _problem(node: onnx.NodeProto) -> str | None:
    if node.op_type in FORBIDDEN:
        return FORBIDDEN[node.op_type]
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type == "Resize" and attributes.get("antialias", 0):
        return "TensorRT has no antialiased Resize"
    if node.op_type == "Einsum":
        return _einsum_problem(attributes["equation"].decode())
    return None


def _einsum_problem(equation: str) -> str | None:
    terms = equation.replace(" ", "").split("->")[0].split(",")
    if "..." in equation:
        return "TensorRT's Einsum takes no ellipsis"
    if len(terms) > 2:
        return "TensorRT's Einsum takes at most two operands"
    if any(len(set(term)) != len(term) for term in terms):
        return "TensorRT's Einsum takes no repeated index"
    return None
