"""The .npz layout of IFViT-JAX's guide to LoFTR weights: the coarse transformer under names of its own.

    ours                                      IFViT's
    loftr_coarse.layers.3.q_proj.kernel       layers.3.0/q_proj/kernel and layers.3.1/q_proj/kernel
    loftr_coarse.layers.3.mlp.0.kernel        layers.3.0/mlp.0/kernel and layers.3.1/mlp.0/kernel

The second number is the image: IFViT-JAX has a layer for each. LoFTR has one layer for both, so both get its values.
The arrays are the same as in Flax's layout: kernels are [in, out]. This module imports NumPy only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import numpy as np

from matchrt.errors import MatchRTError
from matchrt.flax.layout import PART_MODULES, Array, Arrays

IMAGES = (0, 1)
_NAME = re.compile(r"layers\.(\d+)\.([01])/([\w.]+)/(kernel|scale|bias)")
_OURS = re.compile(re.escape(PART_MODULES["transformer"]) + r"layers\.(\d+)\.([\w.]+)\.(kernel|scale|bias)")


def to_ifvit(arrays: Arrays) -> dict[str, Array]:
    """The transformer of `arrays`, which are in Flax's layout, under IFViT's names. Other arrays are left out."""
    found: dict[str, Array] = {}
    for name, array in arrays.items():
        if match := _OURS.fullmatch(name):
            layer, module, leaf = match.groups()
            found |= {f"layers.{layer}.{image}/{module}/{leaf}": array for image in IMAGES}
    return found


def is_ifvit(names: Iterable[str]) -> bool:
    """Whether all names are IFViT's, and there is one."""
    every = list(names)
    return bool(every) and all(_NAME.fullmatch(name) for name in every)


def from_ifvit(arrays: Mapping[str, Array], source: str) -> dict[str, Array]:
    """Arrays under IFViT's names in Flax's layout. A file with layers for the first image only is read as well.

    source: the file's name, for messages. Error: flax-layout, if the layers of the two images differ.
    """
    found: dict[str, Array] = {}
    for name, array in arrays.items():
        match = _NAME.fullmatch(name)
        assert match is not None, name
        layer, _, module, leaf = match.groups()
        ours = f"{PART_MODULES['transformer']}layers.{layer}.{module}.{leaf}"
        if ours in found and not np.array_equal(found[ours], array, equal_nan=True):
            raise MatchRTError(
                "flax-layout",
                f"In '{source}', layer {layer} has another {module}.{leaf} for each of the two images; LoFTR has one "
                "layer for both.",
                "Use weights that were converted from LoFTR and not trained since.",
            )
        found[ours] = array
    return found
