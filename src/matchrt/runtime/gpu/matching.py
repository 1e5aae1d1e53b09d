"""Matching of images that are on the GPU already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from matchrt.errors import MatchRTError
from matchrt.manifest import EngineManifest
from matchrt.runtime.gpu.arrays import GpuArray, GpuView, stream_handle, view_gpu_array
from matchrt.runtime.gpu.session import GpuOutputs, TensorRTSession
from matchrt.runtime.session import Session

_IMAGES = ("image0", "image1")


@dataclass(frozen=True)
class GpuMatches:
    """Matches that stay on the GPU, best first; rows from `num_matches` on are zero.

    keypoints0: float32 [1, K, 2], (x, y) in pixels of image 0 as given.
    keypoints1: float32 [1, K, 2], the matching points in pixels of image 1 as given.
    scores: float32 [1, K] in 0..1; the smallest is at least the engine's threshold.
    num_matches: int32 [1], how many of the K rows are matches.

    They are valid until the matcher's next run.
    """

    keypoints0: GpuArray
    keypoints1: GpuArray
    scores: GpuArray
    num_matches: GpuArray

    @staticmethod
    def of(outputs: GpuOutputs) -> GpuMatches:
        """The matches in the outputs of a run. Raises nothing."""
        arrays = outputs.arrays()
        return GpuMatches(arrays["keypoints0"], arrays["keypoints1"], arrays["scores"], arrays["num_matches"])


@dataclass(frozen=True)
class GpuRun:
    """A run on GPU images.

    outputs: the engine's outputs, on the GPU.
    sizes: (height, width) in pixels of image 0 and of image 1.
    """

    outputs: GpuOutputs
    sizes: tuple[tuple[int, int], tuple[int, int]]


def run_on_gpu(session: Session, image0: Any, image1: Any, stream: Any) -> GpuRun:
    """Runs the engine on two GPU images in the caller's stream, without copying them.

    image0, image1: contiguous uint8 `[H, W]` (grey engines), `[H, W, C]` or `[1, H, W, C]` of the engine's size.
    stream: the caller's CUDA stream; None for the session's own, and then the run is done when this returns.
    Errors: device-backend (the session is not TensorRT's), stream-invalid, image-array, package-missing, cuda-failed,
    and those of `TensorRTSession.run_on_gpu`.
    """
    if not isinstance(session, TensorRTSession):
        raise MatchRTError(
            "device-backend",
            f"An engine for backend {session.manifest.backend} takes images from host memory only.",
            "Pass them as NumPy arrays, or use an engine for backend tensorrt or tensorrt_rtx.",
        )
    manifest = session.manifest
    _require_plain(manifest)
    where = None if stream is None else stream_handle(stream)
    views = [_image(view_gpu_array(v, n, where), n, manifest) for v, n in zip((image0, image1), _IMAGES, strict=True)]
    inputs: dict[str, GpuView | npt.NDArray[Any]] = dict(zip(_IMAGES, views, strict=True))
    if any(spec.name == "size0" for spec in manifest.inputs):
        for name, view in zip(("size0", "size1"), views, strict=True):
            inputs[name] = np.array([view.shape[1:3]], np.int32)
    first, second = ((view.shape[1], view.shape[2]) for view in views)
    return GpuRun(session.run_on_gpu(inputs, where), (first, second))


def _require_plain(manifest: EngineManifest) -> None:
    names = {spec.name for spec in manifest.inputs}
    if not names <= {*_IMAGES, "size0", "size1"}:
        raise MatchRTError(
            "image-array",
            f"{manifest.model} takes {len(names)} inputs, each image in several sizes: GPU arrays are not resized.",
            "Pass the images as NumPy arrays or files.",
        )


def _image(view: GpuView, name: str, manifest: EngineManifest) -> GpuView:
    """The view as [1, H, W, C]."""
    channels = manifest.input.channels
    shape = view.shape
    if len(shape) == 4 and shape[0] == 1:
        shape = shape[1:]
    if len(shape) == 2 and channels == 1:
        shape = (*shape, 1)
    if view.dtype != np.uint8 or len(shape) != 3 or shape[2] != channels:
        raise MatchRTError(
            "image-array",
            f"{name} on the GPU is {view.dtype} {list(view.shape)}; the engine takes uint8 [H, W, {channels}].",
            "Convert it on the GPU, or pass a NumPy array, which is converted and resized.",
        )
    _require_size(shape[0], shape[1], name, manifest)
    return GpuView(view.pointer, (1, *shape), view.dtype, view.owner)


def _require_size(height: int, width: int, name: str, manifest: EngineManifest) -> None:
    contract = manifest.input
    if contract.profile is None:
        fits, wanted = (height, width) == (contract.height, contract.width), f"{contract.height}x{contract.width}"
    else:
        (low_h, low_w), (high_h, high_w) = contract.profile.minimum, contract.profile.maximum
        step = contract.divisor
        fits = low_h <= height <= high_h and low_w <= width <= high_w and not (height % step or width % step)
        wanted = f"{low_h}x{low_w} to {high_h}x{high_w} in multiples of {step}"
    if not fits:
        raise MatchRTError(
            "image-array",
            f"{name} on the GPU is {height}x{width}; the engine takes {wanted}, and GPU arrays are not resized.",
            "Resize it on the GPU, or pass a NumPy array, which is resized.",
        )
