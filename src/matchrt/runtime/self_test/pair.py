"""The image pair of an engine's self-test, made from a few integers.

Nothing but 32-bit integer arithmetic is used, so that Python and C++ make the same bytes (docs/engine-contract.md has
the definition, and `examples/cpp/include/matchrt/self_test.h` is the other implementation).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from matchrt.manifest import FRAMES, EngineManifest, InputContract, SelfTestPair
from matchrt.runtime.frame_matrices import range_inputs

UInt8Array = npt.NDArray[np.uint8]
Int32Array = npt.NDArray[np.int32]
# Value noise on four grids: the distance of its points in pixels as a power of two, and its weight.
_LAYERS = ((2, 2), (3, 3), (4, 4), (5, 6))
_MEAN = 1912


def self_test_inputs(manifest: EngineManifest, pair: SelfTestPair) -> dict[str, npt.NDArray[Any]]:
    """The engine's inputs by name, arrays `[B, ...]` with the types and shapes that the manifest lists.

    Every row of a batch is the same pair. Images fill the input: none is padded.
    Error: ValueError for a manifest that lists other inputs than the contract's.
    """
    if manifest.input.frames is not None:
        return _frames_inputs(manifest, pair)
    height, width = self_test_size(manifest.input)
    images = {
        "image0": view(height, width, manifest.input.channels, pair.seed, (0, 0), 256),
        "image1": view(height, width, manifest.input.channels, pair.seed, pair.shift, pair.contrast),
    }
    batch = manifest.input.batch
    inputs: dict[str, npt.NDArray[Any]] = {}
    for spec in manifest.inputs:
        kind, image = spec.name[:-1], images.get(f"image{spec.name[-1:]}")
        if image is not None and kind == "size":
            one: npt.NDArray[Any] = np.array([height, width], np.int32)
        elif image is not None and kind == "coarse" and manifest.input.coarse is not None:
            one = nearest(image, manifest.input.coarse)
        elif image is not None and kind == "image":
            one = image
        else:
            raise ValueError(f"the self-test has nothing for the input '{spec.name}'")
        inputs[spec.name] = np.ascontiguousarray(np.broadcast_to(one, (batch, *one.shape)))
    return inputs


def _frames_inputs(manifest: EngineManifest, pair: SelfTestPair) -> dict[str, npt.NDArray[Any]]:
    """The pair at the shapes of the frames' tensors; of nv12, the rows of chroma are noise like those of luma."""
    contract = manifest.input
    frames = contract.frames
    assert frames is not None
    sizes = frames.sizes or (self_test_size(contract),) * 2
    arrays: dict[str, npt.NDArray[Any]] = {}
    for side, (size, shift, contrast) in enumerate(zip(sizes, ((0, 0), pair.shift), (256, pair.contrast), strict=True)):
        one = view(*frames.shape(size), pair.seed, shift, contrast)
        arrays[FRAMES[side]] = np.ascontiguousarray(np.broadcast_to(one, (contract.batch, *one.shape)))
        if frames.sizes is None:
            arrays |= range_inputs(contract, size, side)
    wanted = [spec.name for spec in manifest.inputs]
    if missing := [name for name in wanted if name not in arrays]:
        raise ValueError(f"the self-test has nothing for the input '{missing[0]}'")
    return {name: arrays[name] for name in wanted}


def self_test_shapes(manifest: EngineManifest) -> dict[str, tuple[int, ...]]:
    """The shapes of `self_test_inputs`, by name. Raises nothing."""
    if manifest.input.frames is not None:
        return {name: array.shape for name, array in _frames_inputs(manifest, SelfTestPair(0, (0, 0), 0)).items()}
    shapes = {}
    for spec in manifest.inputs:
        sides = iter((manifest.input.batch,) if manifest.input.any_batch else self_test_size(manifest.input))
        shapes[spec.name] = tuple(side if isinstance(side, int) else next(sides, 1) for side in spec.shape)
    return shapes


def self_test_size(contract: InputContract) -> tuple[int, int]:
    """(height, width) in pixels of the first image.

    The input's size, or the best one of a dynamic engine; the size of frame 0, or of a range the one in it that is
    nearest to twice the input's.
    """
    frames = contract.frames
    if frames is not None and frames.sizes is not None:
        return frames.sizes[0]
    if frames is not None:
        assert contract.height is not None and contract.width is not None
        return frames.nearest((2 * contract.height, 2 * contract.width), 0)
    if contract.profile is not None:
        return contract.profile.optimum
    assert contract.height is not None and contract.width is not None
    return contract.height, contract.width


def view(height: int, width: int, channels: int, seed: int, shift: Sequence[int], contrast: int) -> UInt8Array:
    """A uint8 image `[height, width, channels]` of noise on four scales.

    seed: decides the noise; each channel has a seed of its own, `seed` + its number.
    shift: (rows, columns) in pixels: pixel (y, x) of the image is point (y + rows, x + columns) of the noise.
    contrast: in 256ths; the distance of each value from 128 is multiplied by it.
    """
    image = np.empty((height, width, channels), np.uint8)
    for channel in range(channels):
        noise = _noise(height, width, seed + channel, shift)
        noise -= _MEAN
        noise >>= 3  # rounds down, also below zero
        noise *= contrast
        noise >>= 8
        noise += 128
        image[:, :, channel] = np.clip(noise, 0, 255, out=noise)
    return image


def nearest(image: UInt8Array, size: tuple[int, int]) -> UInt8Array:
    """A copy of an image `[H, W, C]` at (height, width) pixels: pixel (y, x) is pixel (y*H // height, x*W // width)."""
    rows = np.arange(size[0]) * image.shape[0] // size[0]
    columns = np.arange(size[1]) * image.shape[1] // size[1]
    return np.ascontiguousarray(image[rows][:, columns])


def _noise(height: int, width: int, seed: int, shift: Sequence[int]) -> Int32Array:
    """int32 [height, width]: the weighted sum of all layers, 0..3825."""
    total = np.zeros((height, width), np.int32)
    for power, weight in _LAYERS:
        step = 1 << power
        top, left = shift[0] >> power, shift[1] >> power
        # The grid's rows and columns that are needed; numbers below zero wrap around, as in C++.
        rows = np.arange(top, (height - 1 + shift[0] >> power) + 2).astype(np.uint32)
        columns = np.arange(left, (width - 1 + shift[1] >> power) + 2).astype(np.uint32)
        grid = _hash(rows[:, None], columns[None], seed + 1000 * power)
        # Interpolation is along the rows first, which are few.
        x = np.arange(width) + shift[1]
        column, right = (x >> power) - left, (x & (step - 1)).astype(np.int32)
        lines = grid[:, column] * (step - right) + grid[:, column + 1] * right
        # Every row of the grid begins a cell of `step` rows of the image; in place, because memory costs most.
        down = np.arange(step, dtype=np.int32)[None, :, None]
        layer = (lines[1:] - lines[:-1])[:, None] * down
        layer += (lines[:-1] << np.int32(power))[:, None]
        layer >>= np.int32(2 * power)
        layer *= np.int32(weight)
        first = shift[0] & (step - 1)
        total += layer.reshape(-1, width)[first : first + height]
    return total


def _hash(row: npt.NDArray[np.uint32], column: npt.NDArray[np.uint32], seed: int) -> Int32Array:
    """A value 0..255 for each grid point: the upper byte of a mixed 32-bit number."""
    start = np.uint32(seed * 0xC2B2AE3D & 0xFFFFFFFF)
    mixed = row * np.uint32(0x9E3779B1) + column * np.uint32(0x85EBCA77) + start
    mixed ^= mixed >> np.uint32(15)
    mixed *= np.uint32(0x2C1B3C6D)
    mixed ^= mixed >> np.uint32(12)
    mixed *= np.uint32(0x297A2D39)
    mixed ^= mixed >> np.uint32(15)
    upper: Int32Array = (mixed >> np.uint32(24)).astype(np.int32)
    return upper
