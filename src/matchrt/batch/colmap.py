"""The COLMAP database: cameras, images, keypoints, matches and two-view geometries, all written with pycolmap.

COLMAP's origin is the top-left corner of the top-left pixel, which is half a pixel from ours. So 0.5 is added to
keypoints here. COLMAP does not turn images as EXIF says. Keypoints of turned images would not fit its pixels, so they
are refused. COLMAP itself estimates the geometries, in parallel over all pairs and with a fixed seed.

Errors: package-missing, package-version, colmap-camera (an unknown camera model), colmap-image (an image that COLMAP
does not read, or sees in another size).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from matchrt._util.atomic import atomic_path
from matchrt.batch.format import OutputFormat
from matchrt.batch.journal import Journal
from matchrt.batch.merged import ImageKeypoints, Merged, merged
from matchrt.batch.options import ColmapOptions, OutputOptions
from matchrt.errors import MatchRTError, missing_package

_COLMAP_ORIGIN = 0.5
_SEED = 0
_WARNING = 1


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


def _write(found: Merged, output: Path, root: Path, options: ColmapOptions) -> None:
    pycolmap = require_pycolmap(options)
    part_name = f".{output.name}.part"
    for suffix in ("-wal", "-shm", "-journal"):  # left by a killed run
        output.with_name(part_name + suffix).unlink(missing_ok=True)
    with atomic_path(output, part_name) as part:
        with pycolmap.Database.open(part) as base:
            ids = _Images(pycolmap, base, root, options).write(found)
            _write_matches(pycolmap, base, found, ids)
        if options.verify:
            with _quiet(pycolmap):
                pycolmap.geometric_verification(part, two_view_geometry_options={"ransac": {"random_seed": _SEED}})
        _as_one_file(part)


class _Images:
    """Writes cameras, images and keypoints. Each image has its own frame, and each camera has its own rig."""

    def __init__(self, pycolmap: Any, base: Any, root: Path, options: ColmapOptions) -> None:
        self._pycolmap, self._base, self._root, self._options = pycolmap, base, root, options
        self._cameras: dict[str, Any] = {}

    def write(self, found: Merged) -> dict[str, int]:
        """The images' numbers in the database, by name."""
        ids = {}
        with self._pycolmap.DatabaseTransaction(self._base):
            for image in found.images():
                ids[image.name] = self._image(image)
                points = image.keypoints.points + np.float32(_COLMAP_ORIGIN)
                self._base.write_keypoints(ids[image.name], points)
        return ids

    def _image(self, image: ImageKeypoints) -> int:
        camera, rig_id = self._camera(image)
        entry = self._pycolmap.Image()
        entry.name, entry.camera_id = image.name, camera.camera_id
        entry.image_id = self._base.write_image(entry)
        frame = self._pycolmap.Frame()
        frame.rig_id = rig_id
        frame.add_data_id(entry.data_id)
        self._base.write_frame(frame)
        return int(entry.image_id)

    def _camera(self, image: ImageKeypoints) -> tuple[Any, int]:
        key = {"single": "", "per-image": image.name, "per-folder": str(Path(image.name).parent)}[self._options.cameras]
        if key not in self._cameras:
            camera = self._infer(image.name)
            camera.camera_id = self._base.write_camera(camera)
            rig = self._pycolmap.Rig()
            rig.add_ref_sensor(camera.sensor_id)
            self._cameras[key] = camera, self._base.write_rig(rig)
        camera, rig_id = self._cameras[key]
        if (camera.width, camera.height) != (image.width, image.height):
            raise MatchRTError(
                "colmap-image",
                f"COLMAP's camera of '{image.name}' is {camera.width}x{camera.height}, but the image was matched as "
                f"{image.width}x{image.height}.",
                "If EXIF turns the image, match with --ignore-exif. If it shares a camera, use --cameras per-image.",
            )
        return camera, int(rig_id)

    def _infer(self, name: str) -> Any:
        """The camera that EXIF describes, or COLMAP's usual guess. Error: colmap-image."""
        reader = self._pycolmap.ImageReaderOptions()
        reader.camera_model = self._options.camera_model
        try:
            return self._pycolmap.infer_camera_from_image(self._root / name, reader)
        except (ValueError, RuntimeError) as error:
            raise MatchRTError(
                "colmap-image", f"COLMAP cannot read '{self._root / name}': {error}.", "Convert it to JPEG or PNG."
            ) from error


def _write_matches(pycolmap: Any, base: Any, found: Merged, ids: dict[str, int]) -> None:
    with pycolmap.DatabaseTransaction(base):
        for pair in found.pairs():
            base.write_matches(ids[pair.pair.first], ids[pair.pair.second], pair.matches)


@contextmanager
def _quiet(pycolmap: Any) -> Iterator[None]:
    """Silences COLMAP's own progress on stderr, where our progress bar is."""
    level = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = max(level, _WARNING)
    try:
        yield
    finally:
        pycolmap.logging.minloglevel = level


def _as_one_file(path: Path) -> None:
    """Ends the write-ahead mode in which COLMAP leaves a database, because even readers make other files in it."""
    with closing(sqlite3.connect(path)) as base:
        base.execute("PRAGMA journal_mode=DELETE")
