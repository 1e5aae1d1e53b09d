"""The photographs of `tools.train_lite.collect_photos`, split by file, and which of them look alike."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

Split = Literal["fit", "test"]
Picture = NDArray[np.uint8]
# Thumbnails that agree more than this may show the same thing.
_SAME = 0.6
_THUMBNAIL = 24
_TABLE = Path(__file__).parents[1] / "train_lite/photographs.csv"
# Packages that show one scene in several pictures: a church in several projections, stereo pairs, rows of snapshots.
_SERIES = {"hugin-data", "opencv-doc", "visp-images-data", "kphotoalbum"}


def split_of(path: Path) -> Split:
    """Which figures a photograph serves: half of the network's training files fit; the rest, and all others, test."""
    return "fit" if path.name.startswith("train-") and int(path.stem.split("-")[-1], 16) % 2 == 0 else "test"


@dataclass(frozen=True)
class Photograph:
    """A photograph: RGB [H, W, 3], its style (a vector), and its thumbnail, of mean 0 and length 1."""

    path: Path
    pixels: Picture
    style: NDArray[np.float64]
    thumbnail: NDArray[np.float64]

    @classmethod
    def read(cls, path: Path) -> Photograph:
        """Reads a file. Error: ValueError."""
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            raise ValueError(f"{path} is not an image")
        small = cv2.resize(image, (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA)
        grey = small.mean(axis=2) - small.mean()
        thumbnail = grey.ravel() / max(float(np.linalg.norm(grey)), 1e-6)
        return cls(path, np.asarray(image[..., ::-1], np.uint8), _style(image), thumbnail)

    @property
    def seen(self) -> bool:
        """Whether the bundled network was trained on it."""
        return self.path.name.startswith("train-")

    def crop(self, dice: np.random.Generator, size: tuple[int, int], part: tuple[float, float] = (0.0, 1.0)) -> Picture:
        """A random crop of the size's shape, within a part of the longer side, as RGB [height, width, 3]."""
        height, width = self.pixels.shape[:2]
        low, high = part
        pixels = self.pixels
        if width >= height:
            pixels = pixels[:, int(low * width) : int(high * width)]
        else:
            pixels = pixels[int(low * height) : int(high * height)]
        height, width = pixels.shape[:2]
        factor = min(height / size[0], width / size[1]) * float(dice.uniform(0.7, 1.0))
        rows, columns = max(int(size[0] * factor), 8), max(int(size[1] * factor), 8)
        y, x = (int(dice.integers(0, room + 1)) for room in (height - rows, width - columns))
        method = cv2.INTER_AREA if factor > 1 else cv2.INTER_CUBIC
        found = cv2.resize(pixels[y : y + rows, x : x + columns], (size[1], size[0]), interpolation=method)
        return np.asarray(found, np.uint8)


def _style(image: Picture) -> NDArray[np.float64]:
    """Colours, edge density and directions of edges."""
    lab = cv2.cvtColor(cv2.resize(image, (256, 256), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2LAB).astype(
        np.float64
    )
    grey = lab[..., 0]
    dx, dy = cv2.Sobel(grey, cv2.CV_64F, 1, 0), cv2.Sobel(grey, cv2.CV_64F, 0, 1)
    strength = np.hypot(dx, dy)
    turns = np.histogram(np.arctan2(dy, dx) % np.pi, 8, (0, np.pi), weights=strength)[0]
    turns = turns / max(turns.sum(), 1e-6)
    sizes = [np.std(grey - cv2.GaussianBlur(grey, (0, 0), sigma)) / 30.0 for sigma in (1, 3, 9, 27)]
    colours = np.concatenate([lab.mean(axis=(0, 1)), lab.std(axis=(0, 1))]) / 60.0
    return np.concatenate([colours, 4.0 * turns, sizes, [strength.mean() / 40.0]])


@cache
def _packages() -> dict[str, str]:
    """The package of each photograph, by its file's name."""
    with _TABLE.open(newline="") as stream:
        return {row["name"]: row["package"] for row in csv.DictReader(stream)}


def differ(first: Photograph, second: Photograph) -> bool:
    """Whether two files surely show different things."""
    packages = {_packages().get(one.path.name, one.path.name) for one in (first, second)}
    if len(packages) == 1 and packages <= _SERIES:
        return False
    return abs(float(first.thumbnail @ second.thumbnail)) < _SAME


def alike(one: Photograph, others: list[Photograph], dice: np.random.Generator) -> Photograph:
    """Another photograph that looks like this one: one of its six nearest in style that differ from it."""
    nearest = sorted(others, key=lambda other: float(np.linalg.norm(other.style - one.style)))
    chosen = [other for other in nearest if other.path != one.path and differ(one, other)][:6]
    return chosen[int(dice.integers(0, len(chosen)))]
