"""Matches pairs with a pool of threads, with the features of each image computed once while they fit into memory.

It is `pool` with two steps: a thread computes the features of an image, and a thread matches the features of two. Both
steps share the threads, and a pair waits for its images' features, which were given to the threads before it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue

from matchrt._util.memory import available_bytes
from matchrt.batch.features import Computed, FeatureCache, FeatureOptions, SourceFeatures
from matchrt.batch.ordering import by_blocks
from matchrt.batch.pool import PoolSize, forked, own_error, thread_pool
from matchrt.batch.results import Found, ListedPair, Result
from matchrt.batch.sources import Read, SourceImage, read_source
from matchrt.errors import MatchRTError
from matchrt.nvidia.device import free_memory
from matchrt.runtime.matcher import Matcher
from matchrt.runtime.preprocess import PreparedImage


def require_features(matcher: Matcher) -> tuple[str, str]:
    """The digests of the two parts of the matcher's engine. Errors: split-missing, split-graph, option-range."""
    if matcher.options.stretch == "same":
        raise MatchRTError(
            "option-range",
            "Images that are stretched in pairs have no features of their own.",
            "Use --stretch each, or leave --feature-cache and --feature-spill out.",
        )
    if matcher.options.tries_more:
        raise MatchRTError(
            "option-range",
            "Pairs that give little are matched again from their images, of which features are not enough.",
            "Leave --rotate, --zoom and --effort out, or --feature-cache and --feature-spill.",
        )
    return matcher.parts.digests


def match_from_features(
    matcher: Matcher, root: Path, pairs: Iterable[ListedPair], size: PoolSize, options: FeatureOptions
) -> Iterator[Result]:
    """Matches pairs and yields the results, in an order that serves the cache; a few pairs are in work at a time.

    root: the folder that the pairs' names start from. Errors of one pair are its result, and so are those of its
    images. Other errors, those of the engine or the GPU, are raised; also those of `require_features`.
    """
    require_features(matcher)
    with ExitStack() as stack:
        forks = forked(stack, matcher, size.workers)
        decoding, matching = thread_pool(stack, size.decoders), thread_pool(stack, size.workers)
        worker = _Worker(matcher, forks, root, options.spill is not None)
        each = worker.bytes_of_best_size()
        options = replace(options, limit=_fitting(options.limit, matcher, on_host=options.spill is not None))
        cache = FeatureCache(
            lambda name: matching.submit(worker.compute, decoding.submit(worker.read, name)),
            each,
            options,
            decoding.submit,
        )
        stack.callback(cache.close)
        ordered = by_blocks(pairs, max(1, options.limit // each))
        yield from _matched(ordered, cache, worker, matching, 2 * (size.workers + size.decoders))


def _fitting(limit: int, matcher: Matcher, on_host: bool) -> int:
    """The limit, or half of the memory that is free if that is less. Results do not depend on it."""
    free = available_bytes() if on_host or not matcher.session.asynchronous else free_memory()
    return limit if free is None else min(limit, free // 2)


def _matched(
    pairs: Iterable[ListedPair], cache: FeatureCache, worker: _Worker, matching: ThreadPoolExecutor, most: int
) -> Iterator[Result]:
    under_way: deque[Future[Result]] = deque()
    for pair in pairs:
        images = cache.get(pair.first), cache.get(pair.second)
        under_way.append(matching.submit(worker.match, pair, images))
        if len(under_way) >= most:
            yield under_way.popleft().result()
    while under_way:
        yield under_way.popleft().result()


class _Worker:
    """What the threads do.

    halved: whether features are kept in half precision.
    """

    def __init__(self, matcher: Matcher, forks: SimpleQueue[Matcher], root: Path, halved: bool) -> None:
        self._prepare = matcher.adapter.prepare
        self._forks, self._root, self._halved = forks, root, halved

    def bytes_of_best_size(self) -> int:
        """The bytes of the features of a black image of the engine's best size, a square one if it takes any."""
        matcher = self._forks.get()
        try:
            features = matcher.features(matcher.adapter.blank(), on_host=self._halved)
        finally:
            self._forks.put(matcher)
        return (features.halved() if self._halved else features).nbytes

    def read(self, name: str) -> Read:
        return read_source(self._prepare, self._root / name)

    def compute(self, image: Future[Read]) -> Computed:
        read = image.result()
        if not isinstance(read, SourceImage):
            return read
        assert isinstance(read.prepared, PreparedImage)  # images that are stretched in pairs have no features
        matcher = self._forks.get()
        try:
            features = matcher.features(read.prepared, on_host=self._halved)
        except MatchRTError as error:
            return own_error(error)
        finally:
            self._forks.put(matcher)
        return SourceFeatures(features.halved() if self._halved else features, read.facts)

    def match(self, pair: ListedPair, images: tuple[Future[Computed], Future[Computed]]) -> Result:
        first, second = (image.result() for image in images)
        if not isinstance(first, SourceFeatures):
            return Result(pair, first)
        if not isinstance(second, SourceFeatures):
            return Result(pair, second)
        matcher = self._forks.get()
        try:
            matches = matcher.match_features(first.features, second.features)
            return Result(pair, Found.of(matches, first.facts, second.facts))
        except MatchRTError as error:
            return Result(pair, own_error(error))
        finally:
            self._forks.put(matcher)
