"""Which images are prepared on the GPU, and how: arrays that are there, and large ones in host memory."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from matchrt.errors import MatchRTError
from matchrt.manifest import HOST_KERNELS, EngineManifest
from matchrt.runtime.gpu.arrays import GpuView, on_gpu, view_gpu_array, wait_for_all
from matchrt.runtime.gpu.frames.copies import (
    CopyPlan,
    FrameLayout,
    copies_frames,
    frame_layout,
    plan_copies,
    require_frame_layout,
)
from matchrt.runtime.gpu.frames.layouts import PixelLayout, layout_of, layout_of_nv12, packed_strides
from matchrt.runtime.gpu.frames.plan import NAMES, FramePlan, plan_frames
from matchrt.runtime.gpu.frames.upload import FrameUpload, HostFrame, is_pinned
from matchrt.runtime.gpu.matching import require_gpu_session
from matchrt.runtime.gpu.session import TensorRTSession
from matchrt.runtime.image import Frame
from matchrt.runtime.nv12 import Nv12
from matchrt.runtime.options import MatcherOptions
from matchrt.runtime.preprocess import PreparedImage
from matchrt.runtime.session import Pending, Session

LOGGER = logging.getLogger("matchrt.runtime")
# From so many pixels on, images in host memory are transferred as they are and resized on the GPU. At 1280x720 the host
# is not slower (H100 with 16 cores: docs/gpu-figures.md).
GPU_FROM = 1_500_000
_KNOWN_PLANS = 64
_Images = tuple[PreparedImage, PreparedImage]


@dataclass(frozen=True, eq=False)
class GpuPair:
    """Two images on the GPU.

    plan: what becomes of them.
    addresses: of their first pixels.
    owners: the caller's objects, which keep the memory.
    stream: the address of the stream in which they are made, and the run is to be; None for the session's own.
    """

    plan: FramePlan | CopyPlan
    addresses: tuple[int, int]
    owners: tuple[Any, Any]
    stream: int | None

    @property
    def images(self) -> _Images:
        """Their names, sizes and fits that scale nothing, without pixels."""
        return self.plan.images

    def start(self, session: Session) -> Pending:
        """Starts a run of the engine on them. Errors: those of `TensorRTSession.start_frames`."""
        return require_gpu_session(session).start_frames(self, self.stream)

    def told(self, prepared: _Images) -> _Images:
        """The images as they are: nobody looks at pixels on the GPU. Raises nothing."""
        return prepared

    def send(self, upload: FrameUpload, stream: int) -> Sequence[int]:
        """Their addresses: they are there already. Raises nothing."""
        return self.addresses


@dataclass(frozen=True, eq=False)
class HostPair:
    """Two images in host memory that are resized on the GPU.

    plan: what becomes of them there.
    frames: their bytes.
    """

    plan: FramePlan | CopyPlan
    frames: tuple[HostFrame, HostFrame]

    def send(self, upload: FrameUpload, stream: int) -> Sequence[int]:
        """Transfers both images; see `FrameUpload.send`."""
        return upload.send(self.frames, stream)

    def start(self, session: Session) -> Pending:
        """Starts a run of the engine on them. Errors: those of `TensorRTSession.start_frames`."""
        return require_gpu_session(session).start_frames(self)

    @property
    def images(self) -> _Images:
        """Their names, sizes and fits that scale nothing, without pixels."""
        return self.plan.images

    def told(self, prepared: _Images) -> _Images:
        """The images with what a person should know of their pixels. Raises nothing.

        Looking at the pixels takes time, which is best spent while the engine works. Frames of an engine for frames are
        not looked at, as on the host.
        """
        if isinstance(self.plan, CopyPlan):
            return prepared
        first, second = (
            image if notice is None else replace(image, notice=notice)
            for image, notice in zip(prepared, map(_notice, self.frames, NAMES), strict=True)
        )
        return first, second


class FrameRoute:
    """The way of images through the GPU for the engine of `manifest`. Several threads may use one route.

    options: of the matcher.
    """

    def __init__(self, manifest: EngineManifest, options: MatcherOptions) -> None:
        self._manifest, self._options = manifest, options
        self._resizable = (
            set(NAMES) <= {spec.name for spec in manifest.inputs} and manifest.input.kernel not in HOST_KERNELS
        )
        self._frames = manifest.input.frames if copies_frames(manifest) else None
        frames = self._frames

        @lru_cache(maxsize=_KNOWN_PLANS)
        def plan(layouts: tuple[PixelLayout | FrameLayout, PixelLayout | FrameLayout]) -> FramePlan | CopyPlan:
            first, second = layouts
            if frames is not None:
                assert isinstance(first, FrameLayout) and isinstance(second, FrameLayout)
                return plan_copies((first, second), frames)
            assert isinstance(first, PixelLayout) and isinstance(second, PixelLayout)
            return plan_frames((first, second), manifest, options)

        self._plan = plan
        self._told: str | None = None  # the refusal that the log has

    def gpu_pair(self, image0: Any, image1: Any, stream: int | None) -> GpuPair:
        """Two images on the GPU, as `Matcher.match` takes them. They are read where they lie.

        stream: the address of the stream in which they are read; None waits until they are made.
        Errors: image-*, option-range, package-missing, cuda-failed, fit-size, frames-size.
        """
        if not self._resizable and self._frames is None:
            raise MatchRTError(
                "image-array",
                f"This engine of {self._manifest.model} takes a range of frame sizes, with matrices from the host, or "
                "pads images to a square before it resizes them: it takes no arrays on the GPU.",
                "Pass the images as NumPy arrays or files, or build an engine for one size of frames, or without "
                "--frames.",
            )
        if self._options.stretch != "none":
            raise MatchRTError(
                "option-range",
                f"stretch is {self._options.stretch!r}, which images on the GPU do not go through.",
                "Stretch them before, or pass NumPy arrays.",
            )
        if stream is None:
            wait_for_all()  # an array that names no stream may come from any
        found = [self._on_gpu(image, name, stream) for image, name in zip((image0, image1), NAMES, strict=True)]
        (first, view0), (second, view1) = found
        plan = self._plan((first, second))
        return GpuPair(plan, (view0.pointer, view1.pointer), (view0.owner, view1.owner), stream)

    def host_pair(self, session: Session, image0: Any, image1: Any) -> HostPair | None:
        """Two images in host memory, if they are to be resized on the GPU; None if the host is to prepare them.

        These are arrays of bytes and NV12 frames, if one is large (`GPU_FROM`) or `options.resize_on` says so, and if
        the session can. Of an engine for frames, they are the frames that it takes. Errors: image-*, fit-size.
        """
        where = self._options.resize_on
        if (
            where == "host"
            or not (self._resizable or self._frames)
            or self._options.stretch != "none"
            or not isinstance(session, TensorRTSession)
        ):
            return None
        frames = _bytes_of(image0), _bytes_of(image1)
        if frames[0] is None or frames[1] is None:
            return None
        if where == "auto" and max(_pixels(image0, frames[0]), _pixels(image1, frames[1])) < GPU_FROM:
            return None
        if not (self._are_frames((image0, image1), (frames[0], frames[1])) and self._possible(session)):
            return None
        first, layout0 = self._in_host_memory(image0, frames[0], NAMES[0])
        second, layout1 = self._in_host_memory(image1, frames[1], NAMES[1])
        return HostPair(self._plan((layout0, layout1)), (first, second))

    def _are_frames(self, images: tuple[Any, Any], arrays: tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]) -> bool:
        """Whether an engine for frames gets just these bytes; true for other engines."""
        frames = self._frames
        if frames is None:
            return True
        layouts = (
            frame_layout(image, array.shape, array.strides, array.dtype, frames)
            for image, array in zip(images, arrays, strict=True)
        )
        return all(layout is not None and frames.takes(layout.size, side) for side, layout in enumerate(layouts))

    def _possible(self, session: TensorRTSession) -> bool:
        """Whether the session takes images. This also makes its GPU that of the thread, which may be a new one."""
        refusal = session.frames_refusal()
        if refusal is not None and refusal != self._told:
            self._told = refusal
            LOGGER.warning("images are resized on the host: %s", refusal)
        return refusal is None

    def _on_gpu(self, image: Any, name: str, stream: int | None) -> tuple[PixelLayout | FrameLayout, GpuView]:
        array = image.array if isinstance(image, Nv12) else image
        if not on_gpu(array):
            raise MatchRTError(
                "image-array",
                f"'{name}' is not on the GPU, and the other image is.",
                "Pass both images on the GPU, or both in host memory.",
            )
        view = view_gpu_array(array, name, stream)
        return self._layout(image, view.shape, view.strides, view.dtype, name), view

    def _in_host_memory(
        self, image: Any, array: npt.NDArray[np.uint8], name: str
    ) -> tuple[HostFrame, PixelLayout | FrameLayout]:
        # Rows that are far apart are gathered, because the GPU would fetch what lies between them.
        pinned = array.strides[0] < 2 * array.shape[1] * array.strides[1] and is_pinned(array)
        strides = array.strides if pinned else packed_strides(array.shape, 1)
        return HostFrame(array, pinned), self._layout(image, array.shape, strides, array.dtype, name)

    def _layout(
        self, image: Any, shape: tuple[int, ...], strides: tuple[int, ...], dtype: np.dtype[Any], name: str
    ) -> PixelLayout | FrameLayout:
        """How an image lies in the memory that the GPU reads. shape, strides (bytes), dtype: of its array."""
        if self._frames is not None:
            return require_frame_layout(image, shape, strides, dtype, self._manifest.input, NAMES.index(name), name)
        if isinstance(image, Nv12):
            return layout_of_nv12(image, shape, strides, dtype, name)
        return layout_of(shape, strides, dtype, self._options.channel_order, name)


def _bytes_of(image: Any) -> npt.NDArray[np.uint8] | None:
    """An image's bytes, rows first, without a copy; None for anything that the host should look at."""
    value = image.array if isinstance(image, Nv12) else image
    if not isinstance(value, np.ndarray):
        if not hasattr(type(value), "__array__") or not hasattr(value, "data_ptr"):  # a tensor in host memory
            return None
        try:
            value = np.asarray(value)
        except Exception:  # the host path says what is wrong with it
            return None
    if value.dtype != np.uint8:
        return None
    if isinstance(image, Nv12):
        fits = value.ndim == 2 and value.shape[0] >= image.rows and value.shape[1] >= image.width
        return value[: image.rows, : image.width] if fits and value.strides[1] == 1 else None
    if value.ndim not in (2, 3) or value.size == 0 or (value.ndim == 3 and value.shape[2] not in (1, 3, 4)):
        return None
    # Pixels that do not follow one another would be gathered byte by byte.
    inner = 1 if value.ndim == 2 else value.shape[2]
    together = value.strides[1] == inner and (value.ndim == 2 or inner == 1 or value.strides[2] == 1)
    return value if together else None


def _notice(frame: HostFrame, name: str) -> str | None:
    """Of NV12 frames, the luma is looked at."""
    return Frame(frame.array, "grey" if frame.array.ndim == 2 else "rgb", name, seen=False).notice()


def _pixels(image: Any, array: npt.NDArray[np.uint8]) -> int:
    if isinstance(image, Nv12):
        return image.height * image.width
    return int(array.shape[0] * array.shape[1])
