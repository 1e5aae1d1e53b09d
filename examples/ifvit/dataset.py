"""Where prints come from: synthetic ones, or a folder of your own.

A folder of your own has one folder for each finger, with two or more prints of it, as any image files:

    prints/
      anna-left-thumb/    1.png 2.png 3.png
      anna-right-index/   a.tif b.tif
      …

Every fifth finger, by name, is for validation and never trained on; so six fingers are the least. Prints are read as
grey, made to fit a square of the config's `image_size` with their aspect ratio, and kept in memory. What is trained on:

- Registration needs true places, which two scans of a finger do not have. So a pair is one print and the same print
  turned, scaled, shifted and stretched like skin, each with its own pressure, erosion or dilation, dirt and noise: the
  true place of every pixel is known.
- Verification takes two different prints of a finger as they are, but for the same disturbances, and prints of other
  fingers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from examples.ifvit.config import STRIDE
from examples.ifvit.fingerprints import Pairs, make_pairs, places, plane_of, random_warp, sensed
from matchrt.runtime.image import read_image

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
_EVERY = 5
_FEWEST = 6


class Source(Protocol):
    """Gives pairs of prints: the same ones for the same key."""

    def registered(self, key: jax.Array, count: int, *, validation: bool = False) -> Pairs:
        """Pairs whose true places are known."""
        ...

    def genuine(self, key: jax.Array, count: int, *, validation: bool = False) -> Pairs:
        """Two different prints of each of `count` fingers; `valid` is false where true places are not known."""
        ...


@dataclass(frozen=True)
class Synthetic:
    """Prints that are made (fingerprints.py), of new fingers each time. size: side in pixels."""

    size: int

    def registered(self, key: jax.Array, count: int, *, validation: bool = False) -> Pairs:
        """See `Source`; validation has keys of its own."""
        return make_pairs(key, count, self.size)

    def genuine(self, key: jax.Array, count: int, *, validation: bool = False) -> Pairs:
        """See `Source`: the two prints of a pair are two impressions already, and their true places are known."""
        return make_pairs(key, count, self.size)


@dataclass(frozen=True)
class OwnPrints:
    """A folder's prints. prints: uint8 `[N,S,S]`; finger: `[N]`, number of the finger in the order of names."""

    prints: np.ndarray
    finger: np.ndarray

    @staticmethod
    def read(root: Path, size: int) -> OwnPrints:
        """Reads the folder.

        Raises ValueError if it is not as described, MatchRTError for an image that cannot be read.
        """
        if not root.is_dir():
            raise ValueError(f"'{root}' is no folder")
        prints, finger, number = [], [], 0
        for folder in sorted(path for path in root.iterdir() if path.is_dir()):
            files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
            if len(files) == 1:
                raise ValueError(f"'{folder}' has one print only; a finger needs two or more")
            prints += [_square(read_image(path).pixels, size) for path in files]
            finger += [number] * len(files)
            number += bool(files)
        if number < _FEWEST:
            raise ValueError(f"'{root}' has prints of {number} fingers, one folder each; {_FEWEST} are the least")
        return OwnPrints(np.stack(prints), np.array(finger))

    def registered(self, key: jax.Array, count: int, *, validation: bool = False) -> Pairs:
        """See `Source`: each pair is one print, warped and not warped."""
        random = _random(key)
        rows = random.choice(np.flatnonzero(self._part(validation)[self.finger]), count)
        return _warped(key, jnp.asarray(self.prints[rows]), jnp.asarray(self.finger[rows]))

    def genuine(self, key: jax.Array, count: int, *, validation: bool = False) -> Pairs:
        """See `Source`: neighbours in the batch are of different fingers, as far as there are fingers."""
        random = _random(key)
        fingers = np.flatnonzero(self._part(validation))
        order = np.concatenate([random.permutation(fingers) for _ in range(-(-count // len(fingers)))])[:count]
        rows = np.array([random.choice(np.flatnonzero(self.finger == one), 2, replace=False) for one in order])
        return _unplaced(
            key, jnp.asarray(self.prints[rows[:, 0]]), jnp.asarray(self.prints[rows[:, 1]]), jnp.asarray(order)
        )

    def _part(self, validation: bool) -> np.ndarray:
        """Which fingers are in the part, `[F]`."""
        return (np.arange(self.finger.max() + 1) % _EVERY == 0) == validation


def _random(key: jax.Array) -> np.random.Generator:
    return np.random.default_rng(np.asarray(jax.random.key_data(key)))


def _square(pixels: np.ndarray, size: int) -> np.ndarray:
    """Grey, fitted into a square of white, uint8 `[S,S]`."""
    grey = pixels.reshape(pixels.shape[:2]) if pixels.ndim == 2 or pixels.shape[2] == 1 else pixels.mean(axis=2)
    height, width = grey.shape
    factor = size / max(height, width)
    shape = max(round(width * factor), 1), max(round(height * factor), 1)
    fitted = cv2.resize(
        grey.astype(np.float32), shape, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    )
    square = np.full((size, size), 255, np.uint8)
    top, left = (size - shape[1]) // 2, (size - shape[0]) // 2
    square[top : top + shape[1], left : left + shape[0]] = fitted.round()
    return square


@jax.jit
def _warped(key: jax.Array, prints: jax.Array, finger: jax.Array) -> Pairs:
    """Pairs of uint8 prints `[B,S,S]`, each with itself under a random warp."""
    return jax.vmap(partial(_warped_pair, size=prints.shape[1]))(jax.random.split(key, len(prints)), prints, finger)


def _warped_pair(key: jax.Array, image: jax.Array, finger: jax.Array, size: int) -> Pairs:
    warp_key, first, second = jax.random.split(key, 3)
    warped = random_warp(warp_key, plane_of(size), size)
    ridges = _ridges(image)
    moved = jax.scipy.ndimage.map_coordinates(
        ridges, (warped[..., 1], warped[..., 0]), order=1, mode="constant", cval=1.0
    )
    target, valid = places(warped, size)
    return Pairs(sensed(first, moved)[:, :, None], sensed(second, ridges)[:, :, None], target, valid, finger)


@jax.jit
def _unplaced(key: jax.Array, prints0: jax.Array, prints1: jax.Array, finger: jax.Array) -> Pairs:
    """Pairs of uint8 prints `[B,S,S]` whose true places are not known."""
    count, size = prints0.shape[:2]
    keys = jax.random.split(key, (2, count))
    image0, image1 = (
        jax.vmap(lambda key, image: sensed(key, _ridges(image)))(keys[number], prints)[..., None]
        for number, prints in enumerate((prints0, prints1))
    )
    cells = (size // STRIDE) ** 2
    return Pairs(image0, image1, jnp.zeros((count, cells, 2)), jnp.zeros((count, cells), bool), finger)


def _ridges(image: jax.Array) -> jax.Array:
    """A print of bytes as `sensed` takes it: -1 on ridges, 1 between them."""
    return image.astype(jnp.float32) / 127.5 - 1.0
