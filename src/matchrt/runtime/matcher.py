"""`Matcher`, the object that users work with: an engine and the image handling around it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, overload

from matchrt.errors import MatchRTError
from matchrt.manifest import EngineManifest
from matchrt.runtime.adapter import ImageLike, PairAdapter, require_dense
from matchrt.runtime.bundled import DEFAULT_MODEL
from matchrt.runtime.dense import DenseMatches
from matchrt.runtime.engine_checks import require_single_pair
from matchrt.runtime.engine_file import EngineFile, read_engine
from matchrt.runtime.gpu.arrays import on_gpu, stream_handle
from matchrt.runtime.image import Image
from matchrt.runtime.matches import Matches
from matchrt.runtime.opening import open_named, open_session
from matchrt.runtime.options import MatcherOptions
from matchrt.runtime.preprocess import PreparedImage
from matchrt.runtime.session import Session, SessionOptions
from matchrt.runtime.split.features import Features
from matchrt.runtime.split.parts import require_engine_files
from matchrt.runtime.split.sessions import PartSessions, SharedParts, same_engine
from matchrt.runtime.streaming import PairRun, plan_pair, run_on, stream_matches
from matchrt.runtime.trials import OFF, Trials, asked, first_options, require_images
from matchrt.runtime.workspace import Workspace, Workspaces
from matchrt.store import EngineStore

if TYPE_CHECKING:
    from matchrt.runtime.gpu.matching import GpuMatches
    from matchrt.runtime.gpu.route import FrameRoute, HostPair


class Matcher:
    """Matches image pairs: a session runs the engine, and a `PairAdapter` does the work before and after it.

    >>> matcher = Matcher()                       # the bundled eloftr-lite
    >>> matches = matcher.match("a.jpg", "b.jpg")
    >>> matches.keypoints0                        # [N, 2] pixels of a.jpg: x right, y down, (0, 0) a pixel's centre

    engine: an engine file, a bundled model's name, the name of a model that `store` has one engine of, an engine that
        was read already, or an open session. The session then belongs to the matcher, which closes it when it is closed
        itself, or if it refuses the session.
    options: how to read, run and match. For an open session, `threads`, `device`, `backend` and `cuda_graph` have no
        effect.
    store: where engines are looked for; None for the default store.
    Errors: those of `open_named` and `PairAdapter`; engine-batch if the engine takes several pairs in a run. Use one
    Matcher per thread (`fork`).
    """

    def __init__(
        self,
        engine: str | Path | EngineFile | Session = DEFAULT_MODEL,
        options: MatcherOptions | None = None,
        store: EngineStore | None = None,
    ) -> None:
        self._options = options = options or MatcherOptions()
        self._session: Session = _open(engine, options, store)
        self._shared_parts: SharedParts | None = None
        self._parts: PartSessions | None = None
        if isinstance(engine, str | Path | EngineFile):
            self._shared_parts = SharedParts(lambda: self._read_again(engine, store), _session_options(options))
        self._owns_parts = True
        self._spare: list[Session] = []
        self._workspaces = Workspaces()
        self._known_route: FrameRoute | None = None
        try:
            require_single_pair(self._session.manifest)
            self._adapter = PairAdapter(self._session.manifest, first_options(options))
        except MatchRTError:
            self._session.close()
            raise
        self._trials = Trials(self._session.manifest, options) if options.tries_more else None

    def fork(self) -> Matcher:
        """A matcher for another thread, on the same loaded engine. Each is closed by itself.

        Errors: those of `Session.fork`, such as session-closed.
        """
        other = type(self)(self._session.fork(), self.options)
        other._shared_parts, other._owns_parts = self._shared_parts, False
        return other

    @property
    def manifest(self) -> EngineManifest:
        """The loaded engine's manifest. Raises nothing."""
        return self._session.manifest

    @property
    def options(self) -> MatcherOptions:
        """The matcher's options. Raises nothing."""
        return self._options

    @property
    def session(self) -> Session:
        """The session, which runs the engine, and says how it does so and what memory it holds. Raises nothing."""
        return self._session

    @property
    def adapter(self) -> PairAdapter:
        """The adapter, which prepares the images and reads the engine's outputs. Raises nothing."""
        return self._adapter

    def match(self, image0: ImageLike, image1: ImageLike, *, stream: Any = None) -> Matches:
        """Matches two images and returns N matches in pixels of the images as given, best first.

        image0, image1: paths; arrays `[H,W]`, `[H,W,1|3|4]` in uint8, uint16 or float 0..1; `Nv12`; `Image`;
            `PreparedImage`. Or, both of them, such arrays or `Nv12` on the GPU (DLPack or `__cuda_array_interface__`)
            of any size and with any strides, also `[1,H,W,C]`; they are read in place, and floats beyond 0..1 are
            clipped.
        stream: of GPU arrays, the CUDA stream that they are made in; the engine then runs in it. Without it, the host
            waits until they are made.
        With `MatcherOptions.rotate`, `zoom` or `effort`, a pair that gives little is matched again, as they say;
        `provenance` says whether image 1 was turned, and `timings` what all this took.
        Errors: image-* of `as_image`, image-prepared, fit-size, frames-size, size-memory, out-of-memory, session-*; of
        GPU arrays also device-backend, kernels-refused, option-range, stream-invalid, package-missing, cuda-failed;
        option-range if an image that was prepared or is on the GPU may have to be turned.
        """
        require_images(self._options, image0, image1)
        if on_gpu(image0) or on_gpu(image1):
            return self._match_gpu_images(image0, image1, stream)
        with self._workspaces.borrowed() as workspace:
            first = self._begin(image0, image1, workspace).matches()
            if self._trials is None:
                return first
            return self._trials.improved(first, image0, image1, run_on(self._session, workspace))

    def match_dense(self, image0: ImageLike, image1: ImageLike) -> DenseMatches:
        """The dense warp `[H, W or 2W, 4]` of two images with its certainty, from engines built with --dense.

        Engines of RoMa v2 give its precision too. image0, image1 are what `match` takes in host memory. They are
        matched as they are given: a warp between turned images would be none between these.
        Errors: dense-missing, image-* of `as_image`, fit-size, size-memory, out-of-memory, session-*; option-range if
        the options ask for turned or larger images.
        """
        require_dense(self.manifest)
        self._require_one_run("match_dense")
        with self._workspaces.borrowed() as workspace:
            run = self._begin(image0, image1, workspace)
            return self._adapter.dense(run.images, run.outputs())

    def match_on_gpu(self, image0: Any, image1: Any, *, stream: Any = None) -> GpuMatches:
        """Matches two images on the GPU, as `match` takes them, and leaves the matches there: `[1, K, 2]` keypoints.

        stream: the CUDA stream of the images. With one, the call returns at once, and the matches are good for work in
            that stream. Without one, it returns when they are there. The matches are valid until the matcher's next
            run.
        Errors: image-*, fit-size, frames-size, device-backend, kernels-refused, option-range, stream-invalid,
        package-missing, cuda-failed, out-of-memory, session-*.
        """
        from matchrt.runtime.gpu.matching import GpuMatches, require_gpu_session

        self._require_one_run("match_on_gpu")
        session = require_gpu_session(self._session)
        where = None if stream is None else stream_handle(stream)
        return GpuMatches.of(session.run_on_gpu(self._route().gpu_pair(image0, image1, where), where))

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
        """Matches pair after pair, in order. Threads decode and resize the next pairs while the engine works.

        pairs: (image0, image1), each a path, an array `[H,W]` or `[H,W,1|3|4]`, or a prepared image, in host memory.
            If the options ask for further runs (`rotate`, `zoom`, `effort`), arrays must stay as they are until their
            pair's result has come.
        return_errors: True yields the error of a bad pair and goes on. False raises it, which ends the iteration.
        Errors: pair-invalid, and those of `match`. What the iterable itself raises is raised after the results of the
        pairs before it.
        """
        with (
            self._streaming_sessions() as sessions,
            closing(stream_matches(self._adapter, sessions, pairs, choose=self._choose, trials=self._trials)) as found,
        ):
            for outcome in found:
                if isinstance(outcome, MatchRTError) and not return_errors:
                    raise outcome
                yield outcome

    def features(self, image: ImageLike, name: str = "array", *, on_host: bool = False) -> Features:
        """What the engine knows of one image alone, for `match_features`: computed once, it serves in any number of
        pairs, on either side.

        image: what `match` takes in host memory.
        name: what messages and `Matches` call an array.
        on_host: bring the maps of an engine on a GPU to host memory; they stay on the GPU without it, and its memory is
            free when nothing refers to them any more.
        Errors: image-* of `as_image`, image-prepared, fit-size; split-missing if the engine was built without its
        parts; split-graph if the engine has no such part, or the matcher has only its session; option-range if images
        are stretched in pairs, or the options ask for further runs; size-memory, out-of-memory, session-*.
        """
        self._require_one_run("features")
        parts = self._part_sessions()
        return parts.compute(self._adapter, self._adapter.prepare(image, name), on_host)

    def match_features(self, features0: Features, features1: Features) -> Matches:
        """The matches of two images whose features were computed before, as `match` gives them.

        On ONNX Runtime and OpenVINO they have the same bits as those of `match`. Errors: features-engine,
        features-size, split-missing, split-graph; size-memory, out-of-memory, session-*.
        """
        return self._part_sessions().start(self._adapter, features0, features1).matches()

    @property
    def parts(self) -> PartSessions:
        """The sessions of the engine's two parts, which `features` and `match_features` run.

        Errors: split-missing, split-graph, manifest-invalid, engine-*; session-closed.
        """
        return self._part_sessions()

    def warm_up(self) -> None:
        """Runs once on blank images, so that the first real pair is not slower than the rest.

        Errors: size-memory, out-of-memory, session-*.
        """
        with self._workspaces.borrowed() as workspace:
            self._begin(self._adapter.blank(0), self._adapter.blank(1), workspace).matches()

    def prepare_image(self, value: ImageLike, name: str = "array") -> PreparedImage:
        """Decodes and resizes an image once, to uint8 `[H, W, C]`; `match` takes the result in any number of pairs.

        name: what messages and `Matches` call an array. Errors: image-* of `as_image`, fit-size; option-range if the
        options want images of a pair together, or may turn them.
        """
        self._require_one_run("prepare_image")
        return self._adapter.prepare(value, name)

    def read(self, value: ImageLike, name: str = "array") -> Image:
        """Decodes an image as `match` would, under this matcher's options, to uint8 `[H, W, 3]` or `[H, W]`.

        The result can be matched and drawn on. name: what messages and `Matches` call an array. Errors: image-* of
        `as_image`.
        """
        return self._adapter.read(value, name)

    def close(self) -> None:
        """Closes the session and frees the engine; later runs raise session-closed. Raises nothing."""
        while self._spare:
            self._spare.pop().close()
        if self._parts is not None:
            self._parts.close()
        if self._shared_parts is not None and self._owns_parts:
            self._shared_parts.close()
        self._session.close()

    def __enter__(self) -> Matcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _require_one_run(self, what: str) -> None:
        if self._options.tries_more:
            raise MatchRTError(
                "option-range",
                f"{what} makes one run, and the options ask for further ones: {asked(self._options)}.",
                f"Use match or match_many, or a matcher with {OFF}.",
            )

    def _part_sessions(self) -> PartSessions:
        if self._parts is None:
            if self._shared_parts is None:
                raise MatchRTError(
                    "split-graph",
                    "This matcher was given an open session, which does not say how its engine falls into parts.",
                    "Make it from the engine's file or name, or match whole pairs.",
                )
            self._parts = self._shared_parts.fork()
        return self._parts

    def _read_again(self, engine: str | Path | EngineFile, store: EngineStore | None) -> EngineFile:
        """The whole engine, which is read once more so that its bytes are not kept for this."""
        backend = self.manifest.backend
        require_engine_files(backend)
        file = engine if isinstance(engine, EngineFile) else read_engine(engine, store, backend)
        return same_engine(file, self.manifest)

    def _begin(self, image0: ImageLike, image1: ImageLike, workspace: Workspace) -> PairRun:
        pair = plan_pair(self._adapter, (image0, image1), self._choose)
        return PairRun.begin(self._adapter, self._session, pair, workspace)

    def _choose(self, image0: ImageLike, image1: ImageLike) -> HostPair | None:
        """Where a pair in host memory is resized is decided here: by the session on its GPU, or (None) on the host."""
        return self._route().host_pair(self._session, image0, image1) if self._session.asynchronous else None

    def _route(self) -> FrameRoute:
        if self._known_route is None:
            from matchrt.runtime.gpu.route import FrameRoute

            self._known_route = FrameRoute(self.manifest, self.options)
        return self._known_route

    @contextmanager
    def _streaming_sessions(self) -> Iterator[list[Session]]:
        """The sessions that `match_many` runs pairs on in turn.

        For an asynchronous session these are two forks with buffers of their own: one pair is copied to the GPU while
        the engine works on the other. The matcher's own session stays free for `match` between the pairs. The forks are
        kept for the next call, because making them ready takes as long as a hundred pairs.
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
        from matchrt.runtime.gpu.matching import require_gpu_session

        session = require_gpu_session(self._session)
        pair = self._route().gpu_pair(image0, image1, None if stream is None else stream_handle(stream))
        return PairRun.start_frames(self._adapter, session, pair).matches()


def _open(engine: str | Path | EngineFile | Session, chosen: MatcherOptions, store: EngineStore | None) -> Session:
    if isinstance(engine, str | Path):
        return open_named(engine, _session_options(chosen), store, chosen.backend)
    return open_session(engine, _session_options(chosen)) if isinstance(engine, EngineFile) else engine


def _session_options(chosen: MatcherOptions) -> SessionOptions:
    return SessionOptions(threads=chosen.threads, device=chosen.device, cuda_graph=chosen.cuda_graph)
