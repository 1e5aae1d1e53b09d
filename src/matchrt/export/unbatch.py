"""Takes the two images of a static graph apart, where they go through nodes as one batch.

A static graph computes both images in one batch as long as they have nothing to do with each other, because GPUs run
that faster. For an engine in two parts (`runtime.split.cut`), each of these nodes becomes two, one for each image,
until the images meet. What a node computes for one row does not depend on the other, so the results are the same, as
far as a backend computes one row as it computes two.

A node is taken apart only if it is known how: of any other one, the two halves are joined again first.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import helper, numpy_helper

from matchrt.export.graph import GraphEditor

# Each value of the result depends on the values at its own place; operands are broadcast.
_ELEMENTWISE = frozenset(
    (
        *("Abs", "Add", "And", "Cast", "Ceil", "Clip", "Cos", "DequantizeLinear", "Div", "Elu", "Equal", "Erf", "Exp"),
        *("Floor", "Greater", "GreaterOrEqual", "HardSigmoid", "Identity", "LeakyRelu", "Less", "LessOrEqual", "Log"),
        *("Max", "Min", "Mul", "Neg", "Not", "Or", "Pow", "QuantizeLinear", "Reciprocal", "Relu", "Sigmoid", "Sign"),
        *("Sin", "Softplus", "Sqrt", "Sub", "Tanh", "Where"),
    )
)
# The first dimension is that of the batch, and the other inputs are weights.
_BATCHED_FIRST = frozenset(
    (
        *("AveragePool", "BatchNormalization", "Conv", "ConvTranspose"),
        *("GlobalAveragePool", "InstanceNormalization", "MaxPool"),
    )
)
# They work along axes that an attribute names; the default is the last one.
_ALONG_AXIS = frozenset(("ArgMax", "LayerNormalization", "LogSoftmax", "Softmax"))
# The halves may be along any axis, if the node does not work along it.
_ANY_AXIS = ("Slice", "Split", "Squeeze", "Transpose")
_REDUCTIONS = frozenset(("ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum"))

Shape = tuple[int, ...]
Halves = tuple[str, str]


def unbatch(model: onnx.ModelProto) -> int:
    """Takes the two images apart, in place, and returns the number of nodes that became two.

    The graph then says the types of all tensors. Error: ValueError for a graph whose shapes ONNX cannot tell.
    """
    work = _Unbatching.of(model)
    for node in work.editor.nodes:
        work.take(node)
    work.editor.nodes = _alive(work.nodes, work.editor.outputs)
    work.editor.finish(prune=True)
    _tell_types(model)
    return work.count


def _alive(nodes: list[onnx.NodeProto], outputs: Collection[str]) -> list[onnx.NodeProto]:
    """The nodes that lead to the outputs."""
    read, kept = set(outputs), []
    for node in reversed(nodes):
        if not read.isdisjoint(node.output):
            read.update(node.input)
            kept.append(node)
    return kept[::-1]


def _tell_types(model: onnx.ModelProto) -> None:
    del model.graph.value_info[:]
    told = onnx.shape_inference.infer_shapes(model)
    model.graph.value_info.extend(told.graph.value_info)


@dataclass
class _Unbatching:
    """The graph, and what is known of its tensors.

    nodes: the new nodes so far.
    shapes: of all tensors, by name.
    images: by name, of which images (0 and 1) a tensor knows something.
    producers: the node of the graph before that computes a tensor, by its name.
    halves: the two tensors that a batch of both images became, by its name.
    axes: along which a batch has its halves, by its name; 0 without an entry.
    originals: the node that computed a batch, by its name.
    joined: batches that were joined again.
    """

    editor: GraphEditor
    shapes: dict[str, Shape]
    images: dict[str, frozenset[int]]
    producers: dict[str, onnx.NodeProto]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    halves: dict[str, Halves] = field(default_factory=dict)
    axes: dict[str, int] = field(default_factory=dict)
    originals: dict[str, onnx.NodeProto] = field(default_factory=dict)
    joined: set[str] = field(default_factory=set)
    count: int = 0

    @classmethod
    def of(cls, model: onnx.ModelProto) -> _Unbatching:
        _tell_types(model)
        graph = model.graph
        shapes = {weight.name: tuple(weight.dims) for weight in graph.initializer}
        for value in (*graph.input, *graph.output, *graph.value_info):
            sides = [side.dim_value if side.HasField("dim_value") else -1 for side in value.type.tensor_type.shape.dim]
            shapes[value.name] = tuple(sides)
        images = {value.name: frozenset([int(value.name[-1])]) for value in graph.input if value.name[-1] in "01"}
        editor = GraphEditor(graph)
        return cls(editor, shapes, images, editor.producers())

    def take(self, node: onnx.NodeProto) -> None:
        """Adds a node, or the two that it becomes."""
        known = frozenset[int]().union(*(self.images.get(name, frozenset()) for name in node.input))
        self.images |= dict.fromkeys(node.output, known)
        if self._begins(node):
            self.halves[node.output[0]] = (node.input[0], node.input[1])
            return
        if any(name in self.halves for name in node.input) and self._ends(node):
            return
        if any(name in self.halves for name in node.input):
            apart = self._apart(node)
            if apart is not None:
                self.nodes += apart
                self.halves |= {name: _names(name) for name in node.output if name}
                self.originals |= dict.fromkeys(node.output, node)
                self.count += 1
                return
        for name in node.input:
            self._join(name)
        self.nodes.append(node)

    def _begins(self, node: onnx.NodeProto) -> bool:
        """Whether a node makes a batch of a tensor of image 0 and one of image 1."""
        if node.op_type != "Concat" or len(node.input) != 2 or _attribute(node, "axis", 0) != 0:
            return False
        first, second = node.input
        known = [self.images.get(name, frozenset()) for name in (first, second)]
        return known == [{0}, {1}] and self.shapes[first] == self.shapes[second]

    def _ends(self, node: onnx.NodeProto) -> bool:
        """Takes a node out that gives the halves of a batch, and names the halves as it did."""
        name = node.input[0]
        if name not in self.halves or self.axes.get(name):
            return False
        rows = self.shapes[name][0] // 2
        if node.op_type == "Split" and _attribute(node, "axis", 0) == 0 and len(node.output) == 2:
            if any(self.shapes[output][0] != rows for output in node.output):
                return False
            wanted = dict(enumerate(node.output))
        elif node.op_type == "Slice":
            half = self._sliced_half(node, rows)
            if half is None:
                return False
            wanted = {half: node.output[0]}
        else:
            return False
        for half, output in wanted.items():
            self.nodes.append(helper.make_node("Identity", [self.halves[name][half]], [output], f"{output}/half"))
            self.images[output] = frozenset([half])
        return True

    def _sliced_half(self, node: onnx.NodeProto, rows: int) -> int | None:
        values = [self._constant(name) for name in node.input[1:]]
        if any(value is None or value.size != 1 for value in values):
            return None
        starts, ends, *rest = (int(value.reshape(())) for value in values if value is not None)
        axis, step = (*rest, *(0, 1)[len(rest) :])
        if axis != 0 or step != 1:
            return None
        return {(0, rows): 0, (rows, 2 * rows): 1}.get((starts, min(ends, 2 * rows)))

    def _join(self, name: str) -> None:
        """Makes a batch again that was taken apart, for a node that needs it whole.

        A node that backends compute together with the next one is left whole instead, and what it reads is joined: a
        convolution with an addition, a factor with a product. Two nodes would round once more than one does.
        """
        if name not in self.halves or name in self.joined:
            return
        self.joined.add(name)
        original = self.originals.get(name)
        if original is not None and self._is_fused(original):
            for read in original.input:
                self._join(read)
            self.nodes.append(original)
            return
        axis = self.axes.get(name, 0)
        self.nodes.append(helper.make_node("Concat", list(self.halves[name]), [name], f"{name}/joined", axis=axis))

    def _is_fused(self, node: onnx.NodeProto) -> bool:
        if node.op_type in ("Mul", "Div"):
            return any(int(np.prod(self.shapes.get(name, (0,)))) == 1 for name in node.input)
        return node.op_type == "Conv"

    def _apart(self, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
        """The two nodes for the two images; None if it is not known how."""
        rule = _rule(node.op_type)
        if rule is None or (node.op_type not in _ANY_AXIS and any(self.axes.get(name) for name in node.input)):
            return None
        axis = _axis_after(self, node)
        shapes = [self.shapes.get(name) for name in node.output if name]
        if axis is None or any(not shape or shape[axis] < 2 or shape[axis] % 2 for shape in shapes):
            return None
        inputs = rule(self, node)
        if inputs is None:
            return None
        both = []
        for half in (0, 1):
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.name = f"{node.name or node.output[0]}/image{half}"
            copy.input[:] = [names[half] for names in inputs]
            copy.output[:] = [_names(name)[half] if name else "" for name in node.output]
            both.append(copy)
        for name in node.output:
            if name:
                half_shape = list(self.shapes[name])
                half_shape[axis] //= 2
                self.axes[name] = axis
                for half in (0, 1):
                    self.shapes[_names(name)[half]] = tuple(half_shape)
                    self.images[_names(name)[half]] = frozenset([half])
        return both

    # What the rules ask

    def plain(self, name: str) -> Halves:
        """A tensor that both nodes read as it is."""
        return name, name

    def half_constant(self, name: str) -> Halves | None:
        """One half of a constant whose halves are equal; None if they are not, or if it is no constant."""
        value = self._constant(name)
        if value is None or value.ndim == 0 or value.shape[0] % 2:
            return None
        first, second = np.split(value, 2)
        if not np.array_equal(first, second):
            return None
        return self.plain(self.editor.constant(f"{name}/half", np.ascontiguousarray(first)))

    def _constant(self, name: str) -> np.ndarray | None:
        weight = self.editor.weights.get(name)
        if weight is not None:
            return np.asarray(numpy_helper.to_array(weight))
        node = self.producers.get(name)
        if node is None or node.op_type not in ("Cast", "Constant", "Identity"):
            return None
        if node.op_type == "Constant":
            return np.asarray(numpy_helper.to_array(node.attribute[0].t)) if node.attribute[0].name == "value" else None
        value = self._constant(node.input[0])
        if value is None or node.op_type == "Identity":
            return value
        return value.astype(helper.tensor_dtype_to_np_dtype(_attribute(node, "to", 1)))


Rule = Callable[[_Unbatching, onnx.NodeProto], list[Halves] | None]


def _rule(op: str) -> Rule | None:
    if op in _ELEMENTWISE:
        return _elementwise
    if op in _BATCHED_FIRST:
        return _first_only
    if op in _ALONG_AXIS:
        return _along_axis
    if op in _REDUCTIONS:
        return _reduction
    return _RULES.get(op)


def _operand(work: _Unbatching, name: str, rank: int, least: int = 0) -> Halves | None:
    """An operand's halves: of a batch with `rank` axes, at least `least`; or of what has one row at most for all."""
    shape = work.shapes.get(name, ())
    if name in work.halves:
        return work.halves[name] if len(shape) == rank >= least else None
    if not name or len(shape) < rank or shape[0] == 1:
        return work.plain(name)
    return work.half_constant(name)


def _operands(work: _Unbatching, node: onnx.NodeProto, least: int = 0) -> list[Halves] | None:
    rank = max(len(work.shapes.get(name, ())) for name in node.input if name)
    found: list[Halves] = []
    for name in node.input:
        halves = _operand(work, name, rank, least)
        if halves is None:
            return None
        found.append(halves)
    return found


def _elementwise(work: _Unbatching, node: onnx.NodeProto) -> list[Halves] | None:
    """Other operands are taken apart too, or have one row at most for the whole batch."""
    return _operands(work, node)


def _first_only(work: _Unbatching, node: onnx.NodeProto) -> list[Halves] | None:
    """The first input is a batch, and the others are the same for all of it."""
    first, *rest = node.input
    if first not in work.halves or any(name in work.halves for name in rest):
        return None
    return [work.halves[first], *map(work.plain, rest)]


def _along_axis(work: _Unbatching, node: onnx.NodeProto) -> list[Halves] | None:
    rank = len(work.shapes[node.input[0]])
    return _first_only(work, node) if _attribute(node, "axis", -1) % rank else None


def _reduction(work: _Unbatching, node: onnx.NodeProto) -> list[Halves] | None:
    axes = work._constant(node.input[1]) if len(node.input) > 1 else None
    return _first_only(work, node) if _all_inner(axes, len(work.shapes[node.input[0]])) else None


def _all_inner(axes: np.ndarray | None, rank: int) -> bool:
    return axes is not None and axes.size > 0 and all(int(axis) % rank for axis in axes.reshape(-1))


def _matmul(work: _Unbatching, node: onnx.NodeProto) -> list[Halves] | None:
    """A batch of matrices with a batch, or with one matrix. Rows of one matrix would be a batch only on the left."""
    return _operands(work, node, least=3)


def _reshape(work: _Unbatching, node: onnx.NodeProto) -> list[Halves] | None:
    """Values keep their order, so the halves of a batch with an even number of rows are its halves before."""
    first, target = node.input[0], work.shapes[node.output[0]]
    if first not in work.halves or min(target) < 0:
        return None
    shape = np.array([target[0] // 2, *target[1:]], np.int64)
    return [work.halves[first], work.plain(work.editor.constant(f"{node.output[0]}/shape", shape))]


def _unsqueeze(work: _Unbatching, node: onnx.NodeProto) -> list[Halves] | None:
    axes = work._constant(node.input[1])
    return _first_only(work, node) if _all_inner(axes, len(work.shapes[node.output[0]])) else None


def _concat(work: _Unbatching, node: onnx.NodeProto) -> list[Halves] | None:
    rank = len(work.shapes[node.output[0]])
    if _attribute(node, "axis", 0) % rank == 0:
        return None
    found = [work.halves[name] if name in work.halves else work.half_constant(name) for name in node.input]
    return None if None in found else [halves for halves in found if halves is not None]


def _axis_after(work: _Unbatching, node: onnx.NodeProto) -> int | None:
    """The axis of the halves in what a node gives; None for a node that works along that axis.

    For nodes of `_ANY_AXIS`; all others leave the halves along the first axis.
    """
    name = node.input[0]
    axis, rank = work.axes.get(name, 0), len(work.shapes.get(name, ()))
    if node.op_type == "Transpose":
        return list(_attribute_list(node, "perm") or range(rank)[::-1]).index(axis)
    if node.op_type not in _ANY_AXIS:
        return 0
    if node.op_type == "Split":
        along = [_attribute(node, "axis", 0)]
    else:
        place = {"Slice": 3, "Squeeze": 1}[node.op_type]
        value = work._constant(node.input[place]) if len(node.input) > place else None
        along = [] if value is None else [int(item) for item in value.reshape(-1)]
    used = {item % rank for item in along}
    if not used or axis in used:
        return None
    return axis - sum(item < axis for item in used) if node.op_type == "Squeeze" else axis


def _pad(work: _Unbatching, node: onnx.NodeProto) -> list[Halves] | None:
    pads, rank = work._constant(node.input[1]), len(work.shapes[node.input[0]])
    inner = pads is not None and len(node.input) < 4 and pads[0] == pads[rank] == 0
    return _first_only(work, node) if inner else None


def _resize(work: _Unbatching, node: onnx.NodeProto) -> list[Halves] | None:
    """By factors, of which that of the batch is 1; or to a size, which becomes that of one half."""
    if node.input[0] not in work.halves or len(node.attribute) == 0:
        return None
    names = list(node.input) + [""] * (4 - len(node.input))
    if _attribute_list(node, "axes"):
        return None
    if names[3]:
        target = work._constant(names[3])
        if target is None or target[0] != work.shapes[names[0]][0]:
            return None
        target = target.copy()
        target[0] //= 2
        names[3] = work.editor.constant(f"{node.output[0]}/sizes", target)
    else:
        factors = work._constant(names[2])
        if factors is None or factors[0] != 1:
            return None
    return [work.halves[names[0]], *map(work.plain, names[1 : len(node.input)])]


_RULES: dict[str, Rule] = {
    "Concat": _concat,
    "MatMul": _matmul,
    "Pad": _pad,
    "Reshape": _reshape,
    "Resize": _resize,
    **dict.fromkeys(_ANY_AXIS, _first_only),
    "Unsqueeze": _unsqueeze,
}


def _names(name: str) -> Halves:
    return f"{name}/image0", f"{name}/image1"


def _attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((int(item.i) for item in node.attribute if item.name == name), default)


def _attribute_list(node: onnx.NodeProto, name: str) -> Sequence[int]:
    return next((list(item.ints) for item in node.attribute if item.name == name), [])
