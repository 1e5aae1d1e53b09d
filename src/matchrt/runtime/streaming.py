"""Pair after pair through an engine. Threads decode and resize the next images while the engine works."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any, Protocol

from matchrt._util.cores import usable_cores
from matchrt.errors import MatchRTError
from matchrt.runtime.adapter import ImageLike, Outputs, PairAdapter
from matchrt.runtime.matches import Matches
from matchrt.runtime.preprocess import PlannedPair, PreparedImage
from matchrt.runtime.session import Pending, Session
from matchrt.runtime.trials import Run, Trials, require_images
from matchrt.runtime.workspace import Workspace, Workspaces

_Images = tuple[PreparedImage, PreparedImage]


class Frames(Protocol):
    """Two images in host memory that the session resizes itself."""

    @property
    def images(self) -> _Images:
        """Their names, sizes and fits, without pixels and notices."""
        ...

    def start(self, session: Session) -> Pending:
        """Starts a run of the engine on them. Errors: those of `Session.start`."""
        ...

    def told(self, prepared: _Images) -> _Images:
        """`images` with their notices; see `PlannedPair.told`."""
        ...


# Says which pairs the session is to resize itself; None for those that the host prepares.
Chooser = Callable[[ImageLike, ImageLike], Frames | None]
_PAIRS_REMEDY = "Give (image0, image1) tuples, such as [('a.jpg', 'b.jpg')]."
# Threads that decode and resize for an engine on a GPU, which is much faster than one of them.
_MOST_WORKERS = 8


@dataclass(frozen=True)
class PairRun:
    """A pair that an engine works on.

    adapter: what prepared the images and reads the outputs.
    pair: the two images, as they were before they were prepared.
    images: the two prepared images, whose notices are not known yet.
    pending: the run that was started.
    start: when it was started, in seconds of `time.perf_counter`.
    """

    adapter: PairAdapter
    pair: PlannedPair | Frames
    images: _Images
    pending: Pending
    start: float

    @classmethod
    def begin(cls, adapter: PairAdapter, session: Session, pair: PlannedPair | Frames, workspace: Workspace) -> PairRun:
        """Prepares two images, straight into the session's own memory if it lends that, and starts a run.

        workspace: holds the images until the run is over.
        Errors: size-memory, those of `Session.start`.
        """
        if not isinstance(pair, PlannedPair):
            return cls.start_frames(adapter, session, pair)
        images = pair.written()
        if images is None:
            shapes = pair.shapes()
            lent = session.staging(shapes)
            if lent is None:
                lent = {name: workspace.take(name, shape) for name, shape in shapes.items()}
            images = pair.write(workspace, lent)
        return cls.start_on(adapter, session, pair, images)

    @classmethod
    def start_on(cls, adapter: PairAdapter, session: Session, pair: PlannedPair, images: _Images) -> PairRun:
        """Starts a run on prepared images, uint8 `[H, W, C]`. Errors: size-memory, those of `Session.start`."""
        inputs = adapter.inputs(*images)
        start = time.perf_counter()
        return cls(adapter, pair, images, session.start(inputs), start)

    @classmethod
    def start_frames(cls, adapter: PairAdapter, session: Session, frames: Frames) -> PairRun:
        """Starts a run on images that the session resizes. Errors: those of `Session.start`."""
        start = time.perf_counter()
        return cls(adapter, frames, frames.images, frames.start(session), start)

    def outputs(self) -> Outputs:
        """Waits for the engine's outputs, arrays `[1, ...]` by name. Errors: those of `Pending.result`."""
        return self.pending.result()

    def matches(self, timings: Mapping[str, float] | None = None) -> Matches:
        """Waits for the matches. timings: more of them, in milliseconds by stage.

        Errors: those of `Pending.result`; matches-invalid.
        """
        images = self.pair.told(self.images)  # while the engine works
        outputs = self.pending.lent()  # `Matches` copies what it keeps
        spent = {"inference": (time.perf_counter() - self.start) * 1e3, **self.pending.timings(), **(timings or {})}
        return self.adapter.matches(images, outputs, spent)


def run_on(session: Session, workspace: Workspace) -> Run:
    """A run of a pair on `session`, whose last run is over. The images are prepared on the host, in `workspace`."""

    def run(adapter: PairAdapter, image0: ImageLike, image1: ImageLike) -> Matches:
        return PairRun.begin(adapter, session, plan_pair(adapter, (image0, image1)), workspace).matches()

    return run


def plan_pair(
    adapter: PairAdapter, pair: tuple[ImageLike, ImageLike], choose: Chooser | None = None
) -> PlannedPair | Frames:
    """Decodes both images of a pair and fits them to the engine, unless `choose` leaves that to the session.

    Errors: pair-invalid if it is not two images; image-* of `as_image`, fit-size.
    """
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        what = f"{type(pair).__name__} of {len(pair)}" if isinstance(pair, tuple | list) else type(pair).__name__
        raise MatchRTError("pair-invalid", f"A pair is two images, not a {what}.", _PAIRS_REMEDY)
    frames = None if choose is None else choose(pair[0], pair[1])
    return frames or adapter.plan_pair(pair[0], pair[1])


@dataclass
class _Prepared:
    """A pair that waits for the engine, in a workspace of its own until its run is over if the host prepares it.

    given: the images as they were given.
    """

    given: tuple[ImageLike, ImageLike]
    pair: PlannedPair | Frames
    images: _Images
    workspace: Workspace | None


@dataclass
class _Running:
    """A pair on the engine, or its error.

    ready: the pair; None if it has an error.
    session: the session that it is on.
    waited: milliseconds that the engine waited for the pair's images.
    """

    run: PairRun | MatchRTError
    ready: _Prepared | None = None
    session: Session | None = None
    waited: float = 0.0


def stream_matches(
    adapter: PairAdapter,
    sessions: Sequence[Session],
    pairs: Iterable[tuple[ImageLike, ImageLike]],
    workers: int | None = None,
    choose: Chooser | None = None,
    trials: Trials | None = None,
) -> Generator[Matches | MatchRTError, None, None]:
    """Matches pairs in order, in turn on each of `sessions`, and yields the error of a pair that cannot be matched.

    pairs: (image0, image1), each a path, an array `[H, W]` or `[H, W, C]`, or a prepared image.
    workers: threads that decode and resize the next pairs; None for as many as the engine needs. One more pair than
        workers is read ahead, so memory does not grow with the number of pairs.
    choose: which pairs the sessions resize themselves; None for none.
    trials: the further steps for pairs that give little; None for none. A pair takes them on its own session.

    There are as many pairs under way as sessions. What the iterable itself raises is raised after the results of the
    pairs before it. A caller that stops early should close the iterator, which then waits for the runs under way, so
    that the sessions can be used again. Errors: no MatchRTError is raised, it is yielded.
    """
    workers = workers or preparing_threads(sessions)
    with ExitStack() as stack:
        pool = ThreadPoolExecutor(workers, "matchrt-pairs")
        stack.callback(pool.shutdown, cancel_futures=True)
        stream = _Stream(adapter, itertools.cycle(sessions), choose, trials)
        stack.callback(stream.abandon)
        for prepared in _ahead(pairs, lambda pair: pool.submit(stream.prepare, pair), workers + 1):
            if isinstance(prepared, Exception):
                yield from stream.rest()
                raise prepared
            stream.begin(prepared)
            if len(stream.running) == len(sessions):
                yield stream.next()
        yield from stream.rest()


def preparing_threads(sessions: Sequence[Session]) -> int:
    """How many threads prepare images for these sessions. Raises nothing.

    An engine on the CPU uses all cores itself, and takes longer than one thread needs for the next pair.
    """
    if not any(session.asynchronous for session in sessions):
        return 1
    return max(1, min(_MOST_WORKERS, usable_cores() - 1))


class _Stream:
    """The pairs under way. `prepare` runs in worker threads, everything else in the caller's."""

    def __init__(
        self, adapter: PairAdapter, turns: Iterator[Session], choose: Chooser | None, trials: Trials | None
    ) -> None:
        self._adapter, self._turns, self._choose, self._trials = adapter, turns, choose, trials
        self._workspaces = Workspaces()
        self.running: deque[_Running] = deque()

    def prepare(self, images: tuple[ImageLike, ImageLike]) -> _Prepared:
        """Decodes and resizes a pair. Errors: those of `plan_pair` and `require_images`."""
        pair = plan_pair(self._adapter, images, self._choose)
        require_images(self._adapter.options, *images)
        if not isinstance(pair, PlannedPair):
            return _Prepared(images, pair, pair.images, None)
        workspace = self._workspaces.borrow()
        lent = {name: workspace.take(name, shape) for name, shape in pair.shapes().items()}
        written = pair.told(pair.write(workspace, lent))
        return _Prepared(images, PlannedPair(*written), written, workspace)

    def begin(self, prepared: Future[_Prepared]) -> None:
        """Starts a pair on the next session. An error of the pair comes out when it is the pair's turn."""
        start = time.perf_counter()
        try:
            ready = prepared.result()
            waited = (time.perf_counter() - start) * 1e3
            session = next(self._turns)
            run = self._started(ready, session)
        except MatchRTError as error:
            self.running.append(_Running(error))
        else:
            self.running.append(_Running(run, ready, session, waited))

    def _started(self, ready: _Prepared, session: Session) -> PairRun:
        if isinstance(ready.pair, PlannedPair):
            return PairRun.start_on(self._adapter, session, ready.pair, ready.images)
        return PairRun.start_frames(self._adapter, session, ready.pair)

    def next(self) -> Matches | MatchRTError:
        """The outcome of the pair that was started first."""
        first = self.running.popleft()
        if isinstance(first.run, MatchRTError):
            return first.run
        assert first.ready is not None and first.session is not None
        try:
            matches = first.run.matches({"wait": first.waited})
            if self._trials is None:
                return matches
            with self._workspaces.borrowed() as workspace:
                return self._trials.improved(matches, *first.ready.given, run_on(first.session, workspace))
        except MatchRTError as error:
            return error
        finally:
            if first.ready.workspace is not None:
                self._workspaces.give_back(first.ready.workspace)

    def rest(self) -> Iterator[Matches | MatchRTError]:
        """The outcomes of all pairs that were started."""
        while self.running:
            yield self.next()

    def abandon(self) -> None:
        """Waits for the runs under way. Raises nothing."""
        for left in self.running:
            if isinstance(left.run, PairRun):
                with suppress(MatchRTError):
                    left.run.outputs()


def _ahead(
    pairs: Iterable[Any], submit: Callable[[Any], Future[_Prepared]], ahead: int
) -> Iterator[Future[_Prepared] | Exception]:
    """Pairs that are being prepared, in order, `ahead` of them together with the one that is taken.

    If the caller's iterator raises, its error comes last.
    """
    waiting: deque[Future[_Prepared]] = deque()
    try:
        source = iter(pairs)
    except TypeError:
        yield MatchRTError(
            "pair-invalid", f"match_many takes pairs one after the other, not {type(pairs).__name__}.", _PAIRS_REMEDY
        )
        return
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
        if len(waiting) == ahead:
            yield waiting.popleft()
