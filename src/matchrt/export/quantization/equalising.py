"""Gives the channels of a tensor that will be in 8 bits one range, because they share one scale.

A Relu and a convolution are linear in the size of each channel: a channel is divided by a factor where it is made, and
the weights that read it are multiplied (Nagel et al., ICCV 2019, section 4.1). Where something else reads it, a product
with the factors follows. In fp32 nothing changes beyond rounding.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from matchrt.export.graph import GraphEditor
from matchrt.export.quantization.ranges import Inputs, probe_values

Peaks = Mapping[str, npt.NDArray[np.float64]]
# No channel is changed by more than this: one that is hardly ever in use says little about its range.
_LARGEST_FACTOR = 8.0


@dataclass(frozen=True)
class _Shared:
    """Tensors that one weight makes: in a graph for two sizes, each image has its own.

    weights: names of the weight and, if there is one, of the bias.
    tensors: their names. absorbing: the weights of the convolutions that read them; empty if anything else does too.
    """

    weights: tuple[str, ...]
    tensors: tuple[str, ...]
    absorbing: tuple[str, ...]


def equalisable(model: onnx.ModelProto, tensors: Collection[str]) -> tuple[str, ...]:
    """Those of the tensors whose channels can get one range: results of a convolution and its Relu. Raises nothing."""
    return tuple(name for shared in _found(model, tensors) for name in shared.tensors)


def measure_peaks(
    model: onnx.ModelProto, tensors: Collection[str], inputs: Iterable[Inputs], advance: Callable[[], None]
) -> Peaks:
    """The largest size `[C]` of each channel of tensors `[B,C,H,W]`, by name. advance: called after each input."""
    run = probe_values(model, sorted(tensors))
    found: dict[str, npt.NDArray[np.float64]] = {}
    for arrays in inputs:
        for values in run(arrays):
            for name, value in values.items():
                peak = np.abs(value).max(axis=(0, 2, 3)).astype(np.float64)
                found[name] = np.maximum(found.get(name, 0.0), peak)
        advance()
    return found


def equalise(model: onnx.ModelProto, peaks: Peaks) -> int:
    """Equalises the tensors of `peaks` in a plain fp32 graph, in place, and returns their number."""
    groups = _found(model, peaks)
    weights = {weight.name: weight for weight in model.graph.initializer}
    behind: dict[str, npt.NDArray[np.float64]] = {}
    for shared in groups:
        factors = _factors(np.max([peaks[name] for name in shared.tensors], axis=0))
        for name in shared.weights:
            _multiply(weights[name], 1 / factors, 0)
        for name in shared.absorbing:
            _multiply(weights[name], factors, 1)
        if not shared.absorbing:
            behind |= dict.fromkeys(shared.tensors, factors)
    _write_products(model, behind)
    return sum(len(shared.tensors) for shared in groups)


def _factors(peak: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """What to divide channels by: their peaks, of which the geometric mean is 1."""
    whole = np.maximum(peak, max(1e-3 * float(peak.max()), 1e-12))
    factors: npt.NDArray[np.float64] = whole / np.exp(np.log(whole).mean())
    return factors.clip(1 / _LARGEST_FACTOR, _LARGEST_FACTOR)


def _multiply(weight: onnx.TensorProto, factors: npt.NDArray[np.float64], axis: int) -> None:
    """Multiplies a weight along one axis, in place."""
    values = numpy_helper.to_array(weight).astype(np.float64)
    values = values * factors.reshape([-1 if a == axis else 1 for a in range(values.ndim)])
    weight.CopyFrom(numpy_helper.from_array(values.astype(np.float32), weight.name))


def _found(model: onnx.ModelProto, tensors: Collection[str]) -> list[_Shared]:
    editor = GraphEditor(model.graph)
    producers, readers = editor.producers(), editor.readers()
    made: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name in sorted(tensors):
        relu = producers.get(name)
        convolution = producers.get(relu.input[0]) if relu is not None and relu.op_type == "Relu" else None
        if convolution is not None and convolution.op_type == "Conv" and len(readers[convolution.output[0]]) == 1:
            made[tuple(weight for weight in convolution.input[1:] if weight)].append(name)
    groups = []
    for weights, names in made.items():
        # A weight that also makes another tensor, or that others read, cannot change.
        own = all(len(readers[weight]) == len(names) for weight in weights)
        if own and all(weight in editor.weights for weight in weights) and not editor.outputs.intersection(names):
            groups.append(_Shared(weights, tuple(names), _absorbing(editor, readers, names)))
    return groups


def _absorbing(editor: GraphEditor, readers: Mapping[str, list[onnx.NodeProto]], names: list[str]) -> tuple[str, ...]:
    """The weights of the convolutions that read these tensors, or nothing if they cannot take in the factors."""
    nodes = [node for name in names for node in readers.get(name, [])]
    weights = {node.input[1] for node in nodes if node.op_type == "Conv"}
    plain = all(node.op_type == "Conv" and node.input[1] in editor.weights and _ungrouped(node) for node in nodes)
    alone = sum(len(readers[weight]) for weight in weights) == len(nodes)
    return tuple(sorted(weights)) if plain and alone else ()


def _ungrouped(node: onnx.NodeProto) -> bool:
    return all(a.name != "group" or a.i == 1 for a in node.attribute)


def _write_products(model: onnx.ModelProto, behind: Mapping[str, npt.NDArray[np.float64]]) -> None:
    """Puts a product with the factors `[C]` behind each of these tensors, for everything that reads it."""
    editor = GraphEditor(model.graph)
    for node in editor.rewrite():
        for position, name in enumerate(node.input):
            if name in behind:
                node.input[position] = f"{name}/size"
        for name in node.output:
            if name in behind:
                factors = behind[name].astype(np.float32).reshape(1, -1, 1, 1)
                factor = editor.constant(f"{name}:factors", numpy_helper.from_array(factors, f"{name}:factors"))
                result = f"{name}/size"
                editor.after(onnx.helper.make_node("Mul", [name, factor], [result], result))
    editor.finish()
