"""Products with resize matrices for kernels that multiply in TF32, which keeps 11 significant bits of each factor.

Pixels are whole values of 8 bits, so only the weights are split: into a part of 11 bits and the rest, which has 11 bits
more. Both parts are side by side in one matrix, so that a resize is one product, and its halves are added. Sums of an
earlier pass have more bits than 11; they are split too, into whole values and the digits behind the point, and a
product of both splits has four parts. `exact_products` would split the pixels as well, whose rest is zero: at 1920x1080
that is four times the depth and 33 MB more to write.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from matchrt.export.graph import GraphEditor
from matchrt.families.rules import FRAMES_PREFIX
from matchrt.manifest import PassRecord

Values = npt.NDArray[np.float32]
# TF32 has 10 bits behind the leading one, float32 has 23.
_DROPPED = 13


def split_frame_products(model: onnx.ModelProto) -> tuple[PassRecord, ...]:
    """Splits the products that resize frames, in place, and says so; nothing for a graph without frames."""
    editor = GraphEditor(model.graph)
    count = 0
    for node in editor.rewrite():
        if node.op_type == "MatMul" and node.name.startswith(FRAMES_PREFIX):
            _Split(editor, node).write()
            count += 1
    if not count:
        return ()
    editor.finish(prune=True)
    return (PassRecord("frame-products", True, f"{count} products of frames split for kernels that multiply in TF32"),)


class _Split:
    """Writes one product as a product of parts and their sum. The node becomes the sum."""

    def __init__(self, editor: GraphEditor, node: onnx.NodeProto) -> None:
        self._editor, self._node = editor, node
        path = node.name.rpartition("/")[0]
        self._whole = path.endswith(".pixels")
        # A matrix from the left changes rows, and its planes are the second factor.
        left = node.input[0]
        self._rows = left in editor.weights or any(left == value.name for value in editor.graph.input)

    def write(self) -> None:
        """Puts the product and what it needs before the node, and makes the node an addition."""
        matrix, planes = self._node.input[:: 1 if self._rows else -1]
        parts = self._matrix(matrix)
        if not self._whole:
            planes = self._planes(planes)
        product = self._add("MatMul", [parts, planes] if self._rows else [planes, parts], "product")
        sides = [-2] if self._rows else [-1]
        if not self._whole:
            sides.append(-1 if self._rows else -2)
        for place, axis in enumerate(sides):
            halves = self._halves(product, f"halves{place}", axis)
            if place < len(sides) - 1:
                product = self._add("Add", halves, f"sum{place}")
        self._node.op_type = "Add"
        del self._node.input[:]
        self._node.input.extend(halves)

    def _matrix(self, name: str) -> str:
        """The two parts of a matrix, below one another or side by side."""
        axis = 0 if self._rows else 1
        split = f"{self._node.name}/split"
        if name in self._editor.weights:
            values = numpy_helper.to_array(self._editor.weights[name])
            high = _high_part(values)
            return self._editor.constant(split, np.concatenate([high, values - high], axis=axis))
        # A matrix that the runtime gives; a Cast cannot be simplified away.
        short = self._add("Cast", [name], "bf16", to=TensorProto.BFLOAT16)
        upper = self._add("Cast", [short], "high", to=TensorProto.FLOAT)
        rest = self._add("Sub", [name, upper], "rest")
        return self._add("Concat", [upper, rest], "split", axis=axis)

    def _planes(self, name: str) -> str:
        """The whole part and the rest of sums, along the axis that the product with the matrix leaves alone."""
        whole = self._add("Floor", [name], "whole")
        rest = self._add("Sub", [name, whole], "part")
        return self._add("Concat", [whole, rest], "parts", axis=-1 if self._rows else -2)

    def _halves(self, product: str, what: str, axis: int) -> list[str]:
        return self._node_of("Split", [product], [f"{self._node.name}/{what}:{half}" for half in (0, 1)], what,
                             axis=axis, num_outputs=2)  # fmt: skip

    def _add(self, op_type: str, inputs: Sequence[str], what: str, **attributes: Any) -> str:
        return self._node_of(op_type, inputs, [f"{self._node.name}/{what}"], what, **attributes)[0]

    def _node_of(
        self, op_type: str, inputs: Sequence[str], outputs: list[str], what: str, **attributes: Any
    ) -> list[str]:
        path, _, last = self._node.name.rpartition("/")
        self._editor.before(helper.make_node(op_type, list(inputs), outputs, f"{path}.{last}/{what}", **attributes))
        return outputs


def _high_part(values: Values) -> Values:
    """The values with 11 significant bits, rounded to nearest."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    half = np.uint32(1 << (_DROPPED - 1))
    high: Values = ((bits + half) & np.uint32(0xFFFFFFFF << _DROPPED & 0xFFFFFFFF)).view(np.float32)
    return high
