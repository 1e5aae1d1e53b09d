"""Kernels that TensorRT-RTX compiles on this machine are kept for the next start, apart for each set of input shapes.

A context gets a store of its own, filled with what contexts of the same shapes have compiled before. If all contexts
shared one store, what a context takes from it would depend on what is there already: a second context of a shape ran on
general kernels, which were slower and gave other last bits (measured with 1.4). With stores kept apart, a shape gives
the same bits whatever ran before it.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections import OrderedDict
from pathlib import Path
from typing import Any

import platformdirs

from matchrt._util import atomic
from matchrt._util.reading import read_regular
from matchrt.errors import MatchRTError
from matchrt.manifest import EngineManifest
from matchrt.nvidia.device import Gpu
from matchrt.nvidia.dialect import Dialect
from matchrt.runtime.gpu.layout import Shapes

LOGGER = logging.getLogger("matchrt.runtime")
# How many shapes' kernels, some megabytes each, an engine keeps in memory and on disk.
MAX_KNOWN, MAX_FILES = 16, 64


class Kernels:
    """The kernels of one engine on one GPU. Only one thread at a time may use it; `LoadedEngine` takes care of that.

    on_disk: whether they are kept for the next start.
    """

    def __init__(self, dialect: Dialect, engine: Any, manifest: EngineManifest, gpu: Gpu, on_disk: bool = True) -> None:
        self._dialect, self._engine, self._on_disk = dialect, engine, on_disk
        self._folder = _folder(manifest, gpu)
        self._known: OrderedDict[str, bytes] = OrderedDict()
        # Names of files: those that an earlier start left, also where this process added kernels to them, and those
        # that must not be read again.
        self._from_disk: set[str] = set()
        self._dropped: set[str] = set()

    def open(self, shapes: Shapes) -> Any:
        """A store for one context with inputs of these shapes (by input name), filled with what is known for them.

        None if the backend compiles no kernels. Raises nothing of its own: a file that cannot be read counts as
        missing.
        """
        name = _name(shapes)
        known = self._known.get(name) or self._read(name)
        opened = self._dialect.open_kernels(self._engine, known)
        if known is None and opened is not None:
            # Measured: this takes up to 14 s, and nothing else shows meanwhile that the program works.
            LOGGER.warning("%s compiles kernels for this image size, which takes seconds, once", self._dialect.backend)
        return opened

    def keep(self, shapes: Shapes, opened: Any) -> None:
        """Saves what was compiled for these shapes. Raises nothing.

        If the folder cannot be written, this logs a warning and goes on.
        """
        name, data = _name(shapes), self._dialect.kernel_bytes(opened)
        if not data or len(data) == len(self._known.get(name, b"")):
            return
        self._known[name] = data
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        if not self._on_disk:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            _make_room(self._folder)
            atomic.write_bytes(self._folder / name, data)
            self._dropped.discard(name)
        except (OSError, MatchRTError) as error:
            LOGGER.warning("compiled kernels are not kept for the next start: %s", error)

    def kept(self, shapes: Shapes) -> str | None:
        """A short digest of the kernels kept for these shapes; None if there are none. Raises nothing."""
        name = _name(shapes)
        known = self._known.get(name) or self._read(name)
        return None if known is None else hashlib.sha256(known).hexdigest()[:16]

    def drop(self, shapes: Shapes) -> bool:
        """Deletes the kernels that an earlier start left for these shapes. Returns whether there were some.

        Raises nothing: a file that cannot be deleted is not used again by this engine.
        """
        name = _name(shapes)
        if name not in self._from_disk:
            return False
        self._from_disk.discard(name)
        self._known.pop(name, None)
        self._dropped.add(name)
        with contextlib.suppress(OSError):
            (self._folder / name).unlink(missing_ok=True)
        return True

    def _read(self, name: str) -> bytes | None:
        """The file's content; None if there is none, or if it was dropped."""
        if not self._on_disk or name in self._dropped:
            return None
        try:
            data = read_regular(self._folder / name)
        except OSError:
            return None
        self._from_disk.add(name)
        return data


def _folder(manifest: EngineManifest, gpu: Gpu) -> Path:
    """The folder's name depends on everything that compiled kernels depend on."""
    parts = (manifest.engine_sha256, gpu.name, gpu.compute_capability, gpu.driver)
    name = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
    return Path(platformdirs.user_cache_dir("matchrt", appauthor=False)) / "kernels" / name


def _name(shapes: Shapes) -> str:
    text = ";".join(f"{name}={'x'.join(map(str, shape))}" for name, shape in sorted(shapes.items()))
    return f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.bin"


def _make_room(folder: Path) -> None:
    """Removes the oldest files; another process may have removed one already."""
    files = sorted(folder.glob("*.bin"), key=lambda file: file.stat().st_mtime)
    for file in files[: max(0, len(files) - MAX_FILES + 1)]:
        file.unlink(missing_ok=True)
