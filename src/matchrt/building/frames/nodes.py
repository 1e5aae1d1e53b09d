"""Adds nodes to a graph, each under a name of the frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from matchrt.export.graph import GraphEditor
from matchrt.families.rules import FRAMES_PREFIX


class FrameNodes:
    """Adds nodes in order and names them after a module path that begins with `frames.`, as the rules know them.

    added: the nodes so far, to be put before or behind those of the network.
    """

    def __init__(self, editor: GraphEditor, module: str) -> None:
        self.added: list[onnx.NodeProto] = []
        self._editor = editor
        self._module = module
        self._count: dict[str, int] = {}
        self._inside: dict[str, FrameNodes] = {}

    def add(self, op_type: str, inputs: Sequence[str], output: str | None = None, **attributes: Any) -> str:
        """Adds a node of one output and returns that output's name."""
        return self.split(op_type, inputs, 1, [output] if output is not None else None, **attributes)[0]

    def split(
        self, op_type: str, inputs: Sequence[str], count: int, outputs: list[str] | None = None, **attributes: Any
    ) -> list[str]:
        """Adds a node of several outputs and returns their names."""
        name = self._name(op_type)
        outputs = outputs or ([name] if count == 1 else [f"{name}:{index}" for index in range(count)])
        self.added.append(helper.make_node(op_type, list(inputs), outputs, name, **attributes))
        return outputs

    def constant(self, values: npt.ArrayLike, dtype: npt.DTypeLike = np.float32) -> str:
        """Adds a constant and returns its name."""
        return self._editor.constant(self._name("constant"), np.asarray(values, dtype))

    def cast(self, tensor: str, kind: int = TensorProto.FLOAT) -> str:
        """The tensor in another type, float32 by default."""
        return self.add("Cast", [tensor], to=kind)

    def reshape(self, tensor: str, shape: Sequence[int]) -> str:
        """The tensor in another shape; 0 keeps a side, and -1 is computed."""
        return self.add("Reshape", [tensor, self.constant(shape, np.int64)])

    def piece(self, tensor: str, axis: int, start: int, end: int) -> str:
        """A part of the tensor along one axis."""
        given = (self.constant([value], np.int64) for value in (start, end, axis))
        return self.add("Slice", [tensor, *given])

    def plus(self, tensor: str, value: npt.ArrayLike) -> str:
        """The tensor plus a constant."""
        return self.add("Add", [tensor, self.constant(value)])

    def times(self, tensor: str, value: npt.ArrayLike) -> str:
        """The tensor times a constant."""
        return self.add("Mul", [tensor, self.constant(value)])

    def clip(self, tensor: str, low: float | None, high: float | None) -> str:
        """The tensor with its values limited; None sets no limit."""
        limits = ["" if value is None else self.constant(value) for value in (low, high)]
        return self.add("Clip", [tensor, *limits])

    def within(self, part: str) -> FrameNodes:
        """Adds nodes in a module inside of this one, in the same order."""
        inside = self._inside.get(part)
        if inside is None:
            inside = self._inside[part] = FrameNodes(self._editor, f"{self._module}.{part}")
            inside.added = self.added
        return inside

    def _name(self, kind: str) -> str:
        number = self._count[kind] = self._count.get(kind, -1) + 1
        return f"{FRAMES_PREFIX}{self._module}/{kind}_{number}"
