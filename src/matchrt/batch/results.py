"""The results of matching pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from matchrt.errors import MatchRTError
from matchrt.runtime.match_data import QUARTERS, ImageRef, Quarter
from matchrt.runtime.matches import Matches
from matchrt.runtime.verdict import WORDS, Word, judge

Float32Array = npt.NDArray[np.float32]

_COLUMNS = 5
# Numbers behind the columns, which hold a `Judged`.
_JUDGED = 4


class Judged(NamedTuple):
    """How sure it is that a pair's images show the same thing, as `runtime.verdict` judges it, and after which turn.

    verdict: `match`, `doubtful` or `no match`.
    probability: 0..1.
    log10_nfa: log10 of the number of false alarms, at most 0.
    inliers: how many matches, at most one in each cell of the image, the geometry explains better than chance.
    turned1: degrees, clockwise, by which image 1 was turned before the network saw it, as in `Provenance`.
    """

    verdict: Word
    probability: float
    log10_nfa: float
    inliers: int = 0
    turned1: Quarter = 0


class ListedPair(NamedTuple):
    """A pair of the journal.

    number: the pair's number in the journal, in the list's order.
    first, second: paths of image 0 and image 1 below the root. Bytes that are not UTF-8 are surrogates (PEP 383).
    """

    number: int
    first: str
    second: str


@dataclass(frozen=True)
class ImageFacts:
    """What was known of an image when it was matched.

    height, width: in upright pixels.
    orientation: the EXIF orientation, 1..8, by which the stored pixels were turned.
    content: hex sha256 of the file.
    stamp: `sources.stamp_of` the file; empty if the file was so young that its stamp proves nothing.
    notice: what a person should know about the image, such as that it uses little of its range; empty for nothing.
    """

    height: int
    width: int
    orientation: int
    content: str
    stamp: str = ""
    notice: str = ""

    def ref(self, name: str) -> ImageRef:
        """The image as `Matches` names it."""
        return ImageRef(name, self.height, self.width, self.orientation)


@dataclass(frozen=True, eq=False)
class Found:
    """The matches of a pair.

    keypoints0: float32 [N, 2], (x, y) in upright pixels of image 0, as in `Matches`.
    keypoints1: float32 [N, 2], (x, y) in upright pixels of image 1.
    scores: float32 [N], in 0..1, descending.
    image0: what is known of image 0.
    image1: what is known of image 1.
    judged: the verdict on the pair; None if there is none.
    """

    keypoints0: Float32Array
    keypoints1: Float32Array
    scores: Float32Array
    image0: ImageFacts
    image1: ImageFacts
    judged: Judged | None = None

    @classmethod
    def of(cls, matches: Matches, image0: ImageFacts, image1: ImageFacts) -> Found:
        """The result with a verdict and without timings, so that equal matches are equal results."""
        found = matches.judgement or judge(matches)
        # Rounded to what is stored, so that a result is the same before and after.
        probability, log10_nfa = (float(np.float32(value)) for value in (found.probability, found.log10_nfa))
        turned1 = matches.provenance.turned1
        judged = Judged(found.verdict, probability, log10_nfa, found.evidence.inliers, turned1)
        return cls(matches.keypoints0, matches.keypoints1, matches.scores, image0, image1, judged)


@dataclass(frozen=True)
class Result:
    """The outcome of a pair.

    pair: the pair's number and image names.
    outcome: the matches, or the error that concerns this pair only.
    """

    pair: ListedPair
    outcome: Found | MatchRTError


def pack(found: Found) -> bytes:
    """The matches as bytes: keypoints0, keypoints1, scores and the verdict's numbers as little-endian float32.

    The first of these numbers stands for both word and turn: the word's index, and `len(WORDS)` for each quarter.
    """
    judged: tuple[float, ...] = ()
    if (one := found.judged) is not None:
        said = WORDS.index(one.verdict) + len(WORDS) * QUARTERS.index(one.turned1)
        judged = (said, one.probability, one.log10_nfa, one.inliers)
    arrays = (found.keypoints0, found.keypoints1, found.scores, np.array(judged))
    return b"".join(np.ascontiguousarray(array, "<f4").tobytes() for array in arrays)


def unpack(data: bytes) -> tuple[Float32Array, Float32Array, Float32Array]:
    """The arrays keypoints0 [N, 2], keypoints1 [N, 2] and scores [N] that `pack` wrote."""
    values = np.frombuffer(data, "<f4")
    count = len(values) // _COLUMNS
    return (
        values[: 2 * count].reshape(-1, 2),
        values[2 * count : 4 * count].reshape(-1, 2),
        values[4 * count : _COLUMNS * count],
    )


def unpack_judged(data: bytes) -> Judged | None:
    """The verdict that `pack` wrote; None for results of a version that judged no pairs."""
    values = np.frombuffer(data, "<f4")
    if len(values) % _COLUMNS != _JUDGED:
        return None
    said, probability, log10_nfa, inliers = (float(value) for value in values[-_JUDGED:])
    quarter, word = divmod(int(said), len(WORDS))
    return Judged(WORDS[word], probability, log10_nfa, int(inliers), QUARTERS[quarter])
