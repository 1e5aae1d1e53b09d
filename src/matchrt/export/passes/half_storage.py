"""Stores weights in half precision if that loses nothing. The file halves, and no number changes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from matchrt.export.graph import GraphEditor
from matchrt.export.passes.base import PassResult, broken_promise
from matchrt.export.passes.conditions import require_weights_inside

# The end of the name of a weight that is stored in half precision.
STORED = ":half"


@dataclass(frozen=True)
class HalfStorage:
    """Replaces a float32 weight whose every value is a float16 by that float16 tensor and a Cast.

    Arithmetic stays float32; runtimes fold the Cast when they load the graph.

    min_elements: weights of fewer values stay float32.
    name: the name of the pass in the manifest.
    """

    min_elements: int = 256
    name: str = "half-storage"

    def requires(self, model: onnx.ModelProto) -> None:
        """Weights must be inside the file. Error: `pass-requirement`."""
        require_weights_inside(self.name, model)

    def apply(self, model: onnx.ModelProto) -> PassResult:
        """Converts the weights that half precision represents exactly, and no others."""
        editor = GraphEditor(model.graph)
        count = saved = 0
        for name, weight in tuple(editor.weights.items()):
            half = _exact_half(weight, self.min_elements)
            if half is None:
                continue
            stored = f"{name}{STORED}"
            editor.replace_weight(name, half, stored)
            editor.before(onnx.helper.make_node("Cast", [stored], [name], f"{name}/Cast", to=onnx.TensorProto.FLOAT))
            count += 1
            saved += half.nbytes
        editor.finish()
        return PassResult(model, count, f"stored {count} weights in half, {saved} bytes saved")

    def ensures(self, model: onnx.ModelProto) -> None:
        """Every half-precision weight goes through a Cast to float32 before it is used. Error: `pass-promise`."""
        halves = {i.name for i in model.graph.initializer if i.data_type == onnx.TensorProto.FLOAT16}
        if any(halves & set(node.input) and node.op_type != "Cast" for node in model.graph.node):
            raise broken_promise(self.name, "a half-precision weight is used without a Cast")


def _exact_half(initializer: onnx.TensorProto, min_elements: int) -> np.ndarray | None:
    if initializer.data_type != onnx.TensorProto.FLOAT:
        return None
    values = numpy_helper.to_array(initializer)
    if values.size < min_elements or np.abs(values).max(initial=0.0) > np.finfo(np.float16).max:
        return None
    half = values.astype(np.float16)
    return half if bool((half.astype(np.float32) == values).all()) else None
