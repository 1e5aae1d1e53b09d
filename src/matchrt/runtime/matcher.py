"""The thing that users hold: an engine and the image handling around it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, overload

from matchrt.errors import MatchRTError
from matchrt.manifest import EngineManifest
from matchrt.runtime.adapter import ImageLike, PairAdapter, require_dense
from matchrt.runtime.dense import DenseMatches
from matchrt.runtime.engine_checks import require_single_pair
from matchrt.runtime.fit import Fit
from matchrt.runtime.gpu.arrays import on_gpu
from matchrt.runtime.image import Image
from matchrt.runtime.matches import ImageRef, Matches
from matchrt.runtime.opening import open_named
from matchrt.runtime.options import MatcherOptions
from matchrt.runtime.preprocess import PreparedImage
from matchrt.runtime.session import Session, SessionOptions
from matchrt.runtime.streaming import PairRun, prepare_pair, stream_matches
from matchrt.store import EngineStore

if TYPE_CHECKING:
    from matchrt.runtime.gpu.matching import GpuMatches


class Matcher:
    """Matches image pairs: a session, which runs the engine, and a `PairAdapter` for what is before and after it.

    >>> matcher = Matcher()                       # the bundled loftr-lite
    >>> matches = matcher.match("a.jpg", "b.jpg")
    >>> matches.keypoints0                        # [N, 2] pixels of a.jpg: x right, y down, (0, 0) a pixel's centre

    engine: an engine file, a bundled model's name, the name of a model that `store` has one engine of, or a session
    that is open already, which then belongs to the matcher: it is closed with it, and where it is refused.
    options: of a session that is open already, those that say where and how to run come too late.
    store: None for the default one.
    Errors: those of `open_named` and `PairAdapter`; engine-batch. One Matcher per thread.
    """

    def __init__(
        self,
        engine: str | Path | Session = "loftr-lite",
        options: MatcherOptions | None = None,
        store: EngineStore | None = None,
    ) -> None:
        options = options or MatcherOptions()
        self._session: Session = _open(engine, options, store) if isinstance(engine, str | Path) else engine
        self._spare: list[Session] = []
        try:
            require_single_pair(self._session.manifest)
            self._adapter = PairAdapter(self._session.manifest, options)
        except MatchRTError:
            self._session.close()
            raise

    def fork(self) -> Matcher:
        """A matcher for another thread, on the same loaded engine. Each is closed by itself."""
        return type(self)(self._session.fork(), self.options)

    @property
    def manifest(self) -> EngineManifest:
        """The loaded engine's manifest."""
        return self._session.manifest

    @property
    def options(self) -> MatcherOptions:
        """What the matcher was told."""
        return self._adapter.options

    @property
    def session(self) -> Session:
        """What runs the engine: how it launches runs, and what memory it holds."""
        return self._session

    @property
    def adapter(self) -> PairAdapter:
        """What prepares the images and reads the engine's outputs."""
        return self._adapter

    def match(self, image0: ImageLike, image1: ImageLike, *, stream: Any = None) -> Matches:
        """Matches two images: paths, or arrays `[H,W]`, `[H,W,1|3|4]` in uint8, uint16 or float 0..1, or prepared ones.

        Keypoints are pixels of the images as given. Arrays on the GPU (DLPack or `__cuda_array_interface__`) are read
        where they are: uint8, contiguous, of the engine's size. stream: CUDA stream that they are made in, which the
        engine then runs in; without it, the host waits until they are made. Errors: image-* of `as_image`.
        """
        if on_gpu(image0) or on_gpu(image1):
            return self._match_gpu_images(image0, image1, stream)
        return self._begin(image0, image1).matches()

    def match_dense(self, image0: ImageLike, image1: ImageLike) -> DenseMatches:
        """Where every pixel lies in the other image, for engines built with --dense. Errors: dense-missing, image-*."""
        require_dense(self.manifest)
        run = self._begin(image0, image1)
        return self._adapter.dense(run.images, run.outputs())

    def match_on_gpu(self, image0: Any, image1: Any, *, stream: Any = None) -> GpuMatches:
        """Matches two images on the GPU, as `match` takes them, and leaves the matches there.

        With a stream it returns at once, and the matches are good for work in that stream.
        """
        from matchrt.runtime.gpu.matching import GpuMatches, run_on_gpu

        return GpuMatches.of(run_on_gpu(self._session, image0, image1, stream).outputs)

    @overload
    def match_many(
        self, pairs: Iterable[tuple[ImageLike, ImageLike]], *, return_errors: Literal[False] = False
    ) -> Iterator[Matches]: ...

    @overload
    def match_many(
        self, pairs: Iterable[tuple[ImageLike, ImageLike]], *, return_errors: Literal[True]
    ) -> Iterator[Matches | MatchRTError]: ...

    @overload
    def match_many(
        self, pairs: Iterable[tuple[ImageLike, ImageLike]], *, return_errors: bool
    ) -> Iterator[Matches | MatchRTError]: ...

    def match_many(
        self, pairs: Iterable[tuple[ImageLike, ImageLike]], *, return_errors: bool = False
    ) -> Iterator[Matches | MatchRTError]:
        """Matches pair after pair, in order; the next pair is decoded while the engine works on this one.

        return_errors: yield the error of a bad pair and go on; otherwise it is raised and ends the iteration.
        Errors: pair-invalid, and those of `match`.
        """
        with self._streaming_sessions() as sessions, closing(stream_matches(self._adapter, sessions, pairs)) as found:
            for outcome in found:
                if isinstance(outcome, MatchRTError) and not return_errors:
                    raise outcome
                yield outcome

    def warm_up(self) -> None:
        """Runs once on blank images, so that the first real pair is not slower than the rest."""
        blank = self._adapter.blank()
        self.match(blank, blank)

    def prepare_image(self, value: ImageLike, name: str = "array") -> PreparedImage:
        """Decodes and resizes an image once; `match` takes what this gives as often as the image stands in a pair.

        Errors: image-* of `as_image`.
        """
        return self._adapter.prepare(value, name)

    def read(self, value: ImageLike, name: str = "array") -> Image:
        """Decodes an image as `match` would, under this matcher's options; what it gives can be matched and drawn on.

        Errors: image-* of `as_image`.
        """
        return self._adapter.read(value, name)

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

    def _begin(self, image0: ImageLike, image1: ImageLike) -> PairRun:
        return PairRun.begin(self._adapter, self._session, prepare_pair(self._adapter, (image0, image1)))

    @contextmanager
    def _streaming_sessions(self) -> Iterator[list[Session]]:
        """The sessions that `match_many` runs pairs on in turn.

        Of an asynchronous session two forks, which are two sets of buffers: one pair is copied up while the engine
        works on the other. The matcher's own session stays free, for `match` between the pairs. The forks are kept for
        the next call: making them ready takes as long as a hundred pairs.
        """
        if not self._session.asynchronous:
            yield [self._session]
            return
        sessions = [self._spare.pop() if self._spare else self._session.fork() for _ in range(2)]
        try:
            yield sessions
        finally:
            self._spare.extend(sessions)

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
        return self._adapter.matches((first, second), outputs, timings)


def _open(engine: str | Path, chosen: MatcherOptions, store: EngineStore | None) -> Session:
    options = SessionOptions(threads=chosen.threads, device=chosen.device, cuda_graph=chosen.cuda_graph)
    return open_named(engine, options, store, chosen.backend)
