"""The thing that users hold: an engine and the image handling around it."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from matchrt._util.memory import require_memory
from matchrt._version import __version__
from matchrt.errors import MatchRTError, missing_package
from matchrt.manifest import EngineManifest
from matchrt.runtime.dense import DenseMatches
from matchrt.runtime.engine_file import JAX, read_engine, require_backend
from matchrt.runtime.fit import Fit
from matchrt.runtime.gpu.arrays import on_gpu
from matchrt.runtime.image import MAX_PIXELS, ChannelOrder, Image
from matchrt.runtime.matches import ImageRef, Matches, Provenance
from matchrt.runtime.preprocess import PreparedImage, best_side, prepare_image, read_as
from matchrt.runtime.session import Device, Pending, Session, SessionOptions, open_session
from matchrt.store import EngineStore

if TYPE_CHECKING:
    from matchrt.runtime.gpu.matching import GpuMatches

ImageLike = Any  # a path, an array, or anything with __array__


@dataclass(frozen=True)
class MatcherOptions:
    """How images are taken in and what comes out.

    resize: long side in pixels at which a dynamic engine sees the images; None for the engine's best size.
    min_score: drop matches below it; None for the engine's default, from which matches are mostly right. The engine's
    threshold is the floor: lower scores find more, right and wrong, and help across modalities.
    channel_order: of colour arrays.
    apply_exif: turn image files as their EXIF orientation says, and give keypoints in the turned image.
    sample: of engines with a dense warp, draw that many matches as RoMa's own sampler does, from the generator `seed`;
    None for the matches that the engine itself selects, the same ones every time and on every machine.
    backend: of the engine, where a name stands for engines of several; an engine of another backend is refused. `jax`
    runs LoFTR's Flax model: the engine is then a bundled model's name, or a file that `matchrt convert-flax` wrote.
    cuda_graph: launch a run as one CUDA graph where engine and GPU allow it.
    """

    resize: int | None = None
    min_score: float | None = None
    channel_order: ChannelOrder = "rgb"
    apply_exif: bool = True
    max_pixels: int = MAX_PIXELS
    threads: int | None = None
    device: Device | None = None
    sample: int | None = None
    seed: int = 0
    backend: str | None = None
    cuda_graph: bool = True

    def __post_init__(self) -> None:
        require_backend(self.backend)
        limits = (
            ("min_score", self.min_score is None or 0.0 <= self.min_score <= 1.0, "a number in 0..1, or None"),
            ("channel_order", self.channel_order in ("rgb", "bgr"), "'rgb' or 'bgr'"),
            ("max_pixels", self.max_pixels >= 1, "1 or more"),
            ("threads", self.threads is None or self.threads >= 1, "1 or more, or None"),
            ("sample", self.sample is None or self.sample >= 1, "1 or more, or None"),
            ("seed", self.seed >= 0, "0 or more"),
            ("device", self.device in (None, "cpu", "cuda"), "'cpu', 'cuda', or None for where the engine runs"),
        )
        for name, good, wanted in limits:
            if not good:
                raise MatchRTError("option-range", f"{name} is {getattr(self, name)!r}.", f"It must be {wanted}.")


_Pair = tuple[PreparedImage, PreparedImage]


@dataclass(frozen=True)
class _Running:
    """A pair that an engine works on; start: on the host's clock."""

    first: PreparedImage
    second: PreparedImage
    pending: Pending
    start: float


class Matcher:
    """Matches image pairs.

    >>> matcher = Matcher()                       # the bundled loftr-lite
    >>> matches = matcher.match("a.jpg", "b.jpg")
    >>> matches.keypoints0                        # [N, 2] pixels of a.jpg: x right, y down, (0, 0) a pixel's centre

    engine: an engine file, a bundled model's name, or the name of a model that `store` has one engine of.
    store: None for the default one. Errors: those of `read_engine` and `open_session`. One Matcher per thread.
    """

    def __init__(
        self,
        engine: str | Path = "loftr-lite",
        options: MatcherOptions | None = None,
        store: EngineStore | None = None,
    ) -> None:
        self.options = options or MatcherOptions()
        self._spare: list[Session] = []
        self._session: Session = _open(engine, self.options, store)
        try:
            self._check_options()
        except MatchRTError:
            self._session.close()
            raise

    @classmethod
    def on(cls, session: Session, options: MatcherOptions | None = None, *, batch: bool = False) -> Matcher:
        """A matcher on a session that is open already; closing it closes the session.

        batch: take an engine built with --batch too, for `inputs` and `finish` around runs of the caller's own.
        """
        matcher = cls.__new__(cls)
        matcher.options, matcher._session, matcher._spare = options or MatcherOptions(), session, []
        matcher._check_options(batch)
        return matcher

    def fork(self) -> Matcher:
        """A matcher for another thread, on the same loaded engine. Each is closed by itself."""
        return type(self).on(self._session.fork(), self.options)

    @property
    def manifest(self) -> EngineManifest:
        """The loaded engine's manifest."""
        return self._session.manifest

    @property
    def session(self) -> Session:
        """What runs the engine: how it launches runs, and what memory it holds."""
        return self._session

    def match(self, image0: ImageLike, image1: ImageLike, *, stream: Any = None) -> Matches:
        """Matches two images: paths, or arrays `[H,W]`, `[H,W,1|3|4]` in uint8, uint16 or float 0..1, or prepared ones.

        Keypoints are pixels of the images as given. Arrays on the GPU (DLPack or `__cuda_array_interface__`) are read
        where they are: uint8, contiguous, of the engine's size. stream: CUDA stream that they are made in, which the
        engine then runs in; without it, the host waits until they are made. Errors: image-* of `as_image`.
        """
        if on_gpu(image0) or on_gpu(image1):
            return self._match_gpu_images(image0, image1, stream)
        prepared = self._prepare(image0, "image0"), self._prepare(image1, "image1")
        return self._finish(self._start(*prepared, self._session))

    def match_dense(self, image0: ImageLike, image1: ImageLike) -> DenseMatches:
        """Where every pixel lies in the other image, for engines built with --dense. Errors: dense-missing, image-*."""
        self._require_dense()
        running = self._start(self._prepare(image0, "image0"), self._prepare(image1, "image1"), self._session)
        return _dense(running.pending.result(), running.first, running.second)

    def _require_dense(self) -> None:
        if not self.manifest.dense:
            raise MatchRTError(
                "dense-missing",
                f"This engine of {self.manifest.model} returns no dense warp.",
                "Build a RoMa model with --dense, or take the matches that the engine selects.",
            )

    def match_on_gpu(self, image0: Any, image1: Any, *, stream: Any = None) -> GpuMatches:
        """Matches two images on the GPU, as `match` takes them, and leaves the matches there.

        With a stream it returns at once, and the matches are good for work in that stream.
        """
        from matchrt.runtime.gpu.matching import GpuMatches, run_on_gpu

        return GpuMatches.of(run_on_gpu(self._session, image0, image1, stream).outputs)

    def _match_gpu_images(self, image0: Any, image1: Any, stream: Any) -> Matches:
        from matchrt.runtime.gpu.matching import run_on_gpu

        start = time.perf_counter()
        run = run_on_gpu(self._session, image0, image1, stream)
        outputs = run.outputs.to_host()
        timings = {"inference": (time.perf_counter() - start) * 1e3}
        first, second = (
            PreparedImage(ImageRef(name, *size), Fit(1.0, 1.0, *size, *size), None, None, 0.0, 0.0)
            for name, size in zip(("image0", "image1"), run.sizes, strict=True)
        )
        return self._matches(outputs, first, second, timings, self._provenance(first, second))

    def match_many(
        self, pairs: Iterable[tuple[ImageLike, ImageLike]], *, return_errors: bool = False
    ) -> Iterator[Matches | MatchRTError]:
        """Matches pair after pair, in order; the next pair is decoded while the engine works on this one.

        return_errors: yield the error of a bad pair and go on; otherwise it is raised and ends the iteration.
        """
        with ExitStack() as stack:
            pool = stack.enter_context(ThreadPoolExecutor(max_workers=1))
            sessions = [self._session]
            if self._session.asynchronous:
                # Two sets of buffers: one pair is copied up while the engine works on the other. The matcher's own
                # session stays free, for `match` between the pairs. They are kept for the next call: making them
                # ready takes as long as a hundred pairs.
                sessions = [self._spare.pop() if self._spare else self._session.fork() for _ in range(2)]
                stack.callback(self._spare.extend, sessions)
            turns = itertools.cycle(sessions)
            running: deque[_Running | MatchRTError] = deque()
            # Whoever stops early leaves runs under way: taken out, so that the matcher can be used again.
            stack.callback(_abandon, running)
            for prepared in _ahead(pairs, lambda pair: pool.submit(self._prepare_pair, pair)):
                if isinstance(prepared, Exception):
                    # The caller's own iterator failed: what came before it is delivered first.
                    yield from (self._outcome(run, return_errors) for run in _drained(running))
                    raise prepared
                running.append(self._begin(prepared, next(turns)))
                if len(running) == len(sessions):
                    yield self._outcome(running.popleft(), return_errors)
            yield from (self._outcome(run, return_errors) for run in _drained(running))

    def _begin(self, prepared: Future[_Pair], session: Session) -> _Running | MatchRTError:
        """Starts a pair on a session; what is wrong with the pair comes out in its turn."""
        try:
            return self._start(*prepared.result(), session)
        except MatchRTError as error:
            return error

    def _outcome(self, running: _Running | MatchRTError, return_errors: bool) -> Matches | MatchRTError:
        try:
            if isinstance(running, MatchRTError):
                raise running
            return self._finish(running)
        except MatchRTError as error:
            if not return_errors:
                raise
            return error

    def warm_up(self) -> None:
        """Runs once on blank images, so that the first real pair is not slower than the rest."""
        blank = self.blank()
        self.match(blank, blank)

    def blank(self) -> PreparedImage:
        """A blank image of the engine's best size, to warm up with."""
        height, width = self._canvas() or (best_side(self.manifest), best_side(self.manifest))
        return self.prepare_image(np.zeros((height, width), np.uint8))

    def close(self) -> None:
        """Frees the engine."""
        while self._spare:
            self._spare.pop().close()
        self._session.close()

    def __enter__(self) -> Matcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_options(self, batch: bool = False) -> None:
        if self.options.sample is not None:
            self._require_dense()
        resize, profile = self.options.resize, self.manifest.input.profile
        if self.manifest.input.batch != 1 and not batch:
            raise MatchRTError(
                "engine-batch",
                f"This engine matches {self.manifest.input.batch} pairs a run; Matcher matches pair after pair.",
                "Build an engine without --batch, or run this one through open_session.",
            )
        if resize is None:
            return
        if profile is None:
            height, width = self._canvas() or (0, 0)
            raise MatchRTError(
                "resize-static",
                f"This engine has the fixed input size {height}x{width}; it cannot take --resize {resize}.",
                "Leave the option out, or build an engine with --dynamic.",
            )
        low, high = min(profile.minimum), max(profile.maximum)
        if not low <= resize <= high:
            raise MatchRTError(
                "resize-range", f"Size {resize} is outside the engine's {low}..{high}.", "Choose a size in that range."
            )

    def _canvas(self) -> tuple[int, int] | None:
        contract = self.manifest.input
        return None if contract.height is None or contract.width is None else (contract.height, contract.width)

    def _prepare_pair(self, pair: tuple[ImageLike, ImageLike]) -> tuple[PreparedImage, PreparedImage]:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            what = f"{type(pair).__name__} of {len(pair)}" if isinstance(pair, tuple | list) else type(pair).__name__
            raise MatchRTError("pair-invalid", f"A pair is two images, not a {what}.", "Give (image0, image1) tuples.")
        return self._prepare(pair[0], "image0"), self._prepare(pair[1], "image1")

    def _prepare(self, value: ImageLike, name: str) -> PreparedImage:
        return value if isinstance(value, PreparedImage) else self.prepare_image(value, name)

    def prepare_image(self, value: ImageLike, name: str = "array") -> PreparedImage:
        """Decodes and resizes an image once; `match` takes what this gives as often as the image stands in a pair.

        Errors: image-* of `as_image`.
        """
        return prepare_image(value, name, self.manifest, self.options)

    def read(self, value: ImageLike, name: str = "array") -> Image:
        """Decodes an image as `match` would, under this matcher's options; what it gives can be matched and drawn on.

        Errors: image-* of `as_image`.
        """
        return read_as(value, name, self.options)

    def _start(self, first: PreparedImage, second: PreparedImage, session: Session) -> _Running:
        inputs = self._inputs(first, second)
        start = time.perf_counter()
        return _Running(first, second, session.start(inputs), start)

    def inputs(self, image0: ImageLike, image1: ImageLike) -> dict[str, npt.NDArray[Any]]:
        """What `match` gives the engine for two images, by input name: one row each, `[1, ...]`; engines built with
        --batch take several such rows stacked. Errors: image-* of `as_image`, size-memory.
        """
        return self._inputs(self._prepare(image0, "image0"), self._prepare(image1, "image1"))

    def _inputs(self, first: PreparedImage, second: PreparedImage) -> dict[str, npt.NDArray[Any]]:
        if self.manifest.backend == "onnxruntime":
            sizes = [(item.fit.canvas_height, item.fit.canvas_width) for item in (first, second)]
            require_memory(sizes[0], sizes[1], self.manifest.matching.coarse_stride)
        assert first.pixels is not None and second.pixels is not None
        inputs: dict[str, npt.NDArray[Any]] = {"image0": first.pixels[None], "image1": second.pixels[None]}
        if any(spec.name == "size0" for spec in self.manifest.inputs):
            for key, item in (("size0", first), ("size1", second)):
                inputs[key] = np.array([[item.fit.resized_height, item.fit.resized_width]], np.int32)
        if first.coarse is not None and second.coarse is not None:
            inputs |= {"coarse0": first.coarse[None], "coarse1": second.coarse[None]}
        return inputs

    def _finish(self, running: _Running) -> Matches:
        first, second = running.first, running.second
        provenance = self._provenance(first, second)  # while the engine works
        outputs = running.pending.result()
        end = time.perf_counter()
        timings = {"inference": (end - running.start) * 1e3, **running.pending.timings()}
        return self._matches(outputs, first, second, timings, provenance)

    def finish(
        self,
        images: tuple[PreparedImage, PreparedImage],
        outputs: Mapping[str, npt.NDArray[Any]],
        timings: Mapping[str, float],
        row: int = 0,
    ) -> Matches:
        """What `match` does after the engine ran: the matches in row `row` of its outputs, in pixels of the images."""
        return self._matches(outputs, *images, dict(timings), self._provenance(*images), row)

    def _matches(
        self,
        outputs: Mapping[str, npt.NDArray[Any]],
        first: PreparedImage,
        second: PreparedImage,
        timings: dict[str, float],
        provenance: Provenance,
        row: int = 0,
    ) -> Matches:
        start = time.perf_counter()
        if self.options.sample is not None:
            dense = _dense(outputs, first, second, row)
            keypoints0, keypoints1, scores = dense.sample(self.options.sample, self.options.seed)
        else:
            count = self._count(outputs, row)
            keypoints0 = first.fit.to_original(outputs["keypoints0"][row, :count])
            keypoints1 = second.fit.to_original(outputs["keypoints1"][row, :count])
            scores = outputs["scores"][row, :count]
        before = {"decode": first.decode_ms + second.decode_ms, "resize": first.resize_ms + second.resize_ms}
        timings = {**before, **timings, "to_pixels": (time.perf_counter() - start) * 1e3}
        return Matches(keypoints0, keypoints1, scores, first.ref, second.ref, timings, provenance)

    def _provenance(self, first: PreparedImage, second: PreparedImage) -> Provenance:
        manifest = self.manifest
        return Provenance(
            model=manifest.model,
            engine_sha256=manifest.engine_sha256,
            precision=manifest.precision,
            backend=manifest.backend,
            matchrt_version=__version__,
            network_size0=(first.fit.canvas_height, first.fit.canvas_width),
            network_size1=(second.fit.canvas_height, second.fit.canvas_width),
        )

    def _count(self, outputs: Mapping[str, npt.NDArray[Any]], row: int) -> int:
        """How many of the engine's matches are wanted: they come sorted by score."""
        scores = outputs["scores"][row, : int(outputs["num_matches"][row])]
        least = self.manifest.matching.default_score if self.options.min_score is None else self.options.min_score
        # NaN compares false; it is kept, so that Matches refuses it.
        return len(scores) - int(np.count_nonzero(scores < least))


def _dense(
    outputs: Mapping[str, npt.NDArray[Any]], first: PreparedImage, second: PreparedImage, row: int = 0
) -> DenseMatches:
    return DenseMatches(outputs["warp"][row], outputs["certainty"][row], first.ref, second.ref)


def _open(engine: str | Path, chosen: MatcherOptions, store: EngineStore | None) -> Session:
    options = SessionOptions(threads=chosen.threads, device=chosen.device, cuda_graph=chosen.cuda_graph)
    if chosen.backend != JAX:
        return open_session(read_engine(engine, store, chosen.backend), options)
    try:
        # The one way up from the runtime, and only on this request (pyproject's import contract names it).
        from matchrt.flax.session import open_jax
    except ModuleNotFoundError as error:
        raise missing_package(str(error.name), "flax", "Backend jax") from error
    return open_jax(engine, options)


def _ahead(pairs: Iterable[Any], submit: Callable[[Any], Future[_Pair]]) -> Iterator[Future[_Pair] | Exception]:
    """Pairs being prepared, in order, two ahead of the one that is taken; last the error of the caller's iterator."""
    waiting: deque[Future[_Pair]] = deque()
    source = iter(pairs)
    while True:
        try:
            waiting.append(submit(next(source)))
        except StopIteration:
            yield from waiting
            return
        except Exception as error:
            yield from waiting
            yield error
            return
        if len(waiting) == 2:
            yield waiting.popleft()


def _drained(running: deque[_Running | MatchRTError]) -> Iterator[_Running | MatchRTError]:
    while running:
        yield running.popleft()


def _abandon(running: deque[_Running | MatchRTError]) -> None:
    for run in _drained(running):
        if isinstance(run, _Running):
            with suppress(MatchRTError):
                run.pending.result()
