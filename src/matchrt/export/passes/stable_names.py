"""Names that say where in the network a node is, and stay the same from one export to the next."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Container
from dataclasses import dataclass

import onnx

from matchrt.export.graph import GraphEditor
from matchrt.export.passes.base import PassResult, broken_promise
from matchrt.export.passes.conditions import require_flat

_SCOPES = "pkg.torch.onnx.name_scopes"
# The network's name in the engine graph: every module path begins with it.
ROOT = "network."


@dataclass(frozen=True)
class StableNames:
    """`node_add_22` of layer 1 becomes `loftr_coarse.layers.1/Add_2`, and the exporter's metadata is removed.

    The metadata holds stack traces with paths of the machine that exported, which nobody else should get.

    name: the name of the pass in the manifest.
    """

    name: str = "stable-names"

    def requires(self, model: onnx.ModelProto) -> None:
        """The graph must be flat. Error: `pass-requirement`."""
        require_flat(self.name, model)

    def apply(self, model: onnx.ModelProto) -> PassResult:
        """Renames nodes and intermediate tensors; inputs, outputs and weights keep their tensor names."""
        editor = GraphEditor(model.graph)
        fixed = {value.name for value in (*model.graph.input, *model.graph.output)}
        counts: Counter[str] = Counter()
        renamed: dict[str, str] = {name: name.removeprefix(ROOT) for name in editor.weights}
        for node in editor.rewrite():
            stem = f"{_owner(node, editor.weights) or _scope(node)}/{node.op_type}"
            node.name = f"{stem}_{counts[stem]}"
            counts[stem] += 1
            for position, output in enumerate(node.output):
                if output and output not in fixed:
                    renamed[output] = node.name if position == 0 else f"{node.name}:{position}"
        editor.rename(renamed)
        editor.finish()
        # Inferred shapes of intermediate tensors have names and metadata too. They can be inferred again.
        del model.graph.value_info[:]
        _drop_metadata(model)
        return PassResult(model, len(model.graph.node), f"named {len(model.graph.node)} nodes by module")

    def ensures(self, model: onnx.ModelProto) -> None:
        """Node names are unique and no metadata is left. Error: `pass-promise`."""
        names = [node.name for node in model.graph.node]
        if len(set(names)) != len(names):
            raise broken_promise(self.name, "two nodes share a name")
        if any(node.metadata_props or node.doc_string for node in model.graph.node):
            raise broken_promise(self.name, "exporter metadata is left")


def _owner(node: onnx.NodeProto, weights: Container[str]) -> str | None:
    """The module whose weight a convolution has; None for other nodes, and for weights that are no module's.

    The exporter joins a convolution with the norm behind it, where sizes are static, and gives it the norm's scope. The
    rules of families name convolutions by their own module.
    """
    if node.op_type != "Conv" or node.input[1] not in weights or not node.input[1].endswith(".weight"):
        return None
    return str(node.input[1]).removesuffix(".weight").removeprefix(ROOT)


def _scope(node: onnx.NodeProto) -> str:
    scopes = next((p.value for p in node.metadata_props if p.key == _SCOPES), "[]")
    modules = [s for s in ast.literal_eval(scopes)[:-1] if s]
    return modules[-1].removeprefix(ROOT) if modules else "graph"


def _drop_metadata(model: onnx.ModelProto) -> None:
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    model.doc_string = model.graph.doc_string = ""
    for item in (*model.graph.node, *model.graph.initializer, *model.graph.input, *model.graph.output):
        del item.metadata_props[:]
        item.doc_string = ""
