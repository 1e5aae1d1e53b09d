"""Second moments of what products read, over calibration pairs.

From them `rounding` knows how errors of weights add up in a product's results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from matchrt.export.quantization.ranges import Inputs, probe_values

Moments = Mapping[str, npt.NDArray[np.float64]]
# Results of a product that are looked at in one run. Neighbours are alike, so more of them hardly change the moments.
_SAMPLES = 600


@dataclass(frozen=True)
class _Layer:
    """A convolution whose moments are measured.

    source: the tensor that it reads. weight: the name of its weight. kernel, strides: height and width.
    pads: above, left, below, right.
    """

    source: str
    weight: str
    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]


def measure_moments(
    model: onnx.ModelProto, products: Iterable[str], inputs: Iterable[Inputs], advance: Callable[[], None]
) -> Moments:
    """The second moments of what the convolutions among the products read, by the names of their weights.

    A moment is the mean of the outer product of (v, 1) with itself, `[n + 1, n + 1]`; v is the window that gives one
    result, `[n]` in the order of the weight's last three axes. Convolutions with groups or dilations have none.
    model: a plain fp32 graph. products: names of nodes. advance: called after each of the inputs.
    """
    layers = _layers(model, frozenset(products))
    run = probe_values(model, sorted({layer.source for layer in layers}))
    rng = np.random.default_rng(0)
    sums: dict[str, npt.NDArray[np.float64]] = {}
    counts: dict[str, int] = {}
    for arrays in inputs:
        for values in run(arrays):
            for layer in (layer for layer in layers if layer.source in values):
                seen = _windows(values[layer.source], layer, rng)
                sums[layer.weight] = sums.get(layer.weight, 0.0) + seen.T @ seen
                counts[layer.weight] = counts.get(layer.weight, 0) + len(seen)
        advance()
    return {name: total / counts[name] for name, total in sums.items()}


def _layers(model: onnx.ModelProto, products: frozenset[str]) -> list[_Layer]:
    weights = {weight.name: tuple(weight.dims) for weight in model.graph.initializer}
    found = []
    for node in model.graph.node:
        if node.op_type != "Conv" or node.name not in products:
            continue
        given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        shape = weights[node.input[1]]
        padded = given.get("auto_pad", b"NOTSET") == b"NOTSET"
        if len(shape) != 4 or given.get("group", 1) != 1 or set(given.get("dilations", [1])) != {1} or not padded:
            continue
        strides, pads = given.get("strides", [1, 1]), given.get("pads", [0, 0, 0, 0])
        found.append(_Layer(node.input[0], node.input[1], shape[2:], tuple(strides), tuple(pads)))
    return found


def _windows(values: npt.NDArray[np.float32], layer: _Layer, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Some windows of `values [B,C,H,W]`, each with a 1 behind it: `[_SAMPLES, C * kernel + 1]`."""
    above, left, below, right = layer.pads
    wide = np.pad(values, ((0, 0), (0, 0), (above, below), (left, right)))
    windows = np.lib.stride_tricks.sliding_window_view(wide, layer.kernel, axis=(2, 3))
    windows = windows[:, :, :: layer.strides[0], :: layer.strides[1]].transpose(0, 2, 3, 1, 4, 5)
    image, row, column = (rng.integers(0, limit, _SAMPLES) for limit in windows.shape[:3])
    chosen = windows[image, row, column].reshape(_SAMPLES, -1).astype(np.float64)
    return np.concatenate([chosen, np.ones((_SAMPLES, 1))], axis=1)
