"""What stands between two images and an engine: images to the engine's inputs, the engine's outputs to matches.

An adapter knows the engine's manifest and the user's options. It owns no session and holds nothing that must be closed,
so services, batch jobs and calibration use it around runs of their own. It may be used from several threads.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from matchrt._util.memory import require_memory
from matchrt._version import __version__
from matchrt.errors import MatchRTError
from matchrt.manifest import EngineManifest
from matchrt.runtime.backend import get_backend
from matchrt.runtime.dense import DenseMatches
from matchrt.runtime.image import Image
from matchrt.runtime.matches import Matches, Provenance
from matchrt.runtime.options import MatcherOptions
from matchrt.runtime.preprocess import PreparedImage, best_side, prepare_image, read_as

ImageLike = Any  # a path, an array, an `Image`, a `PreparedImage`, or anything with __array__
Outputs = Mapping[str, npt.NDArray[Any]]


class PairAdapter:
    """Images to the inputs of the engine that `manifest` describes, and its outputs to matches.

    Errors: dense-missing (`sample` without a dense warp), resize-static, resize-range: options that the engine cannot
    follow. Engines of every batch are taken.
    """

    def __init__(self, manifest: EngineManifest, options: MatcherOptions | None = None) -> None:
        self.manifest = manifest
        self.options = options or MatcherOptions()
        if self.options.sample is not None:
            require_dense(manifest)
        if self.options.resize is not None:
            _require_resize(manifest, self.options.resize)

    def read(self, value: ImageLike, name: str = "array") -> Image:
        """Decodes a path or array under these options; what it gives can be prepared and drawn on.

        name: of an array, in messages and in `Matches`. Errors: image-* of `as_image`.
        """
        return read_as(value, name, self.options)

    def prepare(self, value: ImageLike, name: str = "array") -> PreparedImage:
        """Decodes an image and resizes it for the engine; one that is prepared already is given back as it is.

        name: of an array, in messages and in `Matches`. Errors: image-* of `as_image`, fit-size.
        """
        if isinstance(value, PreparedImage):
            return value
        return prepare_image(value, name, self.manifest, self.options)

    def blank(self) -> PreparedImage:
        """A black image of the engine's best size, to warm up with; `max_pixels` is for users' images."""
        contract, side = self.manifest.input, best_side(self.manifest)
        height, width = contract.height or side, contract.width or side
        options = replace(self.options, max_pixels=height * width)
        return prepare_image(np.zeros((height, width), np.uint8), "blank", self.manifest, options)

    def inputs(self, image0: ImageLike, image1: ImageLike) -> dict[str, npt.NDArray[Any]]:
        """The engine's inputs for two images, by name, one row each `[1, ...]`.

        Engines built with --batch take several such rows, stacked. The images are whatever `prepare` takes, on the
        host. Errors: image-* of `as_image`, fit-size, size-memory.
        """
        first, second = self.prepare(image0, "image0"), self.prepare(image1, "image1")
        if get_backend(self.manifest.backend).host_memory:
            require_memory(first.fit.canvas_hw, second.fit.canvas_hw, self.manifest.matching.coarse_stride)
        assert first.pixels is not None and second.pixels is not None
        inputs: dict[str, npt.NDArray[Any]] = {"image0": first.pixels[None], "image1": second.pixels[None]}
        if any(spec.name == "size0" for spec in self.manifest.inputs):
            for key, item in (("size0", first), ("size1", second)):
                inputs[key] = np.array([[item.fit.resized_height, item.fit.resized_width]], np.int32)
        if first.coarse is not None and second.coarse is not None:
            inputs |= {"coarse0": first.coarse[None], "coarse1": second.coarse[None]}
        return inputs

    def matches(
        self,
        images: tuple[PreparedImage, PreparedImage],
        outputs: Outputs,
        timings: Mapping[str, float],
        row: int = 0,
    ) -> Matches:
        """The matches in row `row` of an engine's outputs, in pixels of the images as given, sorted by score.

        timings: milliseconds of the run by stage; those of the images (`decode`, `resize`) are added where it does not
        name them.
        """
        start = time.perf_counter()
        first, second = images
        if self.options.sample is not None:
            keypoints0, keypoints1, scores = self.dense(images, outputs, row).sample(
                self.options.sample, self.options.seed
            )
        else:
            count = self._count(outputs, row)
            keypoints0 = first.fit.to_original(outputs["keypoints0"][row, :count])
            keypoints1 = second.fit.to_original(outputs["keypoints1"][row, :count])
            scores = outputs["scores"][row, :count]
        before = {"decode": first.decode_ms + second.decode_ms, "resize": first.resize_ms + second.resize_ms}
        spent = {**before, **timings, "to_pixels": (time.perf_counter() - start) * 1e3}
        return Matches(keypoints0, keypoints1, scores, first.ref, second.ref, spent, self._provenance(first, second))

    def dense(self, images: tuple[PreparedImage, PreparedImage], outputs: Outputs, row: int = 0) -> DenseMatches:
        """The dense warp in row `row` of an engine's outputs. Error: dense-missing."""
        require_dense(self.manifest)
        first, second = images
        return DenseMatches(outputs["warp"][row], outputs["certainty"][row], first.ref, second.ref)

    def _provenance(self, first: PreparedImage, second: PreparedImage) -> Provenance:
        manifest = self.manifest
        return Provenance(
            model=manifest.model,
            engine_sha256=manifest.engine_sha256,
            precision=manifest.precision,
            backend=manifest.backend,
            matchrt_version=__version__,
            network_size0=first.fit.canvas_hw,
            network_size1=second.fit.canvas_hw,
        )

    def _count(self, outputs: Outputs, row: int) -> int:
        """How many of the engine's matches are wanted: they come sorted by score."""
        scores = outputs["scores"][row, : int(outputs["num_matches"][row])]
        least = self.manifest.matching.default_score if self.options.min_score is None else self.options.min_score
        # NaN compares false; it is kept, so that Matches refuses it.
        return len(scores) - int(np.count_nonzero(scores < least))


def require_dense(manifest: EngineManifest) -> None:
    """Raises `dense-missing` for an engine that returns no dense warp."""
    if not manifest.dense:
        raise MatchRTError(
            "dense-missing",
            f"This engine of {manifest.model} returns no dense warp.",
            "Build a RoMa model with --dense, or take the matches that the engine selects.",
        )


def _require_resize(manifest: EngineManifest, resize: int) -> None:
    contract = manifest.input
    if contract.profile is None:
        raise MatchRTError(
            "resize-static",
            f"This engine has the fixed input size {contract.height}x{contract.width}; it cannot take --resize "
            f"{resize}.",
            "Leave the option out, or build an engine with --dynamic.",
        )
    low, high = min(contract.profile.minimum), max(contract.profile.maximum)
    if not low <= resize <= high:
        raise MatchRTError(
            "resize-range", f"Size {resize} is outside the engine's {low}..{high}.", "Choose a size in that range."
        )
