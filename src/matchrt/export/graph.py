"""The editor of ONNX graphs: `export` changes nodes and weights with it.

Only constant folding and the removal of identities and dead nodes use onnx-graphsurgeon (`passes/fold.py`), which has
them ready.

The editor is our own, and not onnx-ir, for two reasons. The exported files stay the same byte for byte: reading the
bundled engine with onnx-ir 1.1 and writing it back adds 231 entries of `value_info`, one for each weight. And the
passes use ONNX's own checker, shape inference and schemas, which work on the same messages as this editor, so that
nothing is converted on the way.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, MutableSequence

import numpy as np
import onnx
from onnx import numpy_helper


class GraphEditor:
    """Edits one flat graph. New nodes and constants are in the graph after `finish`; weights change at once.

    nodes: the nodes of the graph, in order.
    weights: the initialisers by name, as they are stored: changing one changes the graph.
    outputs: the names of the graph's outputs.
    constants: the initialisers that `finish` adds, by name.
    """

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.nodes: list[onnx.NodeProto] = list(graph.node)
        self.weights: dict[str, onnx.TensorProto] = {weight.name: weight for weight in graph.initializer}
        self.outputs = frozenset(value.name for value in graph.output)
        self.constants: dict[str, onnx.TensorProto] = {}
        self._before: list[onnx.NodeProto] = []
        self._after: list[onnx.NodeProto] = []

    # What the graph holds

    def producers(self) -> dict[str, onnx.NodeProto]:
        """The node that computes a tensor, by the tensor's name."""
        return {name: node for node in self.nodes for name in node.output if name}

    def readers(self) -> dict[str, list[onnx.NodeProto]]:
        """The nodes that read a tensor, by its name. A node that reads it twice is listed twice."""
        readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for name in node.input:
                readers[name].append(node)
        return dict(readers)

    def uses(self) -> Counter[str]:
        """How often a tensor is read, by its name. Being an output of the graph counts as one more use."""
        return Counter(name for node in self.nodes for name in node.input) + Counter(self.outputs)

    # Nodes

    def rewrite(self) -> Iterator[onnx.NodeProto]:
        """Hands out a copy of every node in order; the copy takes its place. The loop must run to its end."""
        written: list[onnx.NodeProto] = []
        for original in self.nodes:
            node = onnx.NodeProto()
            node.CopyFrom(original)
            yield node
            written += [*self._before, node, *self._after]
            self._before, self._after = [], []
        self.nodes = written

    def before(self, *nodes: onnx.NodeProto) -> None:
        """Puts nodes before the one that `rewrite` handed out last; outside that loop, before all nodes."""
        self._before += nodes

    def after(self, *nodes: onnx.NodeProto) -> None:
        """Puts nodes after the one that `rewrite` handed out last; outside that loop, after all nodes."""
        self._after += nodes

    def drop(self, nodes: Iterable[onnx.NodeProto]) -> None:
        """Removes nodes. They are found by their outputs, because no two nodes give the same tensor."""
        gone = {tuple(node.output) for node in nodes}
        self.nodes = [node for node in self.nodes if tuple(node.output) not in gone]

    # Tensors

    def rename(self, names: Mapping[str, str]) -> None:
        """Gives tensors new names wherever nodes read or compute them, and as weights. names: new name by old."""
        for node in self.nodes:
            _replace(node.input, names)
            _replace(node.output, names)
        for weight in self.weights.values():
            weight.name = names.get(weight.name, weight.name)
        self.weights = {weight.name: weight for weight in self.weights.values()}

    def rewire(self, names: Mapping[str, str]) -> None:
        """Lets all nodes read other tensors, at every input that reads one. names: new tensor by old."""
        for node in self.nodes:
            _replace(node.input, names)

    # Weights and constants

    def replace_weight(self, old: str, values: np.ndarray, new: str | None = None) -> None:
        """Stores other values in the place of a weight. new: its name from now on, if not the old one."""
        weight = self.weights.pop(old)
        weight.CopyFrom(numpy_helper.from_array(values, new or old))
        self.weights[weight.name] = weight

    def drop_weights(self, names: Collection[str]) -> None:
        """Removes weights by name. The others are not moved: a network may have 2 GB of them."""
        for index in reversed(range(len(self.graph.initializer))):
            if self.graph.initializer[index].name in names:
                del self.graph.initializer[index]
        self.weights = {weight.name: weight for weight in self.graph.initializer}

    def constant(self, name: str, values: np.ndarray | onnx.TensorProto) -> str:
        """Adds an initialiser once and returns its name. Error: ValueError for a name that means other values."""
        tensor = values if isinstance(values, onnx.TensorProto) else numpy_helper.from_array(values, name)
        if name in self.weights or self.constants.setdefault(name, tensor) != tensor:
            raise ValueError(f"the graph has another constant of the name {name}")
        return name

    def finish(self, prune: bool = False) -> None:
        """Writes nodes and constants into the graph. prune: remove the weights that nothing reads any more."""
        self.nodes = [*self._before, *self.nodes, *self._after]
        self._before, self._after = [], []
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)
        self.nodes = list(self.graph.node)
        self.graph.initializer.extend(self.constants.values())
        self.constants = {}
        used = self.uses()
        self.drop_weights({weight.name for weight in self.graph.initializer if prune and weight.name not in used})


def _replace(names: MutableSequence[str], others: Mapping[str, str]) -> None:
    for position, name in enumerate(names):
        if name in others:
            names[position] = others[name]
