"""Changed copies of a photograph, each with the homography that leads to it, made from seeds.

Coordinates: pixels, x right, y down, the centre of the top-left pixel is (0, 0). Images are uint8 RGB `[H, W, 3]`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
import numpy.typing as npt

UInt8Array = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float64]

ANGLES = tuple(range(0, 181, 15))
ZOOMS = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0)
BLURS = (1.0, 2.0, 4.0)
NOISES = (20.0, 40.0, 80.0)
DARKNESS = (2.0, 4.0, 8.0, 16.0)
MAPS = {"jet": cv2.COLORMAP_JET, "viridis": cv2.COLORMAP_VIRIDIS, "hsv": cv2.COLORMAP_HSV}
# Every copy is a little different in light and noise, and is compressed, so that no pixel is just moved.
_GAMMA, _NOISE, _QUALITY = 1.1, 3.0, 90
# Sensor noise of dark photographs, levels of 255: what gain cannot bring back.
_READ_NOISE = 2.0


@dataclass(frozen=True)
class Change:
    """A change of a photograph.

    set: the group that it belongs to, such as `rotation`. value: its strength, for tables.
    apply: makes the copy and the homography [3, 3] from pixels of the photograph to pixels of the copy.
    """

    set: str
    value: str
    apply: Callable[[UInt8Array], tuple[UInt8Array, FloatArray]]

    @property
    def name(self) -> str:
        """Unique among all changes."""
        return f"{self.set}-{self.value}"

    def of(self, image: UInt8Array, name: str) -> tuple[UInt8Array, FloatArray]:
        """The copy of a photograph of that name, finished with light, noise and compression."""
        copy, homography = self.apply(image)
        return finish(copy, zlib.crc32(f"{name}/{self.name}".encode())), homography


def all_changes() -> list[Change]:
    """All changes, set by set."""
    return [
        *(Change("rotation", str(angle), partial(rotated, degrees=angle)) for angle in ANGLES),
        *(Change("zoom", f"{factor:g}", partial(zoomed, factor=factor)) for factor in ZOOMS),
        *(Change("blur", f"{sigma:g}", _in_place(partial(blurred, sigma=sigma))) for sigma in BLURS),
        *(Change("noise", f"{sigma:g}", _in_place(partial(noisy, sigma=sigma))) for sigma in NOISES),
        *(Change("darkness", f"{by:g}", _in_place(partial(dark, by=by))) for by in DARKNESS),
        Change("inversion", "255 - x", _in_place(inverted)),
        *(Change("colours", name, _in_place(partial(mapped, number=number))) for name, number in MAPS.items()),
    ]


def _in_place(change: Callable[[UInt8Array], UInt8Array]) -> Callable[[UInt8Array], tuple[UInt8Array, FloatArray]]:
    """A change that moves no pixel."""
    return lambda image: (change(image), np.eye(3))


def rotated(image: UInt8Array, degrees: float) -> tuple[UInt8Array, FloatArray]:
    """The whole image turned clockwise about its centre, on a black canvas that just holds it."""
    height, width = image.shape[:2]
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    across = int(np.ceil(abs(width * cosine) + abs(height * sine) - 1e-6))
    down = int(np.ceil(abs(width * sine) + abs(height * cosine) - 1e-6))
    turn = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1.0]])
    homography = shift((across - 1) / 2, (down - 1) / 2) @ turn @ shift(-(width - 1) / 2, -(height - 1) / 2)
    return np.asarray(
        cv2.warpPerspective(image, homography, (across, down), flags=cv2.INTER_LINEAR), np.uint8
    ), homography


def zoomed(image: UInt8Array, factor: float) -> tuple[UInt8Array, FloatArray]:
    """The middle of the image, enlarged to the image's size."""
    height, width = image.shape[:2]
    scale = np.diag([factor, factor, 1.0])
    homography = shift((width - 1) / 2, (height - 1) / 2) @ scale @ shift(-(width - 1) / 2, -(height - 1) / 2)
    return np.asarray(
        cv2.warpPerspective(image, homography, (width, height), flags=cv2.INTER_CUBIC), np.uint8
    ), homography


def blurred(image: UInt8Array, sigma: float) -> UInt8Array:
    """A Gaussian blur of `sigma` pixels."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.uint8)


def noisy(image: UInt8Array, sigma: float) -> UInt8Array:
    """Gaussian noise of `sigma` levels of 255, the same in no two channels."""
    noise = np.random.default_rng(int(sigma * 1000)).normal(0, sigma, image.shape)
    return np.asarray(np.clip(image + noise, 0, 255).round(), np.uint8)


def dark(image: UInt8Array, by: float) -> UInt8Array:
    """`by` times less light, with a sensor's noise of 2 levels and rounding to 8 bits."""
    noise = np.random.default_rng(int(by * 1000)).normal(0, _READ_NOISE, image.shape)
    return np.asarray(np.clip(image / by + noise, 0, 255).round(), np.uint8)


def inverted(image: UInt8Array) -> UInt8Array:
    """The negative."""
    return np.asarray(255 - image, np.uint8)


def mapped(image: UInt8Array, number: int) -> UInt8Array:
    """The grey image in the false colours of one of OpenCV's maps."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.cvtColor(cv2.applyColorMap(grey, number), cv2.COLOR_BGR2RGB), np.uint8)


def finish(image: UInt8Array, seed: int) -> UInt8Array:
    """A gamma of 1.1, noise of 3 levels, JPEG of quality 90."""
    lit = 255 * (image / 255.0) ** _GAMMA + np.random.default_rng(seed).normal(0, _NOISE, image.shape)
    coded = cv2.imencode(
        ".jpg", np.clip(lit, 0, 255).astype(np.uint8)[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    )
    return np.ascontiguousarray(np.asarray(cv2.imdecode(coded[1], cv2.IMREAD_COLOR), np.uint8)[:, :, ::-1])


def shift(x: float, y: float) -> FloatArray:
    """The homography [3, 3] that moves points by (x, y) pixels."""
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])
