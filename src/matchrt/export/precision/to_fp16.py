"""Writes a precision into the graph: every node gets a type, Casts join the regions, weights change type with them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from matchrt.errors import InternalError, MatchRTError
from matchrt.export.precision.graph_types import FLOATS, element_types, follows_input, follows_output, opset
from matchrt.export.precision.to_fp32 import COPY, TO_FP16, TO_FP32, set_source_type
from matchrt.families.rules import PASSING, NodeType, PrecisionRules

_ONNX_TYPE = {"fp16": TensorProto.FLOAT16, "fp32": TensorProto.FLOAT}
_CAST = {"fp16": TO_FP16, "fp32": TO_FP32}


@dataclass(frozen=True)
class Lowered:
    """What was done: nodes that each rule claimed, nodes that compute in each type, Casts added, weights in float16.

    flushed: weight values that were not zero and are now, being too small for float16.
    """

    claimed: Counter[str]
    computing: Counter[str]
    casts: int
    weights: int
    flushed: int


@dataclass
class _Plan:
    """Decisions by name, before anything changes."""

    nodes: dict[str, NodeType] = field(default_factory=dict)
    tensors: dict[str, NodeType] = field(default_factory=dict)
    claimed: Counter[str] = field(default_factory=Counter)
    computing: Counter[str] = field(default_factory=Counter)

    def settle(self, node: onnx.NodeProto, kind: NodeType) -> None:
        """The node and all that it gives are of this type; what is no float never asks."""
        self.nodes[node.name] = kind
        self.tensors.update(dict.fromkeys(node.output, kind))


def lower(model: onnx.ModelProto, rules: PrecisionRules) -> Lowered:
    """Changes a plain fp32 model in place. Errors: `precision-unruled`, `precision-overflow`, `precision-rule`."""
    types = element_types(model)
    floats = {name for name, kind in types.items() if kind in FLOATS}
    plan = _decide(model, rules, floats)
    weights = {w.name: w for w in model.graph.initializer if w.name in floats}
    writer = _Writer(model, plan, floats, weights)
    casts = writer.write()
    halves, flushed = _convert_weights(model.graph, writer.wanted, weights)
    return Lowered(plan.claimed, plan.computing, casts, halves, flushed)


def _decide(model: onnx.ModelProto, rules: PrecisionRules, floats: set[str]) -> _Plan:
    plan = _Plan()
    producers = {output: node for node in model.graph.node for output in node.output if output}
    constants: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.op_type in ("Shape", "Size") or not floats.intersection((*node.input, *node.output)):
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
    """What moves only weights takes the type of those who read it: fp16 when all of them do."""
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
    """The type of what is moved: fp32 where parts differ, which loses nothing; None where all of it is constant."""
    kinds = {plan.tensors[name] for name in node.input if name in plan.tensors}
    if not kinds:
        return None
    return kinds.pop() if len(kinds) == 1 else "fp32"


class _Writer:
    """Gives every node its inputs in its type; a tensor is cast once, whoever needs it."""

    def __init__(
        self, model: onnx.ModelProto, plan: _Plan, floats: set[str], weights: dict[str, onnx.TensorProto]
    ) -> None:
        self.graph = model.graph
        self.plan = plan
        self.floats = floats
        self.weights = weights
        self.version = opset(model)
        self.outputs = {value.name for value in model.graph.output}
        self.wanted: dict[str, set[NodeType]] = defaultdict(set)  # weights, by who needs them
        self.cast: dict[tuple[str, NodeType], str] = {}

    def write(self) -> int:
        """Rewrites the nodes; returns the number of Casts."""
        nodes: list[onnx.NodeProto] = []
        for original in self.graph.node:
            node = onnx.NodeProto()
            node.CopyFrom(original)
            casts: list[onnx.NodeProto] = []
            if node.name in self.plan.nodes:
                casts = self._take_inputs(node, self.plan.nodes[node.name])
            nodes += [*casts, node, *self._give_outputs(node)]
        before = len(self.graph.node)
        del self.graph.node[:]
        self.graph.node.extend(nodes)
        return len(nodes) - before

    def _take_inputs(self, node: onnx.NodeProto, kind: NodeType) -> list[onnx.NodeProto]:
        casts = []
        for position, name in enumerate(node.input):
            if name not in self.floats:
                continue
            # A Cast takes any type, and a comparison or an index takes what there is only if the schema says so.
            wanted = kind if follows_input(node.op_type, position, self.version) else "fp32"
            if name in self.weights:
                self.wanted[name].add(wanted)
                node.input[position] = f"{name}{COPY}" if wanted == "fp16" else name
                continue
            given = self.plan.tensors.get(name, "fp32")
            if given == wanted:
                node.input[position] = self._written(name)
                continue
            if (name, wanted) not in self.cast:
                self.cast[name, wanted] = f"{name}{_CAST[wanted]}"
                casts.append(_cast_node(self._written(name), self.cast[name, wanted], wanted, name))
            node.input[position] = self.cast[name, wanted]
        return casts

    def _give_outputs(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        kind = self.plan.nodes.get(node.name, "fp32")
        if kind == "fp32":
            return []
        casts = []
        set_source_type(node, TensorProto.FLOAT, TensorProto.FLOAT16)
        for position, name in enumerate(node.output):
            if name not in self.floats:
                continue
            if not follows_output(node.op_type, position, self.version):
                raise _impossible(node)
            node.output[position] = self._written(name)
            if name in self.outputs:
                casts.append(_cast_node(node.output[position], name, "fp32", name))
                self.cast[name, "fp32"] = name
        return casts

    def _written(self, name: str) -> str:
        """The name under which a tensor is computed: an fp16 graph output is cast, and the cast has its name."""
        return f"{name}{COPY}" if name in self.outputs and self.plan.tensors.get(name) == "fp16" else name


def _cast_node(source: str, result: str, kind: NodeType, tensor: str) -> onnx.NodeProto:
    return onnx.helper.make_node("Cast", [source], [result], f"{tensor}{_CAST[kind]}", to=_ONNX_TYPE[kind])


def _convert_weights(
    graph: onnx.GraphProto, wanted: dict[str, set[NodeType]], weights: dict[str, onnx.TensorProto]
) -> tuple[int, int]:
    """Weights that only fp16 nodes use change type and keep their name; those that both use get a float16 copy."""
    renamed: dict[str, str] = {}
    flushed = 0
    halves: list[onnx.TensorProto] = []
    for name, kinds in wanted.items():
        if "fp16" not in kinds:
            continue
        both = "fp32" in kinds
        half, lost = _half(weights[name], _users(graph, f"{name}{COPY}"))
        flushed += lost
        tensor = numpy_helper.from_array(half, f"{name}{COPY}" if both else name)
        halves.append(tensor)
        if both:
            graph.initializer.append(tensor)
        else:
            weights[name].CopyFrom(tensor)
            renamed[f"{name}{COPY}"] = name
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
    return len(halves), flushed


def _half(weight: onnx.TensorProto, users: Iterable[str]) -> tuple[np.ndarray, int]:
    values = numpy_helper.to_array(weight)
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    if (np.isfinite(values) & ~np.isfinite(half)).any():
        largest = float(np.abs(values[np.isfinite(values)]).max())
        raise MatchRTError(
            "precision-overflow",
            f"The weight {weight.name} of {next(iter(users), 'the graph')} reaches {largest:.6g}; fp16 ends at 65504.",
            "Build with fp32, or use a checkpoint whose weights are in range.",
        )
    return half, int(np.count_nonzero((half == 0) & (values != 0)))


def _users(graph: onnx.GraphProto, name: str) -> Iterator[str]:
    return (node.name for node in graph.node if name in node.input)


def _impossible(node: onnx.NodeProto) -> InternalError:
    return InternalError(
        "precision-rule",
        f"A precision rule puts {node.name} in fp16, and {node.op_type} has no fp16 output.",
        "Build with fp32, and report this as a bug.",
    )
