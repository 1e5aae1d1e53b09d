"""Pair after pair through an engine: the next images are decoded, and copied to the GPU, while the engine works."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

from matchrt.errors import MatchRTError
from matchrt.runtime.adapter import ImageLike, Outputs, PairAdapter
from matchrt.runtime.matches import Matches
from matchrt.runtime.preprocess import PreparedImage
from matchrt.runtime.session import Pending, Session

_Images = tuple[PreparedImage, PreparedImage]


@dataclass(frozen=True)
class PairRun:
    """A pair that an engine works on. start: on the host's clock, in seconds."""

    adapter: PairAdapter
    images: _Images
    pending: Pending
    start: float

    @classmethod
    def begin(cls, adapter: PairAdapter, session: Session, images: _Images) -> PairRun:
        """Starts a run. Errors: size-memory, those of the session."""
        inputs = adapter.inputs(*images)
        start = time.perf_counter()
        return cls(adapter, images, session.start(inputs), start)

    def outputs(self) -> Outputs:
        """Waits for the engine's outputs."""
        return self.pending.result()

    def matches(self) -> Matches:
        """Waits for the matches."""
        outputs = self.outputs()
        timings = {"inference": (time.perf_counter() - self.start) * 1e3, **self.pending.timings()}
        return self.adapter.matches(self.images, outputs, timings)


def prepare_pair(adapter: PairAdapter, pair: tuple[ImageLike, ImageLike]) -> _Images:
    """Both images of a pair, prepared. Errors: pair-invalid, image-*."""
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        what = f"{type(pair).__name__} of {len(pair)}" if isinstance(pair, tuple | list) else type(pair).__name__
        raise MatchRTError("pair-invalid", f"A pair is two images, not a {what}.", "Give (image0, image1) tuples.")
    return adapter.prepare(pair[0], "image0"), adapter.prepare(pair[1], "image1")


def stream_matches(
    adapter: PairAdapter, sessions: Sequence[Session], pairs: Iterable[tuple[ImageLike, ImageLike]]
) -> Generator[Matches | MatchRTError, None, None]:
    """Matches pairs in order, in turn on each of `sessions`; yields the error of a pair that cannot be matched.

    As many pairs are under way as there are sessions. What the iterable itself raises is raised after the results of
    the pairs that came before. A caller that stops early should close the iterator: runs under way are then waited
    for, so that the sessions can be used again.
    """
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(max_workers=1))
        turns = itertools.cycle(sessions)
        running: deque[PairRun | MatchRTError] = deque()
        stack.callback(_abandon, running)
        for prepared in _ahead(pairs, lambda pair: pool.submit(prepare_pair, adapter, pair)):
            if isinstance(prepared, Exception):
                yield from (_outcome(run) for run in _drained(running))
                raise prepared
            running.append(_begun(adapter, next(turns), prepared))
            if len(running) == len(sessions):
                yield _outcome(running.popleft())
        yield from (_outcome(run) for run in _drained(running))


def _begun(adapter: PairAdapter, session: Session, prepared: Future[_Images]) -> PairRun | MatchRTError:
    """Starts a pair on a session; what is wrong with the pair comes out in its turn."""
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


def _ahead(pairs: Iterable[Any], submit: Callable[[Any], Future[_Images]]) -> Iterator[Future[_Images] | Exception]:
    """Pairs being prepared, in order, two ahead of the one that is taken; last the error of the caller's iterator."""
    waiting: deque[Future[_Images]] = deque()
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


def _drained(running: deque[PairRun | MatchRTError]) -> Iterator[PairRun | MatchRTError]:
    while running:
        yield running.popleft()


def _abandon(running: deque[PairRun | MatchRTError]) -> None:
    for run in _drained(running):
        if isinstance(run, PairRun):
            with suppress(MatchRTError):
                run.outputs()
