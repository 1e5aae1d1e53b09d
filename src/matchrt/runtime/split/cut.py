"""Cuts an engine's graph in two: what depends on one image alone, and the rest.

The first part computes everything that needs only one of the two images, as far as it goes: LoFTR's backbone, its first
layer of self-attention, and the first products of the layer after that. Both images go through the same nodes with the
same weights, so one graph serves both; nodes that only one of them has are in it too. The second part gets these
features of two images. Both are made of the whole graph's own nodes, so no number changes between them and the whole
graph, as far as the backend computes a node alike in both.

What depends on an image's size only, such as positions and masks, is computed where it is needed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from matchrt._util.onnx_parts import Node, Parts, is_one_value, put_together, take_apart, without_name

# The inputs of an engine for each of its two images; the first part has those of image 0.
IMAGE_INPUTS = (("image0", "size0", "coarse0"), ("image1", "size1", "coarse1"))
# They say how much of an image is padding, and nothing of its pixels.
_SIZES = ("size0", "size1")
# Operators whose result depends on the shape of what they read, and not on its values.
_SHAPES = ("Shape", "Size")
# Operators whose two operands may change places without a change of any bit.
_COMMUTATIVE = ("Add", "Mul", "Max", "Min", "And", "Or", "Equal")
# Operators that only say another shape of what they read first.
_VIEWS = ("Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity")
_PREFIX = "map"


@dataclass(frozen=True)
class CutGraph:
    """A graph in two parts.

    features: the ONNX graph of one image's features, whose outputs are `map0`, `map1` and so on.
    match: the ONNX graph that matches two images' features. Its inputs are `image0_map0`, `image1_map0` and so on, as
        far as it needs them, and of the whole graph's inputs the sizes, and images of whose shape it makes use.
    """

    features: bytes
    match: bytes


def feature_input(side: int, name: str) -> str:
    """The name of the second part's input for a map of an image. side: 0 or 1. Raises nothing."""
    return f"image{side}_{name}"


def cut_graph(data: bytes) -> CutGraph:
    """Cuts the ONNX graph of an engine that matches one pair in a run.

    Error: ValueError, with the reason, for a graph that is no ONNX graph or has no such part.
    """
    graph = _Graph(take_apart(data))
    seen = _needed_by_both(graph)
    if not seen.maps[0] or not seen.maps[1]:
        raise ValueError("nothing in it depends on one image alone")
    maps = {digest: f"{_PREFIX}{index}" for index, digest in enumerate(seen.digests(graph))}
    if not graph.digests.keys().isdisjoint(maps.values()):
        raise ValueError(f"it has tensors of the names {_PREFIX}0 and so on")
    return CutGraph(_features(graph, maps), _match(graph, seen, maps))


@dataclass
class _Graph:
    """A graph, and what its tensors depend on.

    producers: the node of each tensor.
    values: the images on whose pixels a tensor depends.
    inputs: the graph's inputs on whose values or shape it depends.
    digests: equal for tensors that are computed alike from either image, or from none.
    """

    parts: Parts
    producers: dict[str, Node] = field(default_factory=dict)
    values: dict[str, frozenset[str]] = field(default_factory=dict)
    inputs: dict[str, frozenset[str]] = field(default_factory=dict)
    digests: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.parts.inputs:
            self.inputs[name] = frozenset([name])
            self.values[name] = frozenset() if name in _SIZES else self.inputs[name]
            side = _side_of([name])
            self.digests[name] = _digest(b"input", (name if side is None else IMAGE_INPUTS[side].index(name)))
        for name, weight in self.parts.weights.items():
            self.digests[name] = _digest(b"weight", without_name(weight))
        for node in self.parts.nodes:
            self._add(node)

    def _add(self, node: Node) -> None:
        read = [name for name in node.inputs if name]
        if any(name not in self.digests for name in read):
            raise ValueError("its nodes are not in order")
        inputs = frozenset[str]().union(*(self.inputs.get(name, frozenset()) for name in read))
        values = frozenset[str]().union(*(self.values.get(name, frozenset()) for name in read))
        told = [self.digests.get(name, b"") for name in node.inputs]
        if node.op[0] in _COMMUTATIVE:
            told.sort()
        if inputs and _side_of(inputs) is None:  # of both images, between which digests make no difference
            told.append(node.name.encode())
        for index, name in enumerate(node.outputs):
            if not name:
                continue
            self.producers[name] = node
            self.inputs[name] = inputs
            self.values[name] = frozenset() if node.op[0] in _SHAPES else values
            self.digests[name] = _digest(*node.op, node.attributes, len(node.outputs), index, *told)

    def side(self, name: str) -> int | None:
        """0 or 1 for a tensor that depends on this image alone; None for one of both images, or of none."""
        return _side_of(self.inputs.get(name, ()))

    def is_content(self, name: str) -> bool:
        """Whether a tensor depends on the pixels of one image, and on nothing of the other."""
        return self.side(name) is not None and bool(self.values[name])


@dataclass
class _Needed:
    """What the second part is made of.

    nodes: the names of its nodes (`Node.name`).
    maps: by image, the features that it gets, in the order of its nodes.
    inputs: the whole graph's inputs that it gets too.
    """

    nodes: set[str] = field(default_factory=set)
    maps: tuple[dict[str, None], dict[str, None]] = field(default_factory=lambda: ({}, {}))
    inputs: set[str] = field(default_factory=set)

    def digests(self, graph: _Graph) -> list[bytes]:
        return list(dict.fromkeys(graph.digests[name] for maps in self.maps for name in maps))


def _needed_by_both(graph: _Graph) -> _Needed:
    """The second part: the graph's outputs and what they need, back to the features of one image."""
    found = _Needed()
    if any(graph.side(name) is not None for name in graph.parts.outputs):
        raise ValueError("one of its outputs depends on one image alone")
    todo = list(graph.parts.outputs)
    while todo:
        _add_needed(graph, found, todo)
        todo = _moved_back(graph, found)
    if any(graph.is_content(name) and _reads_values(graph, found, name) for name in found.inputs):
        raise ValueError("both images go through its first nodes together")
    return found


def _add_needed(graph: _Graph, found: _Needed, todo: list[str]) -> None:
    """Adds the nodes that compute the tensors of `todo`, and all nodes before them that are no part of the features."""
    while todo:
        name = todo.pop()
        node = graph.producers.get(name)
        if node is None:
            if name in graph.parts.inputs:
                found.inputs.add(name)
            continue
        side = graph.side(name)
        if side is not None and (graph.is_content(name) or _tells_shape_inside(graph, node)):
            found.maps[side][name] = None
        elif node.name not in found.nodes:
            found.nodes.add(node.name)
            todo += [read for read in reversed(node.inputs) if read]


def _moved_back(graph: _Graph, found: _Needed) -> list[str]:
    """Moves nodes that give features into the second part after all, and returns what they read.

    These are features that are other ones in another shape, and nodes that backends compute together with the next
    one, with one rounding less: a convolution to which the second part only adds something, and a factor of a product.
    """
    known, read = set(found.digests(graph)), []
    for own in found.maps:
        for name in list(own):
            node = graph.producers[name]
            view = node.op[0] in _VIEWS and graph.digests[node.inputs[0]] in known
            if view or _fuses_with(graph, node) == _readers(graph, found, name):
                del own[name]
                found.nodes.add(node.name)
                read += [item for item in node.inputs if item]
    return read


def _fuses_with(graph: _Graph, node: Node) -> frozenset[str] | None:
    """What reads a node's result if backends compute both at once; None for nodes of which we know no such thing."""
    if node.op[0] == "Conv":
        return frozenset(["Add"])
    if node.op[0] in ("Mul", "Div") and any(is_one_value(graph.parts.weights.get(name, b"")) for name in node.inputs):
        return frozenset(["MatMul"])
    return None


def _readers(graph: _Graph, found: _Needed, name: str) -> frozenset[str]:
    """The operators of the second part that read a tensor."""
    return frozenset(node.op[0] for node in graph.parts.nodes if node.name in found.nodes and name in node.inputs)


def _tells_shape_inside(graph: _Graph, node: Node) -> bool:
    """Whether a node tells the shape of features, which the second part would need for nothing else."""
    return node.op[0] in _SHAPES and node.inputs[0] in graph.producers and graph.is_content(node.inputs[0])


def _reads_values(graph: _Graph, found: _Needed, name: str) -> bool:
    """Whether the second part reads the values of an input of the whole graph, and not only its shape."""
    nodes = (node for node in graph.parts.nodes if node.name in found.nodes)
    return any(name in node.inputs and node.op[0] not in _SHAPES for node in nodes)


def _features(graph: _Graph, maps: Mapping[bytes, str]) -> bytes:
    """The first part: all nodes that lead to the features, of either image, each once."""
    needed: set[bytes] = set()
    todo = [name for name, digest in graph.digests.items() if digest in maps]
    while todo:
        name = todo.pop()
        if graph.digests[name] in needed:
            continue
        needed.add(graph.digests[name])
        if name in graph.producers:
            todo += [read for read in graph.producers[name].inputs if read]
    own = (*_own_inputs(graph, 1), *_own_inputs(graph, 0))  # image 0 comes last, and so gives its names
    names = {graph.digests[name]: name for name in (*own, *graph.parts.weights)}
    nodes: list[Node] = []
    for node in graph.parts.nodes:
        digests = {name: graph.digests[name] for name in node.outputs if name}
        if any(digest in needed for digest in digests.values()) and digests[node.name] not in names:
            outputs = {name: maps.get(digest, name) for name, digest in digests.items()}
            names |= {digest: outputs[name] for name, digest in digests.items()}
            inputs = [names[graph.digests[name]] if name else "" for name in node.inputs]
            nodes.append(node.renamed(inputs, (outputs.get(name, "") for name in node.outputs)))
    types = {maps[graph.digests[name]]: _type(graph, name) for name in graph.digests if graph.digests[name] in maps}
    used = {name for node in nodes for name in node.inputs}
    return _written(
        graph,
        nodes,
        {name: graph.parts.inputs[name] for name in _own_inputs(graph, 0) if name in used},
        {name: types[name] for name in maps.values()},
        "features",
    )


def _own_inputs(graph: _Graph, side: int) -> list[str]:
    return [name for name in graph.parts.inputs if name in IMAGE_INPUTS[side]]


def _match(graph: _Graph, found: _Needed, maps: Mapping[bytes, str]) -> bytes:
    """The second part, whose nodes keep their names."""
    names = {
        name: feature_input(side, maps[graph.digests[name]]) for side, own in enumerate(found.maps) for name in own
    }
    nodes = [
        node.renamed((names.get(name, name) for name in node.inputs), node.outputs)
        for node in graph.parts.nodes
        if node.name in found.nodes
    ]
    given = {name: kind for name, kind in graph.parts.inputs.items() if name in found.inputs}
    features = {names[name]: _type(graph, name) for own in found.maps for name in own}
    return _written(graph, nodes, given | features, graph.parts.outputs, "match")


def _written(
    graph: _Graph, nodes: list[Node], inputs: Mapping[str, bytes], outputs: Mapping[str, bytes], name: str
) -> bytes:
    used = {name for node in nodes for name in node.inputs}
    made = {name for node in nodes for name in node.outputs} - set(outputs)
    parts = replace(
        graph.parts,
        nodes=tuple(nodes),
        weights={name: weight for name, weight in graph.parts.weights.items() if name in used},
        inputs=inputs,
        outputs=outputs,
        types={name: kind for name, kind in graph.parts.types.items() if name in made},
    )
    return put_together(parts, name)


def _type(graph: _Graph, name: str) -> bytes:
    """The type of a tensor inside of the graph. Error: ValueError, if the graph does not say it."""
    kind = graph.parts.types.get(name)
    if kind is None:
        raise ValueError(f"it does not say the type of '{name}'")
    return kind


def _side_of(inputs: Iterable[str]) -> int | None:
    names = set(inputs)
    return next((side for side, own in enumerate(IMAGE_INPUTS) if names and names.issubset(own)), None)


def _digest(*told: object) -> bytes:
    digest = hashlib.sha256()
    for item in told:
        data = item if isinstance(item, bytes) else repr(item).encode()
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.digest()
