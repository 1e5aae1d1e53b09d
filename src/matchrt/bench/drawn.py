"""Pairs of drawn scenes with a known homography. They calibrate and judge engines if the user gives no pairs.

Noise alone, as in the latency scene, is a bad stand-in for photographs. Ranges measured on noise kept 86 to 89 % of the
matches of real pairs; ranges measured on four real pairs keep 96 to 98 % (docs/quantization.md). Photographs have flat
areas, straight edges of full contrast, and texture that is strong in one place and absent in another. Drawn scenes have
these too.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

UInt8Array = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class DrawnPair:
    """Two views of one drawn scene.

    image0, image1: uint8 [H, W, 3], RGB.
    homography: float64 [3, 3], from pixels of image 0 to pixels of image 1: x1 ~ H x0.
    """

    image0: UInt8Array
    image1: UInt8Array
    homography: FloatArray


@dataclass(frozen=True)
class Conditions:
    """How a scene is viewed, lit and photographed. A pair of numbers is a range from which a value is drawn.

    zoom: scene pixels for each image pixel.
    lean: how far the corners of the view move, as a share (0..1) of the side.
    blur: sigma of the Gaussian blur, in pixels.
    contrast: factor on pixel values.
    noise: standard deviation of the noise, for pixel values in 0..1.
    gamma: largest logarithm of the tone curve's exponent; 0 for none.
    shade: largest share (0..1) of light that is missing in a part of the image; 0 for none.
    """

    zoom: tuple[float, float]
    lean: float
    blur: tuple[float, float]
    contrast: tuple[float, float]
    noise: tuple[float, float]
    gamma: float = 0.0
    shade: float = 0.0


PLAIN = Conditions((1.1, 1.7), 0.09, (0.4, 1.3), (0.6, 1.3), (0.0, 0.02))
# These views are dim, noisy and farther apart. On them int8 loses as many matches as on photographs. On plain views it
# loses only a third of that, because nearly every match is certain there (docs/quantization.md).
HARD = Conditions((0.6, 1.6), 0.2, (0.8, 2.2), (0.15, 0.4), (0.03, 0.06), 1.2, 0.8)


def drawn_pair(height: int, width: int, seed: int, conditions: Conditions = PLAIN) -> DrawnPair:
    """Draws a pair of views of `height` x `width` pixels. The same arguments give the same pair.

    The second view is taken from another side and exposed differently.
    """
    rng = np.random.default_rng(seed)
    scene = _scene(2 * height, 2 * width, rng)
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)
    views = [_view(corners, width, height, rng, conditions) for _ in range(2)]
    seen = (cv2.warpPerspective(scene, view, (width, height), flags=cv2.INTER_LINEAR) for view in views)
    images = [_developed(np.asarray(image, np.float32), rng, conditions) for image in seen]
    return DrawnPair(images[0], images[1], views[1] @ np.linalg.inv(views[0]))


def _view(corners: FloatArray, width: int, height: int, rng: np.random.Generator, conditions: Conditions) -> FloatArray:
    """The homography from scene pixels to image pixels: about the middle half of the scene fills the image."""
    size = np.array([width, height], np.float64)
    zoom = rng.uniform(*conditions.zoom)
    quad = size + (corners - size / 2) * zoom + rng.uniform(-conditions.lean, conditions.lean, (4, 2)) * size
    return np.asarray(cv2.getPerspectiveTransform(quad.astype(np.float32), corners.astype(np.float32)), np.float64)


def _scene(height: int, width: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """A drawn scene: float32 [H, W, 3], values in 0..1."""
    scene = np.empty((height, width, 3), np.float32)
    scene[:] = rng.random(3) * 0.8 + 0.1
    scene += np.linspace(-0.25, 0.25, height, dtype=np.float32)[:, None, None] * np.float32(rng.uniform(-1, 1))
    for count, reach in ((14, 0.5), (70, 0.16), (240, 0.05)):
        for _ in range(count):
            _draw_patch(scene, reach, rng)
    for _ in range(60):
        _draw_line(scene, rng)
    return np.clip(scene, 0.0, 1.0)


def _draw_patch(scene: npt.NDArray[np.float32], reach: float, rng: np.random.Generator) -> None:
    """Draws a flat or textured polygon, which stands for buildings, stones, leaves and windows alike."""
    height, width = scene.shape[:2]
    size = reach * width * rng.uniform(0.3, 1.0)
    centre = rng.random(2) * (width, height)
    angles = np.sort(rng.random(rng.integers(3, 8))) * 2 * np.pi
    if rng.random() < 0.4:  # a rectangle, as most man-made things are
        angles = np.array([0.25, 0.75, 1.25, 1.75]) * np.pi + rng.uniform(-0.15, 0.15)
    points = centre + np.column_stack([np.cos(angles), np.sin(angles)]) * size * rng.uniform(0.5, 1.0, 2)
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [np.rint(points).astype(np.int32)], 1, lineType=cv2.LINE_8)
    x, y, w, h = cv2.boundingRect(np.rint(points).astype(np.int32))
    box = slice(max(y, 0), max(y + h, 0)), slice(max(x, 0), max(x + w, 0))
    inside = mask[box].astype(bool)
    if not inside.any():
        return
    h_inside, w_inside = inside.shape
    shade = np.float32(rng.beta(0.7, 0.7))  # often nearly black or nearly white
    colour = shade + rng.uniform(-0.12, 0.12, 3).astype(np.float32)
    paint = np.broadcast_to(colour, (*inside.shape, 3)).astype(np.float32)
    if rng.random() < 0.5:
        paint = np.asarray(paint + _texture(h_inside, w_inside, rng)[:, :, None], np.float32)
    scene[box][inside] = paint[inside]


def _draw_line(scene: npt.NDArray[np.float32], rng: np.random.Generator) -> None:
    height, width = scene.shape[:2]
    ends = np.rint(rng.random((2, 2)) * (width, height)).astype(int)
    shade = float(rng.beta(0.5, 0.5))
    cv2.line(scene, tuple(ends[0]), tuple(ends[1]), (shade, shade, shade), int(rng.integers(1, 6)))


def _texture(height: int, width: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Noise of one to three scales, or a grating."""
    total = np.zeros((height, width), np.float32)
    for cell in rng.choice((2, 4, 8, 16), rng.integers(1, 4), replace=False):
        coarse = rng.standard_normal((height // cell + 2, width // cell + 2)).astype(np.float32)
        total += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.3:
        y, x = np.mgrid[:height, :width].astype(np.float32)
        angle, period = rng.uniform(0, np.pi), rng.uniform(6, 40)
        total = np.sign(np.sin((x * np.cos(angle) + y * np.sin(angle)) * np.float32(2 * np.pi / period)))
    return np.asarray(total * np.float32(rng.uniform(0.02, 0.2)), np.float32)


def _developed(image: npt.NDArray[np.float32], rng: np.random.Generator, conditions: Conditions) -> UInt8Array:
    """Applies the lens and the camera: blur, light, exposure, contrast and noise."""
    values = cv2.GaussianBlur(image, (0, 0), rng.uniform(*conditions.blur))
    if conditions.gamma:
        values = np.clip(values, 0, 1) ** np.float32(np.exp(rng.uniform(-conditions.gamma, conditions.gamma)))
    if conditions.shade:
        values = values * _light(image.shape[1], image.shape[0], rng, conditions.shade)
    exposed = (values - 0.5) * rng.uniform(*conditions.contrast) + 0.5 + rng.uniform(-0.12, 0.12)
    noisy = exposed + rng.standard_normal(image.shape).astype(np.float32) * rng.uniform(*conditions.noise)
    return np.asarray(np.clip(noisy * 255, 0, 255), np.uint8)


def _light(width: int, height: int, rng: np.random.Generator, shade: float) -> npt.NDArray[np.float32]:
    """float32 [H, W, 1]: smooth light of about 1 - shade to 1."""
    few = rng.uniform(1 - shade, 1, (3, 4)).astype(np.float32)
    return np.asarray(cv2.resize(few, (width, height), interpolation=cv2.INTER_CUBIC)[:, :, None], np.float32)
