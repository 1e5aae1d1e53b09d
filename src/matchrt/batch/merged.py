"""Streams the journal's matches as keypoints of images and matches of keypoints.

There are two passes, so that memory holds the points of one image or of one pair at a time. The first pass goes over
the images. It gives keypoints, and notes in a scratch file which keypoint each point became. The second pass goes over
the pairs.

All points are turned back to the pixels that the images' files store here, once for all formats that are made of
keypoints: COLMAP and hloc read images without EXIF.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from matchrt.batch.journal import Journal
from matchrt.batch.journal_errors import damaged, sqlite_errors
from matchrt.batch.merging import Int32Array, Keypoints, MergeOptions, merge_points, one_to_one
from matchrt.batch.results import Float32Array, Judged, ListedPair, unpack, unpack_judged
from matchrt.errors import MatchRTError
from matchrt.runtime.orientation import stored_points


@dataclass(frozen=True, eq=False)
class ImageKeypoints:
    """An image with its keypoints.

    id: the image's number in the journal.
    name: the image's path below the root.
    height, width: of the stored image in pixels.
    keypoints: the M merged points, in stored pixels, and their scores.
    """

    id: int
    name: str
    height: int
    width: int
    keypoints: Keypoints


@dataclass(frozen=True, eq=False)
class PairMatches:
    """A pair with its matches, both as indices of keypoints and as the engine found them.

    pair: the pair's number and image names.
    matches: uint32 [K, 2], indices of keypoints of image 0 and image 1; best first.
    scores: float32 [K], of these matches.
    keypoints0: float32 [N, 2], (x, y) in stored pixels of image 0 before merging.
    keypoints1: float32 [N, 2], (x, y) in stored pixels of image 1 before merging.
    raw_scores: float32 [N], of the matches before merging; descending.
    counts: numbers of keypoints of image 0 and image 1.
    judged: the verdict on the pair; None if there is none.
    """

    pair: ListedPair
    matches: npt.NDArray[np.uint32]
    scores: Float32Array
    keypoints0: Float32Array
    keypoints1: Float32Array
    raw_scores: Float32Array
    counts: tuple[int, int]
    judged: Judged | None = None


class Merged:
    """The merged content of a journal. Use all of `images()` first, then `pairs()`."""

    def __init__(self, journal: Journal, scratch: sqlite3.Connection, options: MergeOptions) -> None:
        self._journal, self._scratch, self._options = journal, scratch, options
        # By name: number of keypoints, and the upright height and width with the orientation.
        self._images: dict[str, tuple[int, tuple[int, int, int]]] = {}

    def sizes(self) -> Iterator[tuple[int, str, int, int]]:
        """(number, name, height, width) of every image of a matched pair, in stored pixels. Error: journal-failed."""
        for row in self._journal.images():
            if row.facts is not None:
                yield row.id, row.name, *row.facts.ref(row.name).stored_size()

    def refuse(self, errors: Mapping[int, MatchRTError]) -> None:
        """Leaves out images by their numbers, with all their pairs. Call it before `images()`."""
        self._journal.refuse(errors)

    def images(self) -> Iterator[ImageKeypoints]:
        """Every image of a matched pair, sorted by name. Error: journal-failed."""
        self._journal.index_by_image()
        for row in self._journal.images():
            if row.facts is None:
                continue
            ref = row.facts.ref(row.name)
            keys, points, scores = self._points_of(row.id)
            if not keys:
                continue
            keypoints, ids = merge_points(ref.stored_points(points), scores, self._options)
            self._note(keys, ids)
            self._images[row.name] = len(keypoints.points), (ref.height, ref.width, row.facts.orientation)
            yield ImageKeypoints(row.id, row.name, *ref.stored_size(), keypoints)

    def _points_of(self, image: int) -> tuple[list[tuple[int, int]], Float32Array, Float32Array]:
        """The sources of the image's points as (key, number of points), the points [N, 2], and their scores [N]."""
        keys: list[tuple[int, int]] = []
        points: list[Float32Array] = []
        scores: list[Float32Array] = []
        for number, side, data in self._journal.matches_of(image):
            found = unpack(data)
            keys.append((2 * number + side, len(found[2])))
            points.append(found[side])
            scores.append(found[2])
        if not keys:
            return [], np.zeros((0, 2), np.float32), np.zeros(0, np.float32)
        return keys, np.concatenate(points), np.concatenate(scores)

    def _note(self, keys: list[tuple[int, int]], ids: Int32Array) -> None:
        ends = np.cumsum([count for _, count in keys])
        rows = zip((key for key, _ in keys), (part.tobytes() for part in np.split(ids, ends[:-1])), strict=True)
        self._scratch.executemany("INSERT INTO ids VALUES (?, ?)", rows)

    def pairs(self) -> Iterator[PairMatches]:
        """Every matched pair, in the list's order. Error: journal-failed."""
        for pair, data in self._journal.matches():
            keypoints0, keypoints1, scores = unpack(data)
            ids0, ids1 = self._ids(2 * pair.number), self._ids(2 * pair.number + 1)
            if len(ids0) != len(scores) or len(ids1) != len(scores):
                raise damaged(self._journal.path, f"the points of pair {pair.number} are not found")
            matches, kept = one_to_one(ids0, ids1, scores)
            if pair.first not in self._images or pair.second not in self._images:
                raise damaged(self._journal.path, f"the images of pair {pair.number} are not found")
            (count0, turned0), (count1, turned1) = self._images[pair.first], self._images[pair.second]
            stored0, stored1 = _stored(keypoints0, turned0), _stored(keypoints1, turned1)
            judged = unpack_judged(data)
            yield PairMatches(pair, matches, kept, stored0, stored1, scores, (count0, count1), judged)

    def _ids(self, key: int) -> Int32Array:
        row = self._scratch.execute("SELECT data FROM ids WHERE key = ?", (key,)).fetchone()
        return np.frombuffer(b"" if row is None else row[0], np.int32)


def _stored(points: Float32Array, turned: tuple[int, int, int]) -> Float32Array:
    height, width, orientation = turned
    return stored_points(points, orientation, height, width)


@contextmanager
def merged(journal: Journal, options: MergeOptions) -> Iterator[Merged]:
    """Opens a scratch file beside the journal and removes it at the end. A file that a killed run left is replaced."""
    path = Path(f"{journal.path}.scratch")
    path.unlink(missing_ok=True)
    try:
        with sqlite_errors(path), closing(sqlite3.connect(path, isolation_level=None)) as scratch:
            scratch.execute("PRAGMA journal_mode=OFF")
            scratch.execute("PRAGMA synchronous=OFF")
            scratch.execute("CREATE TABLE ids (key INTEGER PRIMARY KEY, data BLOB NOT NULL)")
            scratch.execute("BEGIN")
            yield Merged(journal, scratch, options)
            scratch.execute("COMMIT")
    finally:
        path.unlink(missing_ok=True)
