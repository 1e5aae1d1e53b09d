"""Constant folding, and removal of nodes without effect, with onnx-graphsurgeon."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import onnx
import onnx_graphsurgeon as gs

from matchrt.export.passes.base import PassResult, broken_promise
from matchrt.export.passes.conditions import require_flat, require_weights_inside


@dataclass(frozen=True)
class FoldConstants:
    """Computes at build time everything that depends on no input.

    max_bytes: larger constants stay computed at run time; it is cheaper to compute sines than to store position grids.
    name: the name of the pass in the manifest.
    """

    max_bytes: int = 1 << 20
    name: str = "fold-constants"

    def requires(self, model: onnx.ModelProto) -> None:
        """Weights must be inside the file. Error: `pass-requirement`."""
        require_weights_inside(self.name, model)

    def apply(self, model: onnx.ModelProto) -> PassResult:
        """Folds, and then drops the nodes whose results are stored now."""
        graph = gs.import_onnx(model)
        before = len(graph.nodes)
        graph.fold_constants(size_threshold=self.max_bytes, error_ok=False).cleanup().toposort()
        return _result(graph, model, before - len(graph.nodes), "folded")

    def ensures(self, model: onnx.ModelProto) -> None:
        """There is no Constant node; constants are initialisers. Error: `pass-promise`."""
        if any(node.op_type == "Constant" for node in model.graph.node):
            raise broken_promise(self.name, "a Constant node is left")


@dataclass(frozen=True)
class RemoveIdentities:
    """Removes Identity, Dropout at inference, and Casts to the type that the tensor has.

    name: the name of the pass in the manifest.
    """

    name: str = "remove-identities"

    def requires(self, model: onnx.ModelProto) -> None:
        """The graph must be flat. Error: `pass-requirement`."""
        require_flat(self.name, model)

    def apply(self, model: onnx.ModelProto) -> PassResult:
        """Connects the consumers of such a node to its input."""
        graph = gs.import_onnx(onnx.shape_inference.infer_shapes(model))
        outputs = {id(tensor) for tensor in graph.outputs}
        removed = [node for node in graph.nodes if _does_nothing(node) and id(node.outputs[0]) not in outputs]
        for node in removed:
            source, result = node.inputs[0], node.outputs[0]
            for consumer in list(result.outputs):
                for position, tensor in enumerate(consumer.inputs):
                    if tensor is result:
                        consumer.inputs[position] = source
            node.outputs.clear()
        graph.cleanup().toposort()
        return _result(graph, model, len(removed), "removed")

    def ensures(self, model: onnx.ModelProto) -> None:
        """The only Identity nodes left give outputs of the graph their names. Error: `pass-promise`."""
        outputs = {value.name for value in model.graph.output}
        if any(n.op_type == "Identity" and n.output[0] not in outputs for n in model.graph.node):
            raise broken_promise(self.name, "an Identity is left")


@dataclass(frozen=True)
class RemoveDeadNodes:
    """Removes nodes and weights that no output depends on.

    name: the name of the pass in the manifest.
    """

    name: str = "remove-dead-nodes"

    def requires(self, model: onnx.ModelProto) -> None:
        """The graph must be flat. Error: `pass-requirement`."""
        require_flat(self.name, model)

    def apply(self, model: onnx.ModelProto) -> PassResult:
        """Keeps the nodes that the outputs depend on."""
        graph = gs.import_onnx(model)
        before = len(graph.nodes)
        graph.cleanup(remove_unused_graph_inputs=False).toposort()
        return _result(graph, model, before - len(graph.nodes), "removed")

    def ensures(self, model: onnx.ModelProto) -> None:
        """Some result of every node is used. Error: `pass-promise`."""
        used = {name for node in model.graph.node for name in node.input} | {v.name for v in model.graph.output}
        if dead := [n.name for n in model.graph.node if not used & set(n.output)]:
            raise broken_promise(self.name, f"{dead[0]} is used by nothing")


def _does_nothing(node: gs.Node) -> bool:
    if node.op == "Identity" or (node.op == "Dropout" and len(node.inputs) < 3):
        return True
    if node.op != "Cast" or node.inputs[0].dtype is None:
        return False
    return bool(onnx.helper.tensor_dtype_to_np_dtype(_onnx_type(node.attrs["to"])) == node.inputs[0].dtype)


def _onnx_type(value: object) -> int:
    return value if isinstance(value, int) else int(onnx.helper.np_dtype_to_tensor_dtype(value))


def _result(graph: gs.Graph, old: onnx.ModelProto, changes: int, verb: str) -> PassResult:
    new = gs.export_onnx(graph, do_type_check=False)
    new.ir_version = old.ir_version
    kinds = Counter(n.op_type for n in old.graph.node) - Counter(n.op_type for n in new.graph.node)
    what = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())) or "nothing"
    return PassResult(new, changes, f"{verb} {what}")
