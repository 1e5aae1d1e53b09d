"""Features of images that are kept for their pairs, within a limit.

With a folder to spill to, all features are kept in half precision, in memory too: what a pair gives must not depend on
which images happened to be in memory, or a run that was killed would not end as one that was not.
"""

from __future__ import annotations

import os
import re
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from matchrt._util.atomic import why_unwritable
from matchrt.batch.results import ImageFacts
from matchrt.errors import MatchRTError
from matchrt.runtime.split.features import Features, HostMaps

DEFAULT_BYTES = 2 << 30
# A pair's own two images stay, whatever their size.
_FEWEST = 2
_UNITS = {"": 0, "b": 0, "k": 10, "m": 20, "g": 30, "t": 40}


@dataclass(frozen=True)
class FeatureOptions:
    """How features of images are kept.

    limit: bytes of memory for them, besides those of the pairs in work; 0 to match whole pairs.
    spill: folder to which features go that do not fit, in half precision; None to compute them again.
    """

    limit: int = DEFAULT_BYTES
    spill: Path | None = None

    def __post_init__(self) -> None:
        if self.spill is not None and (reason := why_unwritable(self.spill)) is not None:
            raise MatchRTError(
                "output-unwritable",
                f"Features cannot be kept in '{self.spill}': {reason}.",
                "Choose a folder with room that you may write to.",
            )


def parse_bytes(text: str) -> int:
    """A number of bytes, such as `2GB`, `500 MB` or `0`; units are powers of 1024. Error: option-range."""
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)i?b?\s*", text.lower())
    size = int(float(found[1]) * (1 << _UNITS[found[2]])) if found is not None else -1
    if not 0 <= size < 1 << 60:
        raise MatchRTError("option-range", f"'{text}' is no size of memory.", "Write it as 2GB, 500MB or 0.")
    return size


@dataclass(frozen=True, eq=False)
class SourceFeatures:
    """The features of an image file.

    features: what the engine knows of the image.
    facts: its size, its orientation, and by what its file is known again.
    """

    features: Features
    facts: ImageFacts


Computed = SourceFeatures | MatchRTError
Compute = Callable[[str], "Future[Computed]"]


class FeatureCache:
    """The features that were used last, computed or being computed. Only one thread may use it.

    compute: begins to compute the features of an image.
    each: bytes of an image's features, as long as none are known.
    options: how much memory they may take, and where others go.
    restore: runs a function that reads spilled features, in a thread of its own.
    """

    def __init__(
        self,
        compute: Compute,
        each: int,
        options: FeatureOptions,
        restore: Callable[[Callable[[], Computed]], Future[Computed]],
    ) -> None:
        self._compute, self._limit, self._restore = compute, options.limit, restore
        self._spilled = None if options.spill is None else SpillFile(options.spill)
        self._kept: OrderedDict[str, Future[Computed]] = OrderedDict()
        self._each = each

    def close(self) -> None:
        """Frees the file of spilled features. Raises nothing."""
        self._kept.clear()
        if self._spilled is not None:
            self._spilled.close()

    def get(self, name: str) -> Future[Computed]:
        """The future features of an image, which are begun, or read again, if they are not in memory."""
        kept = self._kept.pop(name, None)
        if kept is None:
            kept = self._begun(name)
        self._kept[name] = kept
        self._make_room()
        return kept

    def _begun(self, name: str) -> Future[Computed]:
        if self._spilled is not None and name in self._spilled:
            spilled = self._spilled
            return self._restore(lambda: spilled.read(name))
        return self._compute(name)

    def _make_room(self) -> None:
        used = sum(self._size(future) for future in self._kept.values())
        while used > self._limit and len(self._kept) > _FEWEST:
            name, oldest = self._kept.popitem(last=False)
            used -= self._size(oldest)
            if self._spilled is not None and oldest.done():
                self._spilled.write(name, oldest.result())

    def _size(self, future: Future[Computed]) -> int:
        """The bytes of an image's features, or the guess as long as they are being computed."""
        if not future.done() or future.exception() is not None:
            return self._each
        computed = future.result()
        return computed.features.nbytes if isinstance(computed, SourceFeatures) else 0


@dataclass(frozen=True)
class _Record:
    """Where an image's maps are in the file.

    start: of the first map, bytes.
    maps: name, type and shape of each, one after another.
    rest: the features without them.
    """

    start: int
    maps: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]
    rest: SourceFeatures


class SpillFile:
    """Features of images in one file that has no name, so that it is gone with the process, however that ends.

    folder: where the file is. Error: output-unwritable.
    """

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by close()
        except OSError as error:
            raise MatchRTError(
                "output-unwritable",
                f"Features cannot be kept in '{folder}': {error.strerror}.",
                "Choose a folder with room that you may write to.",
            ) from error
        self._records: dict[str, _Record] = {}
        self._end = 0
        self._lock = threading.Lock()

    def __contains__(self, name: str) -> bool:
        return name in self._records

    def close(self) -> None:
        """Frees the file. Raises nothing."""
        with suppress(OSError):
            self._file.close()

    def write(self, name: str, computed: Computed) -> None:
        """Adds the features of an image; those that the disk has no room for are left out. Raises nothing."""
        if name in self._records or not isinstance(computed, SourceFeatures):
            return
        maps = computed.features.maps
        if not isinstance(maps, HostMaps):
            return
        start = self._end
        try:
            for array in maps.arrays.values():
                self._end += _write_all(self._file.fileno(), array, self._end)
        except OSError:
            self._end = start
            return
        kinds = {key: (array.dtype, array.shape) for key, array in maps.arrays.items()}
        empty = replace(computed.features, maps=HostMaps({}, maps.types))
        self._records[name] = _Record(start, kinds, replace(computed, features=empty))

    def read(self, name: str) -> Computed:
        """The features of an image that `write` added. Several threads may read. Error: spill-failed, returned."""
        record, at = self._records[name], 0
        arrays: dict[str, npt.NDArray[Any]] = {}
        at = record.start
        try:
            for key, (kind, shape) in record.maps.items():
                arrays[key] = array = np.empty(shape, kind)
                at += _read_all(self._file.fileno(), array, at)
        except OSError as error:
            return MatchRTError(
                "spill-failed",
                f"The features of '{name}' cannot be read back: {error.strerror or error}.",
                "Check the disk, and run the command again with --retry-failed.",
            )
        features = record.rest.features
        assert isinstance(features.maps, HostMaps)
        return replace(record.rest, features=replace(features, maps=HostMaps(arrays, features.maps.types)))


def _write_all(file: int, array: npt.NDArray[Any], at: int) -> int:
    view = memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    done = 0
    while done < len(view):
        done += os.pwrite(file, view[done:], at + done)
    return done


def _read_all(file: int, array: npt.NDArray[Any], at: int) -> int:
    view = memoryview(array.reshape(-1).view(np.uint8).data)
    done = 0
    while done < len(view):
        count = os.preadv(file, [view[done:]], at + done)
        if count == 0:
            raise OSError("the file is shorter than it was written")
        done += count
    return done
