"""The code before and after an engine: images become its inputs, and its outputs become matches.

An adapter knows the engine's manifest and the user's options. It owns no session and holds nothing that must be closed,
so services, batch jobs and calibration use it around runs of their own. Several threads may use one adapter.
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
from matchrt.manifest import DENSE_OUTPUTS, PRECISION_OUTPUT, EngineManifest
from matchrt.runtime.backend import get_backend
from matchrt.runtime.dense import DenseMatches, precision_in_pixels, without_padding
from matchrt.runtime.fit import Fit, fit_image
from matchrt.runtime.frames import blank_frame, frame_inputs, prepare_frame, read_frame, require_prepared_frame
from matchrt.runtime.image import Image, stretch_together
from matchrt.runtime.match_data import Provenance
from matchrt.runtime.matches import Matches
from matchrt.runtime.options import MatcherOptions
from matchrt.runtime.preprocess import (
    PlannedImage,
    PlannedPair,
    PreparedImage,
    best_side,
    plan_image,
    prepare_image,
    read_as,
    require_prepared,
)
from matchrt.runtime.workspace import Workspace

ImageLike = Any  # a path, an array, an `Image`, a `PreparedImage`, or anything with __array__
Outputs = Mapping[str, npt.NDArray[Any]]


class PairAdapter:
    """Images to the inputs of the engine that `manifest` describes, and its outputs to matches.

    manifest: of the engine; any batch size is accepted.
    options: how images are read and resized, and which matches are kept; None for the defaults.
    sides: long sides in pixels at which a dynamic engine sees image 0 and image 1, in place of `options.resize`.
    Errors: dense-missing if `options.sample` is set and the engine has no dense warp; resize-static or resize-range if
    the engine cannot take images of that size.
    """

    def __init__(
        self,
        manifest: EngineManifest,
        options: MatcherOptions | None = None,
        sides: tuple[int, int] | None = None,
    ) -> None:
        self.manifest = manifest
        self.options = options or MatcherOptions()
        self._sides = sides or (self.options.resize,) * 2
        self._latest = self._provenance_at((0, 0), (0, 0))
        if self.options.sample is not None:
            require_dense(manifest)
        for side in self._sides:
            if side is not None:
                _require_resize(manifest, side)

    def read(self, value: ImageLike, name: str = "array") -> Image:
        """Decodes a path or an array under these options, to uint8 `[H, W, 3]` RGB or `[H, W]` grey.

        The result can be prepared and drawn on. name: what messages and `Matches` call an array. Errors: image-* of
        `as_image`.
        """
        return read_as(value, name, self.options)

    def decode(self, value: ImageLike, name: str = "array") -> Image:
        """Decodes what `prepare` takes, to uint8 `[H, W, 3]` RGB or `[H, W]` grey.

        It differs from `read` for engines that take frames: arrays of the frames' own layout are what the engine sees
        in them. name: what messages and `Matches` call an array. Errors: image-* of `as_image`.
        """
        if isinstance(value, Image):
            return value
        if self.manifest.input.frames is not None:
            return read_frame(value, name, self.manifest, self.options)
        return self.read(value, name)

    def prepare(self, value: ImageLike, name: str = "array", side: int | None = None) -> PreparedImage:
        """Decodes an image and resizes it for the engine, to uint8 `[H, W, C]`; a prepared image is returned unchanged.

        name: what messages and `Matches` call an array. side: 0 or 1, which of the engine's frames it shall be, if
        these differ in size; None for either. Errors: image-* of `as_image`, fit-size, frames-size; image-prepared for
        an image that was prepared otherwise than this engine wants it; option-range if images are stretched in pairs.
        """
        planned = self._plan(value, name, side)
        return planned if isinstance(planned, PreparedImage) else planned.told(planned.write(Workspace()))

    def _plan(self, value: ImageLike, name: str, side: int | None) -> PlannedImage | PreparedImage:
        if isinstance(value, PreparedImage):
            if self.manifest.input.frames is not None:
                require_prepared_frame(value, self.manifest)
            else:
                require_prepared(value, self.manifest, self._options_of(side))
            return value
        if self.options.stretch == "same":
            raise MatchRTError(
                "option-range",
                "An image cannot be prepared alone if stretch is 'same': its pixels depend on the other image.",
                "Pass both images of a pair, or use stretch='each'.",
            )
        return self._plan_image(value, name, side)

    def _plan_image(self, value: ImageLike, name: str, side: int | None) -> PlannedImage | PreparedImage:
        if self.manifest.input.frames is not None:
            return prepare_frame(value, name, side, self.manifest, self.options)
        return plan_image(value, name, self.manifest, self._options_of(side))

    def _options_of(self, side: int | None) -> MatcherOptions:
        """The options for image 0 or 1; None for either."""
        wanted = self._sides[side or 0]
        return self.options if wanted == self.options.resize else replace(self.options, resize=wanted)

    def share(self, value: ImageLike, name: str = "array") -> PreparedImage | Image:
        """What of an image can be used in several pairs, for `prepare_pair`: the prepared image.

        If images are stretched in pairs, or matched again, it is the decoded image, uint8 `[H, W, C]` with its values.
        name: what messages and `Matches` call an array. Errors: those of `prepare`.
        """
        return self.prepare(value, name) if self.options.prepares_alone else self.decode(value, name)

    def prepare_pair(self, image0: ImageLike, image1: ImageLike) -> tuple[PreparedImage, PreparedImage]:
        """Decodes and resizes both images of a pair, each to uint8 `[H, W, C]`, stretched if the options say so.

        Errors: those of `prepare`.
        """
        pair = self.plan_pair(image0, image1)
        return pair.told(pair.write(Workspace(), None))

    def plan_pair(self, image0: ImageLike, image1: ImageLike) -> PlannedPair:
        """Decodes both images of a pair and fits them to the engine; no pixel of its input is written yet.

        Errors: those of `prepare`.
        """
        prepared = isinstance(image0, PreparedImage) and isinstance(image1, PreparedImage)
        if self.options.stretch != "same" or prepared:
            return PlannedPair(self._plan(image0, "image0", 0), self._plan(image1, "image1", 1))
        start = time.perf_counter()
        images = stretch_together(self.read(image0, "image0"), self.read(image1, "image1"))
        half = (time.perf_counter() - start) * 1e3 / 2
        first, second = (
            replace(self._plan_image(image, image.name, side), decode_ms=half) for side, image in enumerate(images)
        )
        return PlannedPair(first, second)

    def fit_of(self, image: PreparedImage) -> Fit:
        """How an image of this size is fitted to the engine under these options. Error: fit-size."""
        size = image.ref.height, image.ref.width
        return fit_image(size, self.manifest.input, self.options.resize or best_side(self.manifest))

    def blank(self, side: int = 0) -> PreparedImage:
        """A black image of the engine's best size, prepared, uint8 `[H, W, C]`, for warm-up runs.

        side: 0 or 1, which of the two images it is for. `options.max_pixels` limits users' images and not this one.
        Raises nothing.
        """
        if self.manifest.input.frames is not None:
            return blank_frame(self.manifest, side)
        contract, side = self.manifest.input, best_side(self.manifest)
        height, width = contract.height or side, contract.width or side
        options = replace(self.options, max_pixels=height * width, stretch="none")
        return prepare_image(np.zeros((height, width), np.uint8), "blank", self.manifest, options)

    def inputs(self, image0: ImageLike, image1: ImageLike) -> dict[str, npt.NDArray[Any]]:
        """The engine's inputs for two images, by name, each with one row: `[1, ...]`.

        An engine built with --batch takes several such rows, stacked. image0, image1 are what `prepare` takes, in host
        memory. Errors: image-* of `as_image`, fit-size, size-memory.
        """
        first, second = self.prepare_pair(image0, image1)
        if get_backend(self.manifest.backend).host_memory:
            sizes = self._network_size(first), self._network_size(second)
            require_memory(*sizes, self.manifest.matching.coarse_stride)
        if self.manifest.input.frames is not None:
            return frame_inputs(first, second, self.manifest)
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
        """The matches in row `row` of an engine's outputs, in pixels of the images as given, best first.

        images: the two prepared images that the engine got.
        outputs: arrays by name; `keypoints0` and `keypoints1` are `[B, K, 2]` in pixels of the network's input,
            `scores` is `[B, K]`, `num_matches` is `[B]`. With `options.sample`, `warp` and `certainty` are read
            instead.
        timings: milliseconds of the run by stage. The images' own stages (`decode`, `resize`) are added if they are not
            named there.
        row: which of the B pairs.
        Errors: matches-invalid if the engine's outputs are no matches, such as NaN.
        """
        start = time.perf_counter()
        first, second = images
        if self.options.sample is not None:
            keypoints0, keypoints1, scores = self._warp(images, outputs, row).sample(
                self.options.sample, self.options.seed
            )
        else:
            count = self._count(outputs, row)
            keypoints0 = first.fit.to_original(outputs["keypoints0"][row, :count])
            keypoints1 = second.fit.to_original(outputs["keypoints1"][row, :count])
            scores = outputs["scores"][row, :count]
            if any(first.fit.padding) or any(second.fit.padding):
                # The network knows no sizes, so some of its matches may end in the padding.
                kept = first.ref.holds(keypoints0) & second.ref.holds(keypoints1)
                keypoints0, keypoints1, scores = keypoints0[kept], keypoints1[kept], scores[kept]
        before = {"decode": first.decode_ms + second.decode_ms, "resize": first.resize_ms + second.resize_ms}
        spent = {**before, **timings, "to_pixels": (time.perf_counter() - start) * 1e3}
        notices = tuple(dict.fromkeys(image.notice for image in images if image.notice is not None))
        return Matches(
            keypoints0,
            keypoints1,
            scores,
            first.ref,
            second.ref,
            spent,
            self._provenance(first, second),
            warnings=notices,
        )

    def dense(self, images: tuple[PreparedImage, PreparedImage], outputs: Outputs, row: int = 0) -> DenseMatches:
        """The dense warp in row `row` of an engine's outputs. Error: dense-missing.

        outputs: `warp` is `[B, H, W or 2W, 4]`, `certainty` is `[B, H, W or 2W]`; see `DenseMatches`. `precision`, of
            engines that have it, is `[B, H, W or 2W, 3]`; see `precision_in_pixels`.
        """
        require_dense(self.manifest)
        dense = self._warp(images, outputs, row)
        if PRECISION_OUTPUT not in outputs:
            return dense
        width = self._network_size(images[0])[1]
        first, second = (
            (image.ref.height + image.fit.padding[0], image.ref.width + image.fit.padding[1]) for image in images
        )
        precision = precision_in_pixels(outputs[PRECISION_OUTPUT][row], width, (first, second))
        return replace(dense, precision=precision)

    def _warp(self, images: tuple[PreparedImage, PreparedImage], outputs: Outputs, row: int) -> DenseMatches:
        """`dense` without precisions, which a sample does not need."""
        first, second = images
        warp, certainty = (outputs[name][row] for name in DENSE_OUTPUTS)
        if any(first.fit.padding) or any(second.fit.padding):
            warp, certainty = without_padding(warp, certainty, (first.fit, second.fit))
        return DenseMatches(warp, certainty, first.ref, second.ref)

    def _provenance(self, first: PreparedImage, second: PreparedImage) -> Provenance:
        sizes = self._network_size(first), self._network_size(second)
        known = self._latest  # a stream has one size for all its pairs
        if (known.network_size0, known.network_size1) != sizes:
            known = self._latest = self._provenance_at(*sizes)
        return known

    def _provenance_at(self, size0: tuple[int, int], size1: tuple[int, int]) -> Provenance:
        manifest = self.manifest
        return Provenance(
            model=manifest.model,
            engine_sha256=manifest.engine_sha256,
            precision=manifest.precision,
            backend=manifest.backend,
            matchrt_version=__version__,
            network_size0=size0,
            network_size1=size1,
            apply_exif=self.options.apply_exif,
        )

    def _network_size(self, image: PreparedImage) -> tuple[int, int]:
        """(height, width) in pixels at which the network sees the image; an engine for frames resizes them itself."""
        contract = self.manifest.input
        if contract.frames is None or contract.height is None or contract.width is None:
            return image.fit.canvas_hw
        return contract.height, contract.width

    def _count(self, outputs: Outputs, row: int) -> int:
        """How many of the engine's matches have at least the wanted score; the engine sorts them by score."""
        scores = outputs["scores"][row, : int(outputs["num_matches"][row])]
        least = self.manifest.matching.default_score if self.options.min_score is None else self.options.min_score
        if len(scores) and scores[-1] >= least:  # the usual case, and the last score is the smallest
            return len(scores)
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
