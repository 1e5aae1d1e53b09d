"""A descriptor of a whole image: images that show the same things have similar ones.

It is VLAD (Jégou et al., "Aggregating local descriptors into a compact image representation", CVPR 2010) over the
coarse features of an engine, normalised by word (Arandjelović and Zisserman, "All about VLAD", CVPR 2013). The words
are the k-means of the engine's features of images of the folder itself. So every engine with coarse features has its
words, and nothing is trained or shipped; bench/README.md has the figures beside trained words and other descriptors.

Nothing here raises.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from matchrt.batch.pairing.coarse import Float32Array

# Noted with every descriptor: one of another version is computed again.
VERSION = 1
WORDS = 64
_ROUNDS, _ENOUGH, _SEED = 15, 1e-3, 0
_LEAST = 1e-9


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The words of an engine.

    words: float32 [K, C], means of coarse vectors of length 1.
    """

    words: Float32Array

    @classmethod
    def of(cls, vectors: Sequence[Float32Array]) -> Vocabulary:
        """The words of some images. vectors: coarse vectors [cells, C] of each. Raises nothing."""
        samples = _unit(np.concatenate(list(vectors)))
        cv2.setRNGSeed(_SEED)
        stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, _ROUNDS, _ENOUGH)
        words = min(WORDS, len(samples))
        _, _, centres = cv2.kmeans(samples, words, np.empty(0, np.int32), stop, 1, cv2.KMEANS_PP_CENTERS)
        return cls(np.asarray(centres, np.float32))

    def describe(self, vectors: Float32Array) -> Float32Array:
        """The descriptor of an image, float32 [K * C] of length 1. vectors: its coarse vectors [cells, C].

        Raises nothing.
        """
        vectors = _unit(vectors)
        nearest = (vectors @ self.words.T - (self.words**2).sum(1) / 2).argmax(1)
        belongs = (nearest[None] == np.arange(len(self.words))[:, None]).astype(np.float32)
        residuals = belongs @ vectors - belongs.sum(1, keepdims=True) * self.words
        return np.asarray(_unit(_unit(residuals).reshape(1, -1))[0], np.float32)


def _unit(rows: Float32Array) -> Float32Array:
    """Rows of length 1; rows of zeros stay."""
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), _LEAST), np.float32)
