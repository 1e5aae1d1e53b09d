"""The features of one image, as an engine's first part computes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from matchrt.runtime.match_data import ImageRef
from matchrt.runtime.preprocess import PreparedImage

# Larger values than this are not finite in half precision.
_LARGEST_HALF = float(np.finfo(np.float16).max)


class Maps(Protocol):
    """The maps of an image, in host memory or on a GPU."""

    @property
    def nbytes(self) -> int:
        """The bytes that they take."""
        ...


@dataclass(frozen=True, eq=False)
class HostMaps:
    """Maps in host memory.

    arrays: by name, contiguous; float16 where they are kept in half precision.
    types: the types in which the engine wants those that are kept in half precision, by name.
    """

    arrays: Mapping[str, npt.NDArray[Any]]
    types: Mapping[str, np.dtype[Any]]

    @property
    def nbytes(self) -> int:
        """The bytes of all arrays."""
        return sum(array.nbytes for array in self.arrays.values())

    def as_computed(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays in the types that the engine has, by name. Raises nothing."""
        wanted = ((name, array, self.types.get(name, array.dtype)) for name, array in self.arrays.items())
        return {name: array.astype(kind, copy=False) for name, array, kind in wanted}

    def halved(self) -> HostMaps:
        """The same maps with float32 kept in half precision. Raises nothing."""
        wide = {name: array.dtype for name, array in self.arrays.items() if array.dtype == np.float32}
        arrays = {name: _half(array) if name in wide else array for name, array in self.arrays.items()}
        return replace(self, arrays=arrays, types={**self.types, **wide})


def _half(array: npt.NDArray[Any]) -> npt.NDArray[np.float16]:
    return array.clip(-_LARGEST_HALF, _LARGEST_HALF).astype(np.float16)


@dataclass(frozen=True, eq=False)
class Features:
    """What an engine knows of one image before it sees the other one. `Matcher.features` makes them.

    They serve in any number of pairs, on either side, with the matcher that made them, its forks, and others on the
    same engine with the same `resize`.

    image: the prepared image.
    maps: the maps of the image, in whatever memory the engine reads.
    engine_sha256: digest of the engine that computed them.
    backend: the backend that ran it.
    exact: whether they are as the engine computed them; False for those that were kept in half precision.
    """

    image: PreparedImage
    maps: Maps
    engine_sha256: str
    backend: str
    exact: bool = True

    @property
    def ref(self) -> ImageRef:
        """Name and size of the image, in its own upright pixels."""
        return self.image.ref

    @property
    def network_size(self) -> tuple[int, int]:
        """(height, width) in pixels at which the network saw the image, padding included."""
        return self.image.fit.canvas_hw

    @property
    def nbytes(self) -> int:
        """The bytes of memory that they hold: maps, in host or GPU memory, and the prepared image."""
        return self.maps.nbytes + self.image.nbytes

    def halved(self) -> Features:
        """The same features with their maps kept in half precision, if they are in host memory and not so already.

        Matches from them differ from the engine's own in the last digits. Raises nothing.
        """
        if not self.exact or not isinstance(self.maps, HostMaps):
            return self
        return replace(self, maps=self.maps.halved(), exact=False)

    def __repr__(self) -> str:
        height, width = self.network_size
        return f"Features({self.ref.name!r}, {height}x{width}, {self.nbytes / 1e6:.1f} MB)"
