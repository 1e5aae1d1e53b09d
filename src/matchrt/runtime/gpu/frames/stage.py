"""The stage of a session in front of its engine: images of any layout become the engine's inputs, in a stream.

Kernels resize them; those that are frames of an engine for frames are only copied.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Protocol

from matchrt.manifest import InputContract
from matchrt.runtime.gpu.frames.copies import CopyPlan, copy_frames
from matchrt.runtime.gpu.frames.device_code import Arguments, FrameKernels
from matchrt.runtime.gpu.frames.jobs import (
    BLOCK,
    GpuWeights,
    Jobs,
    both_passes,
    make_jobs,
    middle_bytes,
    points_arguments,
    weights_key,
)
from matchrt.runtime.gpu.frames.plan import FramePlan, Resize
from matchrt.runtime.gpu.frames.upload import FrameUpload
from matchrt.runtime.gpu.memory import DeviceMemory

# A session keeps so many plans and so many tables of weights, some 30 KB of GPU memory each.
MAX_PLANS, MAX_WEIGHTS = 32, 64
_THREADS = 256


class FramePair(Protocol):
    """Two images in host memory or on the GPU, and what becomes of them."""

    @property
    def plan(self) -> FramePlan | CopyPlan:
        """How the pixels lie, and how they are resized, or that they are the engine's own frames."""
        ...

    def send(self, upload: FrameUpload, stream: int) -> Sequence[int]:
        """The addresses of both images on the GPU, good for work in the stream. Errors: out-of-memory, cuda-failed."""
        ...


class FrameStage:
    """The kernels with their weights and memory. One session uses it, and none of its work may be under way then.

    kernels: loaded on the session's GPU; None for an engine that only gets copies.
    contract: of the engine's input. device: CUDA's number of the GPU.
    """

    def __init__(self, kernels: FrameKernels | None, contract: InputContract, device: int) -> None:
        self._kernels, self._contract = kernels, contract
        self.upload = FrameUpload(device)
        self._weights: OrderedDict[tuple[int, ...], GpuWeights] = OrderedDict()
        self._jobs: OrderedDict[FramePlan, tuple[Mapping[str, int], Jobs]] = OrderedDict()
        self._points: OrderedDict[tuple[FramePlan, int], Arguments | None] = OrderedDict()
        self._middle: DeviceMemory | None = None

    @property
    def device_bytes(self) -> int:
        """Bytes on the GPU: images, weights, and what lies between the passes."""
        middle = 0 if self._middle is None else self._middle.size
        return self.upload.size + middle + sum(weights.size for weights in self._weights.values())

    def run(self, plan: FramePlan | CopyPlan, images: Sequence[int], targets: Mapping[str, int], stream: int) -> None:
        """Puts the resize of both images into a stream, with padding and sizes, or their copies.

        images: addresses of their first pixels. targets: addresses of the engine's inputs, by name.
        Errors: out-of-memory, cuda-failed.
        """
        if isinstance(plan, CopyPlan):
            copy_frames(plan, images, targets, stream)
            return
        assert self._kernels is not None
        jobs = self._ready(plan, targets, stream)
        for index, image in enumerate(jobs.images):
            jobs.data[index] = images[image]
        self._kernels.launch("first_pass", jobs.grids[0], BLOCK, jobs.arguments, stream)
        self._kernels.launch("second_pass", jobs.grids[1], BLOCK, jobs.arguments, stream)

    def to_pixels(
        self, plan: FramePlan | CopyPlan, points: tuple[int, int], count: int, slots: int, stream: int
    ) -> None:
        """Puts the way of keypoints back to the images' own pixels into a stream, in place.

        points: addresses of `[1, slots, 2]` of both images. count: address of the number of matches.
        Error: cuda-failed.
        """
        if isinstance(plan, CopyPlan):  # the engine's keypoints are in pixels of the frames
            return
        key = plan, points[0]
        if key not in self._points:
            _make_room(self._points, MAX_PLANS)
            self._points[key] = points_arguments(plan.resizes, points, count, slots)
        arguments = self._points[key]
        if arguments is not None and self._kernels is not None:
            grid = -(-2 * slots // _THREADS), 2, 1
            self._kernels.launch("to_pixels", grid, (_THREADS, 1), arguments, stream)

    def close(self) -> None:
        """Frees all memory. Raises nothing."""
        self._jobs.clear()
        self._points.clear()
        for weights in self._weights.values():
            weights.close()
        self._weights.clear()
        if self._middle is not None:
            self._middle.close()
            self._middle = None
        self.upload.close()

    def _ready(self, plan: FramePlan, targets: Mapping[str, int], stream: int) -> Jobs:
        known = self._jobs.get(plan)
        if known is not None and known[0] is targets:
            self._jobs.move_to_end(plan)
            return known[1]
        weights = tuple(self._weights_of(plan, resize, stream) for resize in plan.resizes)
        channels = self._contract.channels
        jobs = make_jobs(plan, channels, weights, targets, self._between(middle_bytes(plan, channels, weights)))
        _make_room(self._jobs, MAX_PLANS)
        self._jobs[plan] = targets, jobs
        return jobs

    def _weights_of(self, plan: FramePlan, resize: Resize, stream: int) -> GpuWeights:
        layout = plan.layouts[resize.image]
        key = weights_key(resize, layout)
        found = self._weights.get(key)
        if found is None:
            resized = resize.fit.resized_height, resize.fit.resized_width
            found = GpuWeights(both_passes((layout.height, layout.width), resized, self._contract), stream)
            _make_room(self._weights, MAX_WEIGHTS)  # plans that use the oldest keep it alive
            self._weights[key] = found
        self._weights.move_to_end(key)
        return found

    def _between(self, size: int) -> int:
        if self._middle is None or self._middle.size < size:
            self._jobs.clear()  # they have the address of the memory that is freed
            old, self._middle = self._middle, None
            if old is not None:
                old.close()
            self._middle = DeviceMemory(size)
        return self._middle.pointer


def _make_room(kept: OrderedDict, most: int) -> None:  # type: ignore[type-arg]
    while len(kept) >= most:
        kept.popitem(last=False)
