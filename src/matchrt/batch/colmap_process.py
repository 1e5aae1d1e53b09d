"""The part of COLMAP in writing a database, in a process of its own.

COLMAP ends its process if the disk is full or a file is not what it expects (SIGABRT). Here that ends only this
process, and `colmap` turns it into an error. Requests come as pickles on stdin, and each gets one answer on stdout:

| request                                                | answer                                              |
| ------------------------------------------------------ | --------------------------------------------------- |
| ("open", part, camera model)                           | None                                                |
| ("camera", key, image's path, height, width)           | (height, width) of the camera, as COLMAP sees it;   |
|                                                        | None if COLMAP does not read such files             |
| ("image", name, camera's key, points float32 [M, 2])   | None; the points have COLMAP's origin               |
| ("matches", name0, name1, indices uint32 [K, 2],       | None                                                |
| whether they may have a geometry)                      |                                                     |
| ("close", whether to estimate geometries)              | None, once the database is one whole file           |

If stdin ends, the parent is gone, and this process ends at once.
"""

from __future__ import annotations

import os
import pickle
import sqlite3
import sys
import threading
from array import array
from contextlib import closing
from pathlib import Path
from typing import Any

_SEED = 0
_WARNING = 1
# COLMAP's number of a pair is this times the smaller image's number, and the larger one's.
_MOST_IMAGES = 2**31 - 1


class _Writer:
    """Writes cameras, images and keypoints. Each image has its own frame, and each camera has its own rig."""

    def __init__(self, part: str, camera_model: str) -> None:
        import pycolmap

        pycolmap.logging.minloglevel = max(pycolmap.logging.minloglevel, _WARNING)
        self._pycolmap, self._part = pycolmap, Path(part)
        self._reader = pycolmap.ImageReaderOptions()
        self._reader.camera_model = camera_model
        self._base = pycolmap.Database.open(part)
        self._transaction = pycolmap.DatabaseTransaction(self._base)
        self._transaction.__enter__()
        self._cameras: dict[str, tuple[int, int]] = {}
        self._images: dict[str, int] = {}
        self._untrusted = array("q")

    def camera(self, key: str, path: str, height: int, width: int) -> tuple[int, int] | None:
        """Adds a camera: what EXIF describes, or COLMAP's usual guess, from the image or else from its size."""
        seen = None
        try:
            camera = self._pycolmap.infer_camera_from_image(path, self._reader)
            seen = int(camera.height), int(camera.width)
        except (ValueError, RuntimeError):
            focal = self._reader.default_focal_length_factor * max(height, width)
            make = self._pycolmap.Camera.create_from_model_name
            camera = make(0, self._reader.camera_model, focal, width, height)
        if seen is not None and seen != (height, width):
            return seen
        camera.camera_id = self._base.write_camera(camera)
        rig = self._pycolmap.Rig()
        rig.add_ref_sensor(camera.sensor_id)
        self._cameras[key] = camera.camera_id, self._base.write_rig(rig)
        return seen

    def image(self, name: str, key: str, points: Any) -> None:
        """Adds an image, its frame, and its keypoints float32 [M, 2] in COLMAP's pixels."""
        entry = self._pycolmap.Image()
        entry.name, (entry.camera_id, rig_id) = name, self._cameras[key]
        entry.image_id = self._base.write_image(entry)
        frame = self._pycolmap.Frame()
        frame.rig_id = rig_id
        frame.add_data_id(entry.data_id)
        self._base.write_frame(frame)
        self._images[name] = int(entry.image_id)
        self._base.write_keypoints(self._images[name], points)

    def matches(self, name0: str, name1: str, indices: Any, trusted: bool) -> None:
        """Adds the matches of a pair; one that is not trusted will have no geometry."""
        images = self._images[name0], self._images[name1]
        self._base.write_matches(*images, indices)
        if not trusted:
            first, second = sorted(images)
            self._untrusted.append(_MOST_IMAGES * first + second)

    def close(self, verify: bool) -> None:
        """Ends the transaction, estimates the geometries, drops those of untrusted pairs, and leaves one file.

        COLMAP estimates the geometries of all pairs that have matches. It leaves a database in the write-ahead mode, in
        which even readers make other files.
        """
        self._transaction.__exit__(None, None, None)
        self._base.close()
        if verify:
            ransac = {"ransac": {"random_seed": _SEED}}
            self._pycolmap.geometric_verification(self._part, two_view_geometry_options=ransac)
        with closing(sqlite3.connect(self._part)) as base:
            pairs = ((pair,) for pair in self._untrusted)
            base.executemany("DELETE FROM two_view_geometries WHERE pair_id = ?", pairs)
            base.commit()
            base.execute("PRAGMA journal_mode=DELETE")


def main() -> None:
    """Answers requests until the database is closed."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever COLMAP prints must not be taken for an answer
    writer: _Writer | None = None
    while True:
        try:
            kind, *values = pickle.load(requests)
        except EOFError:
            os._exit(1)
        if kind == "close":
            threading.Thread(target=_end_with_parent, args=(requests,), daemon=True).start()
        answer = None
        if kind == "open":
            writer = _Writer(*values)
        else:
            answer = getattr(writer, kind)(*values)
        pickle.dump(answer, answers)
        answers.flush()
        if kind == "close":
            os._exit(0)


def _end_with_parent(requests: Any) -> None:
    requests.read(1)
    os._exit(1)


if __name__ == "__main__":
    main()
