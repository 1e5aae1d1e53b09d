"""The thing that users hold: an engine and the image handling around it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from matchrt._version import __version__
from matchrt.errors import MatchRTError
from matchrt.manifest import EngineManifest
from matchrt.runtime.engine_file import read_engine
from matchrt.runtime.fit import Fit, apply_fit, fit_letterbox, fit_long_side
from matchrt.runtime.image import MAX_PIXELS, ChannelOrder, Image, as_image, read_image
from matchrt.runtime.matches import ImageRef, Matches, Provenance
from matchrt.runtime.session import Device, Session, SessionOptions, open_session

ImageLike = Any  # a path, an array, or anything with __array__
UInt8Array = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class MatcherOptions:
    """How images are taken in and what comes out.

    resize: long side in pixels at which a dynamic engine sees the images; None for the engine's best size.
    min_score: drop matches below it (the engine's own threshold is the floor). channel_order: of colour arrays.
    apply_exif: turn image files as their EXIF orientation says, and give keypoints in the turned image.
    """

    resize: int | None = None
    min_score: float = 0.0
    channel_order: ChannelOrder = "rgb"
    apply_exif: bool = True
    max_pixels: int = MAX_PIXELS
    threads: int | None = None
    device: Device = "cpu"


@dataclass(frozen=True)
class _Prepared:
    """A decoded image in the engine's layout, and the way back."""

    ref: ImageRef
    fit: Fit
    pixels: UInt8Array
    decode_ms: float
    resize_ms: float


class Matcher:
    """Matches image pairs.

    >>> matcher = Matcher()                       # the bundled loftr-lite
    >>> matches = matcher.match("a.jpg", "b.jpg")
    >>> matches.keypoints0                        # [N, 2] pixels of a.jpg: x right, y down, (0, 0) a pixel's centre

    engine: a bundled model's name or an engine file. Errors: those of `read_engine` and `open_session`.
    One Matcher per thread.
    """

    def __init__(self, engine: str | Path = "loftr-lite", options: MatcherOptions | None = None) -> None:
        self.options = options or MatcherOptions()
        self._session: Session = open_session(
            read_engine(engine), SessionOptions(threads=self.options.threads, device=self.options.device)
        )
        self._check_options()

    @property
    def manifest(self) -> EngineManifest:
        """The loaded engine's manifest."""
        return self._session.manifest

    def match(self, image0: ImageLike, image1: ImageLike) -> Matches:
        """Matches two images: paths, or arrays `[H,W]`, `[H,W,1|3|4]` in uint8, uint16 or float 0..1.

        Keypoints are pixels of the images as given. Errors: image-* of `as_image`.
        """
        return self._run(self._prepare(image0, "image0"), self._prepare(image1, "image1"))

    def match_many(
        self, pairs: Iterable[tuple[ImageLike, ImageLike]], *, return_errors: bool = False
    ) -> Iterator[Matches | MatchRTError]:
        """Matches pair after pair, in order; the next pair is decoded while the engine works on this one.

        return_errors: yield the error of a bad pair and go on; otherwise it is raised and ends the iteration.
        """
        source = iter(pairs)
        with ThreadPoolExecutor(max_workers=1) as pool:
            pending = next(source, None)
            future = pool.submit(self._prepare_pair, pending) if pending is not None else None
            while future is not None:
                current = future
                following = next(source, None)
                future = pool.submit(self._prepare_pair, following) if following is not None else None
                try:
                    result: Matches | MatchRTError = self._run(*current.result())
                except MatchRTError as error:
                    if not return_errors:
                        raise
                    result = error
                yield result

    def warm_up(self) -> None:
        """Runs once on blank images, so that the first real pair is not slower than the rest."""
        height, width = self._canvas() or (_best_side(self.manifest), _best_side(self.manifest))
        blank = np.zeros((height, width), np.uint8)
        self.match(blank, blank)

    def close(self) -> None:
        """Frees the engine."""
        self._session.close()

    def __enter__(self) -> Matcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_options(self) -> None:
        resize, profile = self.options.resize, self.manifest.input.profile
        if resize is None:
            return
        if profile is None:
            height, width = self._canvas() or (0, 0)
            raise MatchRTError(
                "resize-static",
                f"This engine has the fixed input size {height}x{width}; it cannot take --resize {resize}.",
                "Leave the option out, or build an engine with --dynamic.",
            )
        low, high = min(profile.minimum), min(profile.maximum)
        if not low <= resize <= high:
            raise MatchRTError(
                "resize-range", f"Size {resize} is outside the engine's {low}..{high}.", "Choose a size in that range."
            )

    def _canvas(self) -> tuple[int, int] | None:
        contract = self.manifest.input
        return None if contract.height is None or contract.width is None else (contract.height, contract.width)

    def _fit(self, image: Image) -> Fit:
        contract, canvas = self.manifest.input, self._canvas()
        if canvas is not None:
            return fit_letterbox((image.height, image.width), canvas)
        assert contract.profile is not None
        long_side = self.options.resize or _best_side(self.manifest)
        return fit_long_side((image.height, image.width), long_side, contract.divisor, min(contract.profile.maximum))

    def _prepare_pair(self, pair: tuple[ImageLike, ImageLike]) -> tuple[_Prepared, _Prepared]:
        return self._prepare(pair[0], "image0"), self._prepare(pair[1], "image1")

    def _prepare(self, value: ImageLike, name: str) -> _Prepared:
        start = time.perf_counter()
        image = value if isinstance(value, Image) else self._decode(value, name)
        decoded = time.perf_counter()
        pixels = image.grey() if self.manifest.input.channels == 1 else image.rgb()
        fit = self._fit(image)
        resized = apply_fit(pixels, fit)
        end = time.perf_counter()
        ref = ImageRef(image.name, image.height, image.width)
        return _Prepared(ref, fit, resized, (decoded - start) * 1e3, (end - decoded) * 1e3)

    def _decode(self, value: ImageLike, name: str) -> Image:
        options = self.options
        if isinstance(value, str | os.PathLike):
            return read_image(value, apply_exif=options.apply_exif, max_pixels=options.max_pixels)
        return as_image(value, channel_order=options.channel_order, name=name, max_pixels=options.max_pixels)

    def _run(self, first: _Prepared, second: _Prepared) -> Matches:
        inputs: dict[str, npt.NDArray[Any]] = {"image0": first.pixels[None], "image1": second.pixels[None]}
        if any(spec.name == "size0" for spec in self.manifest.inputs):
            for key, item in (("size0", first), ("size1", second)):
                inputs[key] = np.array([[item.fit.resized_height, item.fit.resized_width]], np.int32)
        start = time.perf_counter()
        outputs = self._session.run(inputs)
        end = time.perf_counter()
        timings = {
            "decode": first.decode_ms + second.decode_ms,
            "resize": first.resize_ms + second.resize_ms,
            "inference": (end - start) * 1e3,
        }
        return self._matches(outputs, first, second, timings)

    def _matches(
        self, outputs: dict[str, npt.NDArray[Any]], first: _Prepared, second: _Prepared, timings: dict[str, float]
    ) -> Matches:
        start = time.perf_counter()
        count = int(outputs["num_matches"][0])
        keypoints0 = first.fit.to_original(outputs["keypoints0"][0, :count])
        keypoints1 = second.fit.to_original(outputs["keypoints1"][0, :count])
        scores = outputs["scores"][0, :count]
        manifest = self.manifest
        provenance = Provenance(
            model=manifest.model,
            engine_sha256=manifest.engine_sha256,
            precision=manifest.precision,
            flavor=manifest.flavor,
            matchrt_version=__version__,
            network_size0=(first.fit.canvas_height, first.fit.canvas_width),
            network_size1=(second.fit.canvas_height, second.fit.canvas_width),
        )
        timings["to_pixels"] = (time.perf_counter() - start) * 1e3
        matches = Matches(keypoints0, keypoints1, scores, first.ref, second.ref, timings, provenance)
        return matches.filter(self.options.min_score)


def _best_side(manifest: EngineManifest) -> int:
    profile = manifest.input.profile
    return max(profile.optimum) if profile is not None else max(manifest.input.height or 0, manifest.input.width or 0)
