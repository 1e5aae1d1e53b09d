"""The COLMAP database: cameras, images, keypoints, matches and two-view geometries, all written with pycolmap.

COLMAP's origin is the top-left corner of the top-left pixel, which is half a pixel from ours. So 0.5 is added to
keypoints here. COLMAP does not turn images as EXIF says, so keypoints are in stored pixels (`merged`). COLMAP itself
estimates the geometries, in parallel over all pairs and with a fixed seed. Those of pairs whose verdict is not `match`
are left out, so that COLMAP's mapper does not use them; their matches stay. It runs in `colmap_process`.

An image that is gone, or whose size does not fit its camera, is refused alone (colmap-image). An image of a kind that
COLMAP does not read, such as WebP, gets the camera that COLMAP guesses where EXIF says nothing.

Errors: package-missing, package-version, colmap-camera (an unknown camera model), colmap-failed (COLMAP ended before
the database was whole).
"""

from __future__ import annotations

import os
import pickle
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from matchrt._util.atomic import atomic_path
from matchrt.batch.format import OutputFormat
from matchrt.batch.journal import Journal
from matchrt.batch.merged import Merged, merged
from matchrt.batch.options import ColmapOptions, OutputOptions
from matchrt.errors import MatchRTError, missing_package

_COLMAP_ORIGIN = 0.5
_SIDE_FILES = ("-wal", "-shm", "-journal")


class ColmapOutput(OutputFormat):
    """An SQLite database that COLMAP and pycolmap read."""

    def check(self, options: OutputOptions) -> None:
        """Checks the package and the camera model. Errors: package-missing, package-version, colmap-camera."""
        require_pycolmap(options.colmap)

    def write(self, journal: Journal, path: Path, root: Path, options: OutputOptions) -> None:
        """Writes the database atomically. root: the folder of the images. Errors: the module's, output-unwritable."""
        with merged(journal, options.merge) as found:
            _write(found, path, root, options.colmap)

    def content(self, path: Path) -> Iterator[bytes]:
        """The name and all rows of every table, sorted, with the type and value of every column."""
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as base:
            tables = base.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
            for (table,) in tables.fetchall():
                yield str(table).encode()
                columns = [row[1] for row in base.execute(f'PRAGMA table_info("{table}")')]
                order = ", ".join(f'"{column}"' for column in columns)
                for row in base.execute(f'SELECT {order} FROM "{table}" ORDER BY {order}'):
                    yield repr(row).encode()


def require_pycolmap(options: ColmapOptions) -> Any:
    """The module pycolmap. Errors: package-missing, package-version, colmap-camera."""
    try:
        import pycolmap
    except ImportError as error:
        raise missing_package("pycolmap", "colmap", "Writing COLMAP databases") from error
    _end_at_sigterm()
    if not hasattr(pycolmap, "geometric_verification") or not hasattr(pycolmap, "Rig"):
        raise MatchRTError(
            "package-version",
            f"pycolmap {pycolmap.__version__} is too old and cannot write databases with rigs.",
            "Update it: pip install -U 'matchrt[colmap]'.",
        )
    models = [name for name in pycolmap.CameraModelId.__members__ if name != "INVALID"]
    if options.camera_model not in models:
        raise MatchRTError(
            "colmap-camera", f"COLMAP has no camera model '{options.camera_model}'.", f"Known: {', '.join(models)}."
        )
    return pycolmap


def _end_at_sigterm() -> None:
    """Takes back SIGTERM from COLMAP's logger, which prints its stack when somebody ends the command."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _write(found: Merged, output: Path, root: Path, options: ColmapOptions) -> None:
    part_name = f".{output.name}.part"
    with atomic_path(output, part_name) as part:
        sides = [part.with_name(part.name + suffix) for suffix in _SIDE_FILES]
        for side in sides:  # left by a killed run
            side.unlink(missing_ok=True)
        try:
            with _Colmap(output) as colmap:
                colmap.ask("open", str(part), options.camera_model)
                cameras = _Cameras(colmap, root, options)
                found.refuse(dict(cameras.add_all(found)))
                for image in found.images():
                    points = image.keypoints.points + np.float32(_COLMAP_ORIGIN)
                    colmap.ask("image", image.name, cameras.key(image.name), points)
                for pair in found.pairs():
                    trusted = not options.verify or pair.judged is None or pair.judged.verdict == "match"
                    colmap.ask("matches", pair.pair.first, pair.pair.second, pair.matches, trusted)
                colmap.ask("close", options.verify)
        finally:
            for side in sides:
                side.unlink(missing_ok=True)


class _Cameras:
    """Adds the cameras, and finds the images that do not fit theirs."""

    def __init__(self, colmap: _Colmap, root: Path, options: ColmapOptions) -> None:
        self._colmap, self._root, self._sharing = colmap, root, options.cameras
        self._sizes: dict[str, tuple[int, int]] = {}

    def key(self, name: str) -> str:
        """By what the images of one camera are known."""
        return {"single": "", "per-image": name, "per-folder": str(Path(name).parent)}[self._sharing]

    def add_all(self, found: Merged) -> Iterator[tuple[int, MatchRTError]]:
        """Adds a camera for each image, or each group of images, and yields the images that are refused."""
        for number, name, height, width in found.sizes():
            error = self._add(name, height, width)
            if error is not None:
                yield number, error

    def _add(self, name: str, height: int, width: int) -> MatchRTError | None:
        key, path = self.key(name), self._root / name
        if not path.is_file():
            return MatchRTError(
                "colmap-image", f"'{path}' is not there any more, and COLMAP needs it.", "Put it back, or match again."
            )
        if key in self._sizes:
            size = self._sizes[key]
            if size == (height, width):
                return None
            return _misfit(name, size, (height, width), "Use --cameras per-image: images that share a camera differ.")
        seen = self._colmap.ask("camera", key, str(path), height, width)
        if seen not in (None, (height, width)):
            return _misfit(name, seen, (height, width), "Run the command again: the file is not the one that was read.")
        self._sizes[key] = height, width
        return None


def _misfit(name: str, there: tuple[int, int], here: tuple[int, int], remedy: str) -> MatchRTError:
    return MatchRTError(
        "colmap-image",
        f"COLMAP's camera of '{name}' is {there[1]}x{there[0]}, but the file stores {here[1]}x{here[0]}.",
        remedy,
    )


def reason_of(said: bytes) -> str:
    """Why COLMAP ended its process, from what it wrote to stderr. Raises nothing."""
    lines = said.decode(errors="replace").strip().splitlines()
    told = [line for line in lines if re.search(r"SQLite error|Check failed|Error:|error:", line)]
    line = (told or lines or ["it gave no reason"])[-1 if not told else 0]
    # What stands before the words: kind, day, time, thread and place in COLMAP's source.
    return re.sub(r"^.*\[?\b\w+\.(?:cc|h):\d+\]\s*|^\s*what\(\):\s*", "", line).strip().rstrip(".")


def python_path() -> str:
    """The PYTHONPATH with which another process finds what this one found. Raises nothing."""
    return os.pathsep.join(entry for entry in sys.path if entry)


class _Colmap:
    """The process of `colmap_process`. It ends with the block."""

    def __init__(self, output: Path) -> None:
        self._output = output
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed at exit
        self._process = subprocess.Popen(
            [sys.executable, "-m", "matchrt.batch.colmap_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env={**os.environ, "PYTHONPATH": python_path()},
        )

    def ask(self, *request: Any) -> Any:
        """The answer to a request. Errors: colmap-failed, output-unwritable (the disk is full)."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            pickle.dump(request, self._process.stdin)
            self._process.stdin.flush()
            return pickle.load(self._process.stdout)
        except (BrokenPipeError, EOFError, pickle.UnpicklingError) as error:
            raise self._failure() from error

    def _failure(self) -> MatchRTError:
        self._process.kill()
        self._process.wait()
        self._said.seek(0)
        reason = reason_of(self._said.read())
        if "disk is full" in reason or "disk I/O" in reason:
            return MatchRTError(
                "output-unwritable",
                f"Cannot write '{self._output}': {reason}.",
                "Choose a place with room that you may write to.",
            )
        return MatchRTError(
            "colmap-failed",
            f"COLMAP ended before '{self._output}' was whole: {reason}.",
            "Run the command again: it only writes the output. Write .h5 if it fails again.",
        )

    def __enter__(self) -> _Colmap:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._process.kill()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()
        self._process.wait()
        self._said.close()
