"""An ONNX graph taken apart and put together again, read from the bytes without the package `onnx`.

Nodes, weights and types stay the bytes that they are; only the names of tensors are read and written. So a graph that
is made of a part of another has exactly its nodes, and machines that only run engines can make it.
Protobuf's wire format: https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from matchrt._util.onnx_wire import BYTES, field

# Field numbers of onnx.proto (IR version 13).
_GRAPH, _TRAINING, _FUNCTIONS = 7, 20, 25
_NODE, _INITIALIZER, _INPUT, _OUTPUT, _VALUE_INFO, _SPARSE = 1, 5, 11, 12, 13, 15
_NODE_INPUT, _NODE_OUTPUT, _OP_TYPE, _ATTRIBUTE, _DOMAIN, _OVERLOAD = 1, 2, 4, 5, 7, 8
_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS = 6, 11
_VALUE_NAME, _VALUE_TYPE = 1, 2
_TENSOR_DIMS, _TENSOR_NAME = 1, 8
_TENSOR, _ELEMENT, _SHAPE, _SIDE = 1, 1, 2, 1


@dataclass(frozen=True)
class Node:
    """A node of a graph.

    op: what it computes: its operator, with the domain and the overload.
    inputs: the names of the tensors that it reads; an empty name is an input that is left out.
    outputs: the names of the tensors that it computes.
    attributes: their bytes, as they stand in the graph.
    rest: all its other fields but inputs and outputs, as bytes.
    """

    op: tuple[str, str, str]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: bytes
    rest: bytes

    @property
    def name(self) -> str:
        """The first tensor that it computes, by which it is known: no other node computes that."""
        return next(name for name in self.outputs if name)

    def renamed(self, inputs: Iterable[str], outputs: Iterable[str]) -> Node:
        """The same node with other tensors."""
        return replace(self, inputs=tuple(inputs), outputs=tuple(outputs))


@dataclass(frozen=True)
class Parts:
    """A graph taken apart.

    nodes: in the graph's order.
    weights: TensorProto messages by name.
    inputs, outputs: TypeProto messages by name, in the graph's order.
    types: TypeProto messages of tensors inside of the graph, by name, as far as the graph says them.
    around: the fields of the model beside the graph, as bytes.
    """

    nodes: tuple[Node, ...]
    weights: Mapping[str, bytes]
    inputs: Mapping[str, bytes]
    outputs: Mapping[str, bytes]
    types: Mapping[str, bytes]
    around: bytes


def take_apart(data: bytes) -> Parts:
    """Reads an ONNX file.

    Error: ValueError, for what is no ONNX file, and for graphs with graphs, functions or sparse weights inside.
    """
    around, graphs = bytearray(), []
    for number, wire, start, end, begin in _fields(data, 0, len(data)):
        if number == _GRAPH and wire == BYTES:
            graphs.append((start, end))
        elif number in (_TRAINING, _FUNCTIONS):
            raise ValueError("it has functions or training graphs")
        else:
            around += data[begin:end]
    if len(graphs) != 1:
        raise ValueError(f"it has {len(graphs)} graphs")
    nodes: list[Node] = []
    named: dict[int, dict[str, bytes]] = {number: {} for number in (_INITIALIZER, _INPUT, _OUTPUT, _VALUE_INFO)}
    for number, _, start, end, _ in _fields(data, *graphs[0]):
        if number == _NODE:
            nodes.append(_node(data, start, end))
        elif number == _INITIALIZER:
            named[number][_name(data, start, end, _TENSOR_NAME)] = data[start:end]
        elif number in named:
            name, kind = _value(data, start, end)
            named[number][name] = kind
        elif number == _SPARSE:
            raise ValueError("it has sparse weights")
    weights, inputs, outputs, types = named.values()
    given = {name: kind for name, kind in inputs.items() if name not in weights}
    return Parts(tuple(nodes), weights, given, outputs, types, bytes(around))


def put_together(parts: Parts, name: str) -> bytes:
    """The ONNX file of a graph. name: of the graph."""
    graph = bytearray()
    for node in parts.nodes:
        body = b"".join(
            [_text(_NODE_INPUT, item) for item in node.inputs]
            + [_text(_NODE_OUTPUT, item) for item in node.outputs]
            + [node.rest, node.attributes]
        )
        graph += _message(_NODE, body)
    graph += _text(2, name)
    for weight in parts.weights.values():
        graph += _message(_INITIALIZER, weight)
    for number, values in ((_INPUT, parts.inputs), (_OUTPUT, parts.outputs), (_VALUE_INFO, parts.types)):
        for tensor, kind in values.items():
            graph += _message(number, _text(_VALUE_NAME, tensor) + _message(_VALUE_TYPE, kind))
    return parts.around + _message(_GRAPH, bytes(graph))


def without_name(weight: bytes) -> bytes:
    """A TensorProto without its name: equal for weights of the same values that are stored alike."""
    kept = (told for told in _fields(weight, 0, len(weight)) if told[0] != _TENSOR_NAME)
    return b"".join(weight[begin:end] for _, _, _, end, begin in kept)


def is_one_value(weight: bytes) -> bool:
    """Whether a TensorProto, or no bytes in place of one, is a tensor of a single value."""
    fields = list(_fields(weight, 0, len(weight)))
    return bool(fields) and all(value == 1 for number, _, value, _, _ in fields if number == _TENSOR_DIMS)


def type_of(kind: bytes) -> tuple[int, tuple[int | None, ...] | None]:
    """The element type, by ONNX's number, and the shape of a TypeProto; None for a side, or a shape, that it lacks.

    Error: ValueError for what is no tensor's type.
    """
    for number, _, start, end, _ in _fields(kind, 0, len(kind)):
        if number == _TENSOR:
            return _tensor_type(kind, start, end)
    raise ValueError("it has a tensor whose type is not told")


def _tensor_type(kind: bytes, start: int, end: int) -> tuple[int, tuple[int | None, ...] | None]:
    element, shape = 0, None
    for number, _, value, stop, _ in _fields(kind, start, end):
        if number == _ELEMENT:
            element = value
        elif number == _SHAPE:
            sides = [(first, last) for _, _, first, last, _ in _fields(kind, value, stop)]
            shape = tuple(_side(kind, first, last) for first, last in sides)
    return element, shape


def _side(kind: bytes, start: int, end: int) -> int | None:
    told = [value for number, _, value, _, _ in _fields(kind, start, end) if number == _SIDE]
    return told[-1] if told else None


def _fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
    """The fields of a message: number, wire type, value (of bytes: their start), end, and where it begins."""
    while at < end:
        begin = at
        number, wire, value, at = field(data, at, end)
        yield number, wire, value, at, begin


def _node(data: bytes, at: int, end: int) -> Node:
    texts: dict[int, list[str]] = {number: [] for number in (_NODE_INPUT, _NODE_OUTPUT, _OP_TYPE, _DOMAIN, _OVERLOAD)}
    attributes, rest = bytearray(), bytearray()
    for number, _, start, stop, begin in _fields(data, at, end):
        if number in texts:
            texts[number].append(data[start:stop].decode())
        if number == _ATTRIBUTE:
            if any(inner[0] in (_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS) for inner in _fields(data, start, stop)):
                raise ValueError("it has graphs inside of nodes")
            attributes += data[begin:stop]
        elif number not in (_NODE_INPUT, _NODE_OUTPUT):
            rest += data[begin:stop]
    op = tuple("".join(texts[number]) for number in (_OP_TYPE, _DOMAIN, _OVERLOAD))
    return Node(
        (op[0], op[1], op[2]), tuple(texts[_NODE_INPUT]), tuple(texts[_NODE_OUTPUT]), bytes(attributes), bytes(rest)
    )


def _value(data: bytes, at: int, end: int) -> tuple[str, bytes]:
    kind = b""
    for number, wire, start, stop, _ in _fields(data, at, end):
        if number == _VALUE_TYPE and wire == BYTES:
            kind = data[start:stop]
    return _name(data, at, end, _VALUE_NAME), kind


def _name(data: bytes, at: int, end: int, field_number: int) -> str:
    found = ((start, stop) for number, _, start, stop, _ in _fields(data, at, end) if number == field_number)
    start, stop = next(found, (0, 0))
    return data[start:stop].decode()


def _message(number: int, body: bytes) -> bytes:
    return _varint_bytes(number << 3 | BYTES) + _varint_bytes(len(body)) + body


def _text(number: int, text: str) -> bytes:
    return _message(number, text.encode())


def _varint_bytes(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
