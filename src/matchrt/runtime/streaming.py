"""Pair after pair through an engine. The next images are decoded, and copied to the GPU, while the engine works."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any, Protocol

from matchrt.errors import MatchRTError
from matchrt.runtime.adapter import ImageLike, Outputs, PairAdapter
from matchrt.runtime.matches import Matches
from matchrt.runtime.preprocess import PreparedImage
from matchrt.runtime.session import Pending, Session

_Images = tuple[PreparedImage, PreparedImage]


class Frames(Protocol):
    """Two images in host memory that the session itself resizes."""

    def start(self, session: Session) -> Pending:
        """Starts a run of the engine on them. Errors: those of `Session.start`."""
        ...

    def images(self) -> _Images:
        """Their names, sizes and fits. Raises nothing."""
        ...


# A pair as `PairRun.begin` takes it.
Prepared = _Images | Frames
_PAIRS_REMEDY = "Give (image0, image1) tuples, such as [('a.jpg', 'b.jpg')]."


@dataclass(frozen=True)
class PairRun:
    """A pair that an engine works on.

    adapter: what prepared the images and reads the outputs.
    images: the two prepared images.
    pending: the run that was started.
    start: when it was started, in seconds of `time.perf_counter`.
    """

    adapter: PairAdapter
    images: _Images
    pending: Pending
    start: float

    @classmethod
    def begin(cls, adapter: PairAdapter, session: Session, pair: Prepared) -> PairRun:
        """Starts a run of the engine on two prepared images, uint8 `[H, W, C]`, or on images that it prepares.

        Errors: size-memory, those of `Session.start`.
        """
        if isinstance(pair, tuple):
            inputs = adapter.inputs(*pair)
            start = time.perf_counter()
            return cls(adapter, pair, session.start(inputs), start)
        start = time.perf_counter()
        pending = pair.start(session)
        return cls(adapter, pair.images(), pending, start)

    def outputs(self) -> Outputs:
        """Waits for the engine's outputs, arrays `[1, ...]` by name. Errors: those of `Pending.result`."""
        return self.pending.result()

    def matches(self) -> Matches:
        """Waits for the matches. Errors: those of `Pending.result`; matches-invalid."""
        outputs = self.outputs()
        timings = {"inference": (time.perf_counter() - self.start) * 1e3, **self.pending.timings()}
        return self.adapter.matches(self.images, outputs, timings)


def require_pair(pair: Any) -> tuple[ImageLike, ImageLike]:
    """The two images of a pair. Error: pair-invalid if it is not two."""
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        what = f"{type(pair).__name__} of {len(pair)}" if isinstance(pair, tuple | list) else type(pair).__name__
        raise MatchRTError("pair-invalid", f"A pair is two images, not a {what}.", _PAIRS_REMEDY)
    return pair[0], pair[1]


def stream_matches(
    adapter: PairAdapter,
    sessions: Sequence[Session],
    pairs: Iterable[tuple[ImageLike, ImageLike]],
    prepare: Callable[[tuple[ImageLike, ImageLike]], Prepared],
) -> Generator[Matches | MatchRTError, None, None]:
    """Matches pairs in order, in turn on each of `sessions`, and yields the error of a pair that cannot be matched.

    pairs: (image0, image1), each a path, an array `[H, W]` or `[H, W, C]`, or a prepared image.
    prepare: what makes of such a pair what `PairRun.begin` takes; it is called in another thread.

    There are as many pairs under way as sessions. What the iterable itself raises is raised after the results of the
    pairs before it. A caller that stops early should close the iterator, which then waits for the runs under way, so
    that the sessions can be used again. Errors: no MatchRTError is raised, it is yielded.
    """
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(max_workers=1))
        turns = itertools.cycle(sessions)
        running: deque[PairRun | MatchRTError] = deque()
        stack.callback(_abandon, running)
        for prepared in _ahead(pairs, lambda pair: pool.submit(prepare, pair)):
            if isinstance(prepared, Exception):
                yield from (_outcome(run) for run in _drained(running))
                raise prepared
            running.append(_begun(adapter, next(turns), prepared))
            if len(running) == len(sessions):
                yield _outcome(running.popleft())
        yield from (_outcome(run) for run in _drained(running))


def _begun(adapter: PairAdapter, session: Session, prepared: Future[Prepared]) -> PairRun | MatchRTError:
    """Starts a pair on a session. An error of the pair is returned, and comes out when it is the pair's turn."""
    try:
        return PairRun.begin(adapter, session, prepared.result())
    except MatchRTError as error:
        return error


def _outcome(run: PairRun | MatchRTError) -> Matches | MatchRTError:
    if isinstance(run, MatchRTError):
        return run
    try:
        return run.matches()
    except MatchRTError as error:
        return error


def _ahead(pairs: Iterable[Any], submit: Callable[[Any], Future[Prepared]]) -> Iterator[Future[Prepared] | Exception]:
    """Pairs that are being prepared, in order, two ahead of the one that is taken.

    If the caller's iterator raises, its error comes last.
    """
    waiting: deque[Future[Prepared]] = deque()
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
        if len(waiting) == 2:
            yield waiting.popleft()


def _drained(running: deque[PairRun | MatchRTError]) -> Iterator[PairRun | MatchRTError]:
    while running:
        yield running.popleft()


def _abandon(running: deque[PairRun | MatchRTError]) -> None:
    for run in _drained(running):
        if isinstance(run, PairRun):
            with suppress(MatchRTError):
                run.outputs()
