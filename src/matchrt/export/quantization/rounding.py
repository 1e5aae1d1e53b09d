"""Weights in 8 bits whose errors cancel on what the product reads, by GPTQ (Frantar et al., ICLR 2023, section 3).

Each weight is rounded in turn, and those that are still to come make up for its error as far as their inputs go with
its own. A fused RepVGG kernel needs that: the identity is in the middle of the kernel, up to 29 times as large as the
other weights are on average, so these have only a few of the 127 steps.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from matchrt.export.quantization.moments import Moments
from matchrt.export.quantization.scales import Affine, quantize_weight

Doubles = npt.NDArray[np.float64]
# Added to the moments of the inputs, as a share of their mean: inputs that never vary would allow any change.
_DAMPING = 0.01


@dataclass(frozen=True)
class RoundedWeight:
    """A weight in 8 bits.

    whole: int8, with the weight's shape.
    affine: its scales, one for each output channel.
    """

    whole: npt.NDArray[np.generic]
    affine: Affine


def round_weights(model: onnx.ModelProto, products: Collection[str], moments: Moments) -> dict[str, RoundedWeight]:
    """The weights of the convolutions whose moments are known, by name; their biases are changed in the model.

    model: a plain fp32 graph. products: names of the nodes to quantise. A bias that other layers read stays as it is.
    """
    weights = {weight.name: weight for weight in model.graph.initializer}
    readers = Counter((name, node.name) for node in model.graph.node for name in node.input)
    users: dict[str, set[str]] = defaultdict(set)
    for name, node in readers:
        users[name].add(node)
    found: dict[str, RoundedWeight] = {}
    for node in model.graph.node:
        name = node.input[1] if node.name in products else ""
        if name not in moments or name in found:
            continue
        kernel = numpy_helper.to_array(weights[name]).astype(np.float64)
        _, affine = quantize_weight(kernel.astype(np.float32), 0, "int8")
        bias = node.input[2] if len(node.input) > 2 else ""
        movable = bool(bias) and users[bias] == users[name]
        shift = numpy_helper.to_array(weights[bias]).astype(np.float64) if movable else None
        whole, shift = compensated(kernel.reshape(len(kernel), -1), shift, moments[name], affine.scale)
        found[name] = RoundedWeight(whole.reshape(kernel.shape), affine)
        if shift is not None:
            weights[bias].CopyFrom(numpy_helper.from_array(shift.astype(np.float32), bias))
    return found


def compensated(
    kernel: Doubles, bias: Doubles | None, moment: Doubles, scale: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.int8], Doubles | None]:
    """A kernel `[out, n]` in steps of its scales `[out]`, int8, and the bias `[out]` that makes up for the rest.

    bias: None if there is none that may change. moment: as `measure_moments` gives it, `[n + 1, n + 1]`.
    """
    count = kernel.shape[1]
    # Those that matter most first, while there are many left to make up for their errors; the bias, a weight whose
    # input is 1 and which needs no rounding, is last.
    order = np.argsort(-np.diag(moment)[:count], kind="stable")
    rest = kernel[:, order].copy()
    if bias is not None:
        order, rest = np.append(order, count), np.concatenate([rest, bias[:, None]], axis=1)
    damping = np.full(len(moment), _DAMPING * float(np.diag(moment)[:count].mean()) + 1e-12)
    damping[count] = 1e-12
    upper = _root_of_inverse((moment + np.diag(damping))[np.ix_(order, order)])
    whole = np.zeros(kernel.shape, np.int8)
    for place in range(count):
        rounded = np.clip(np.rint(rest[:, place] / scale), -127, 127)
        whole[:, order[place]] = rounded.astype(np.int8)
        error = (rest[:, place] - rounded * scale) / upper[place, place]
        rest[:, place + 1 :] -= error[:, None] * upper[place, place + 1 :]
    return whole, None if bias is None else rest[:, count]


def _root_of_inverse(moment: Doubles) -> Doubles:
    """Upper triangular U with U' U = the inverse of a positive definite matrix."""
    root: Doubles = np.linalg.cholesky(np.linalg.inv(moment)).T
    return root
