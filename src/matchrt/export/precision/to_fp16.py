"""Writes fp16 into a graph: every node gets a type, Casts join nodes of different types, weights follow their nodes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper

from matchrt.errors import InternalError, MatchRTError
from matchrt.export.graph import GraphEditor
from matchrt.export.precision.graph_types import FLOATS, element_types, follows_input, follows_output, opset
from matchrt.export.precision.to_fp32 import COPY, TO_FP16, TO_FP32, set_source_type
from matchrt.families.rules import PASSING, NodeType, PrecisionRules

_ONNX_TYPE = {"fp16": TensorProto.FLOAT16, "fp32": TensorProto.FLOAT}
_CAST = {"fp16": TO_FP16, "fp32": TO_FP32}


@dataclass(frozen=True)
class Fp16Summary:
    """What `to_fp16` did.

    claimed: the number of nodes that each rule decided on, by the rule's name.
    computing: the number of nodes that compute in `fp16` and in `fp32`, without those that only move data.
    casts: the number of Casts that were added.
    weights: the number of weights that are stored as float16 now.
    flushed: the number of weight values that became 0, because they are too small for float16.
    """

    claimed: Counter[str]
    computing: Counter[str]
    casts: int
    weights: int
    flushed: int


@dataclass
class _Plan:
    """All decisions, made before anything changes.

    nodes: the type of each node by its name; nodes without floats are missing.
    tensors: the type of each tensor by its name; weights and inputs of the graph are missing.
    claimed, computing: see `Fp16Summary`.
    """

    nodes: dict[str, NodeType] = field(default_factory=dict)
    tensors: dict[str, NodeType] = field(default_factory=dict)
    claimed: Counter[str] = field(default_factory=Counter)
    computing: Counter[str] = field(default_factory=Counter)

    def settle(self, node: onnx.NodeProto, kind: NodeType) -> None:
        """Sets the type of the node and of all its outputs; for an output that is no float it is never looked up."""
        self.nodes[node.name] = kind
        self.tensors.update(dict.fromkeys(node.output, kind))


def to_fp16(model: onnx.ModelProto, rules: PrecisionRules, in_fp32: Collection[str] = ()) -> Fp16Summary:
    """Changes a plain fp32 model in place.

    in_fp32: names of nodes that stay in fp32 whatever the rules say.
    Errors: `precision-unruled`, `precision-overflow`, `precision-rule`.
    """
    types = element_types(model)
    floats = {name for name, kind in types.items() if kind in FLOATS}
    plan = _decide(model, rules, floats, in_fp32)
    editor = GraphEditor(model.graph)
    typed = _TypedNodes(editor, plan, floats, opset(model))
    typed.write()
    weights, flushed = _convert_weights(editor, typed.wanted)
    editor.finish()
    return Fp16Summary(plan.claimed, plan.computing, typed.casts, weights, flushed)


def _decide(model: onnx.ModelProto, rules: PrecisionRules, floats: set[str], in_fp32: Collection[str]) -> _Plan:
    plan = _Plan()
    producers = {output: node for node in model.graph.node for output in node.output if output}
    constants: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.op_type in ("Shape", "Size") or not floats.intersection((*node.input, *node.output)):
            continue
        if node.name in in_fp32:
            plan.settle(node, "fp32")
            continue
        rule = rules.rule_for(node, lambda n: _operands(n, producers))
        kind = rule.precision if rule is not None else _moved(node, plan)
        if rule is not None:
            plan.claimed[rule.name] += 1
            plan.computing[rule.precision] += node.op_type not in PASSING
        if kind is None:
            constants.append(node)
        else:
            plan.settle(node, kind)
    _decide_constants(model.graph, constants, plan)
    return plan


def _decide_constants(graph: onnx.GraphProto, constants: list[onnx.NodeProto], plan: _Plan) -> None:
    """A node that moves only weights takes the type of its readers: fp16 where all of them are fp16."""
    for node in reversed(constants):
        kinds = {plan.nodes[n.name] for n in graph.node if n.name in plan.nodes and set(n.input) & set(node.output)}
        plan.settle(node, "fp16" if kinds == {"fp16"} else "fp32")


def _operands(node: onnx.NodeProto, producers: dict[str, onnx.NodeProto]) -> Iterator[str]:
    """Names of the nodes that compute the node's inputs, seen through operators that only move data."""
    waiting = list(node.input)
    while waiting:
        producer = producers.get(waiting.pop())
        if producer is None:
            continue
        if producer.op_type in PASSING:
            waiting += producer.input[: None if producer.op_type == "Concat" else 1]
        else:
            yield producer.name


def _moved(node: onnx.NodeProto, plan: _Plan) -> NodeType | None:
    """The type of a node that only moves data: fp32 where its inputs differ, None where all of them are constant."""
    kinds = {plan.tensors[name] for name in node.input if name in plan.tensors}
    if not kinds:
        return None
    return kinds.pop() if len(kinds) == 1 else "fp32"


class _TypedNodes:
    """Gives every node its inputs in its type; a tensor is cast once, whoever needs it.

    wanted: for each weight, the types in which nodes read it.
    casts: the number of Casts that were added.
    """

    def __init__(self, editor: GraphEditor, plan: _Plan, floats: set[str], version: int) -> None:
        self.wanted: dict[str, set[NodeType]] = defaultdict(set)
        self.casts = 0
        self._editor = editor
        self._plan = plan
        self._floats = floats
        self._version = version
        self._cast: dict[tuple[str, NodeType], str] = {}

    def write(self) -> None:
        """Rewrites the nodes."""
        for node in self._editor.rewrite():
            kind = self._plan.nodes.get(node.name)
            if kind is not None:
                self._read_inputs(node, kind)
            if kind == "fp16":
                self._write_outputs(node)

    def _read_inputs(self, node: onnx.NodeProto, kind: NodeType) -> None:
        for position, name in enumerate(node.input):
            if name in self._floats:
                # Operators read fp16 only at inputs whose schema allows both float types; all others get fp32.
                wanted = kind if follows_input(node.op_type, position, self._version) else "fp32"
                read_weight = name in self._editor.weights
                node.input[position] = self._weight(name, wanted) if read_weight else self._tensor(name, wanted)

    def _weight(self, name: str, wanted: NodeType) -> str:
        self.wanted[name].add(wanted)
        return f"{name}{COPY}" if wanted == "fp16" else name

    def _tensor(self, name: str, wanted: NodeType) -> str:
        """The name of the tensor in the wanted type; a Cast is put before the node where it needs one."""
        if self._plan.tensors.get(name, "fp32") == wanted:
            return self._computed(name)
        if (name, wanted) not in self._cast:
            self._cast[name, wanted] = f"{name}{_CAST[wanted]}"
            self._editor.before(self._add_cast(self._computed(name), self._cast[name, wanted], wanted, name))
        return self._cast[name, wanted]

    def _write_outputs(self, node: onnx.NodeProto) -> None:
        set_source_type(node, TensorProto.FLOAT, TensorProto.FLOAT16)
        for position, name in enumerate(node.output):
            if name not in self._floats:
                continue
            if not follows_output(node.op_type, position, self._version):
                raise _impossible(node)
            node.output[position] = self._computed(name)
            if name in self._editor.outputs:
                self._editor.after(self._add_cast(node.output[position], name, "fp32", name))
                self._cast[name, "fp32"] = name

    def _computed(self, name: str) -> str:
        """The name under which a tensor is computed: an fp16 graph output is cast, and the cast has its name."""
        return f"{name}{COPY}" if name in self._editor.outputs and self._plan.tensors.get(name) == "fp16" else name

    def _add_cast(self, source: str, result: str, kind: NodeType, tensor: str) -> onnx.NodeProto:
        self.casts += 1
        return onnx.helper.make_node("Cast", [source], [result], f"{tensor}{_CAST[kind]}", to=_ONNX_TYPE[kind])


def _convert_weights(editor: GraphEditor, wanted: Mapping[str, set[NodeType]]) -> tuple[int, int]:
    """Weights that only fp16 nodes use change type and keep their name; those that both use get a float16 copy."""
    names: dict[str, str] = {}
    count = flushed = 0
    for name, kinds in wanted.items():
        if "fp16" not in kinds:
            continue
        half, lost = _half(editor, name)
        count += 1
        flushed += lost
        if "fp32" in kinds:
            editor.constant(f"{name}{COPY}", half)
        else:
            editor.replace_weight(name, half)
            names[f"{name}{COPY}"] = name
    editor.rewire(names)
    return count, flushed


def _half(editor: GraphEditor, name: str) -> tuple[npt.NDArray[np.float16], int]:
    """The weight in float16, and how many of its values became 0. Error: `precision-overflow`."""
    values = numpy_helper.to_array(editor.weights[name])
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    if (np.isfinite(values) & ~np.isfinite(half)).any():
        largest = float(np.abs(values[np.isfinite(values)]).max())
        user = editor.readers()[f"{name}{COPY}"][0]
        raise MatchRTError(
            "precision-overflow",
            f"The weight {name} of {user.name} reaches {largest:.6g}; fp16 ends at 65504.",
            "Build with fp32, or use a checkpoint whose weights are in range.",
        )
    return half, int(np.count_nonzero((half == 0) & (values != 0)))


def _impossible(node: onnx.NodeProto) -> InternalError:
    return InternalError(
        "precision-rule",
        f"A precision rule puts {node.name} in fp16, and {node.op_type} has no fp16 output.",
        "Build with fp32, and report this as a bug.",
    )
