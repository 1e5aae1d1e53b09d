"""Layers by precision, by kind and by part of the network, and the bytes of tensors."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from matchrt.manifest import EngineManifest, InputContract, TensorSpec
from matchrt.runtime.gpu.inspection.layers import Layer

ADDED = "(added by TensorRT)"


@dataclass(frozen=True)
class LayerSummary:
    """Numbers of layers.

    by_precision: by the types that they read and write.
    by_kind: by TensorRT's type of layer.
    by_part: for every part of the network, by precision; a fused layer counts in each part that it computes.
    """

    by_precision: dict[str, int]
    by_kind: dict[str, int]
    by_part: dict[str, dict[str, int]]


def summarise_layers(layers: Sequence[Layer]) -> LayerSummary:
    """Counts the layers, most frequent first, and by part in the order of execution. Raises nothing."""
    parts: dict[str, Counter[str]] = {}
    for layer in layers:
        for part in layer.parts or (ADDED,):
            parts.setdefault(part, Counter())[layer.precision] += 1
    return LayerSummary(
        by_precision=dict(Counter(layer.precision for layer in layers).most_common()),
        by_kind=dict(Counter(layer.kind for layer in layers).most_common()),
        by_part={part: dict(counts.most_common()) for part, counts in parts.items()},
    )


def tensor_bytes(manifest: EngineManifest) -> int:
    """Bytes of all inputs and outputs; of a dynamic engine at its largest size. Raises nothing."""
    return sum(_bytes(spec, manifest.input) for spec in (*manifest.inputs, *manifest.outputs))


def _bytes(spec: TensorSpec, contract: InputContract) -> int:
    largest = contract.profile.maximum if contract.profile is not None else (0, 0)
    sides = [_side(side, largest) for side in spec.shape]
    return math.prod(sides) * np.dtype(spec.dtype).itemsize


def _side(side: int | str, largest: tuple[int, int]) -> int:
    if isinstance(side, int):
        return side
    return largest[0] if side.startswith("height") else largest[1]
