"""The coarse map among an engine's features of one image.

Maps have the names and the layout that the graph gave them: [1, C, h, w], [1, h, w, C] or [1, h·w, C]. A coarse map has
a vector for each coarse cell of the network's image. If there are several, such as what attention makes of the
backbone's map, the first one with the fewest channels is nearest to the backbone.

Error: pairs-engine.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from matchrt.errors import MatchRTError
from matchrt.runtime.split.features import Features, HostMaps

Float32Array = npt.NDArray[np.float32]

# Maps of fewer channels are masks or positions.
_FEWEST_CHANNELS = 16


def coarse_vectors(features: Features, stride: int) -> Float32Array:
    """The vectors of the coarse cells, float32 [cells, C].

    stride: pixels of the network's image along a side of a coarse cell. Error: pairs-engine if there is no such map.
    """
    assert isinstance(features.maps, HostMaps)  # whoever asks for them has them brought to host memory
    height, width = (side // stride for side in features.network_size)
    found = [cells for array in features.maps.arrays.values() if (cells := _cells(array, height, width)) is not None]
    if not found:
        raise MatchRTError(
            "pairs-engine",
            "The engine's features hold no coarse map by which images could be compared.",
            "Use a bundled model, eloftr-lite or loftr-lite, for retrieval.",
        )
    return np.ascontiguousarray(min(found, key=lambda cells: cells.shape[1]), np.float32)


def _cells(array: npt.NDArray[Any], height: int, width: int) -> npt.NDArray[Any] | None:
    """A map as [cells, C]; None if it has no vector for each cell."""
    if array.ndim < 3 or array.shape[0] != 1 or array.dtype.kind != "f":
        return None
    shape = array.shape[1:]
    if shape[:-1] in ((height, width), (height * width,)):
        cells = array.reshape(height * width, shape[-1])
    elif shape[1:] in ((height, width), (height * width,)):
        cells = array.reshape(shape[0], height * width).T
    else:
        return None
    return cells if cells.shape[1] >= _FEWEST_CHANNELS else None
