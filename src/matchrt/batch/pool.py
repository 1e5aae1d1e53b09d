"""Matches pairs with a pool of threads in one process.

Threads serve better than processes here: the engine, Pillow and OpenCV all work outside Python's lock, and the forks of
a session share its weights. Each thread matches whole pairs with its own fork. Other threads decode images, each image
once while it is in the cache.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from matchrt._util.cores import usable_cores
from matchrt._util.memory import pairs_that_fit
from matchrt.batch.results import Found, ListedPair, Result
from matchrt.batch.sources import Read, SourceImage, image_error, read_source
from matchrt.errors import MatchRTError
from matchrt.manifest import EngineManifest
from matchrt.runtime.backend import get_backend
from matchrt.runtime.matcher import Matcher
from matchrt.runtime.options import MatcherOptions
from matchrt.runtime.preprocess import best_side
from matchrt.runtime.session import Device

# Limits of the cache of prepared images.
_CACHE_BYTES = 256 << 20
_FEWEST_CACHED = 16
_MOST_DECODERS = 16
# Workers of a GPU: one pair is copied while the engine works on another.
_GPU_WORKERS = 2


@dataclass(frozen=True)
class PoolSize:
    """How many threads a pool has.

    workers: number of pairs that are matched at a time.
    threads: CPU threads of each worker.
    decoders: number of images that are decoded at a time.
    """

    workers: int
    threads: int
    decoders: int


def pool_size(manifest: EngineManifest, device: Device | None, workers: int | None, threads: int | None) -> PoolSize:
    """The size that suits this machine. workers, threads: None to choose them here.

    On a CPU, each core gets one worker with one thread, or fewer workers if their memory would not fit. One thread does
    less work for a pair in all than several. A GPU gets two workers. Error: backend-unknown.
    """
    cores = usable_cores()
    if get_backend(manifest.backend).device(device) == "cuda":
        return PoolSize(workers or _GPU_WORKERS, threads or 1, min(cores, _MOST_DECODERS))
    contract = manifest.input
    # Frames are resized in the engine, and its memory is that of the network's input.
    side = best_side(manifest) if contract.frames is None else max(contract.height or 0, contract.width or 0)
    fitting = pairs_that_fit((side, side), (side, side), manifest.matching.coarse_stride) or cores
    workers = workers or max(1, min(cores // (threads or 1), fitting))
    return PoolSize(workers, threads or max(1, cores // workers), max(1, cores // 4))


def match_in_pool(matcher: Matcher, root: Path, pairs: Iterable[ListedPair], size: PoolSize) -> Iterator[Result]:
    """Matches pairs and yields the results in the order of the pairs; a few pairs are in work at a time.

    root: the folder that the pairs' names start from. Errors of one pair are its result, whatever a decoder raised.
    Other errors, those of the engine or the GPU, are raised.
    """
    with ExitStack() as stack:
        forks = forked(stack, matcher, size.workers)
        decoding = thread_pool(stack, size.decoders)
        matching = thread_pool(stack, size.workers)
        prepare = matcher.adapter.share
        count = cached(matcher.manifest, matcher.options)
        cache = ImageCache(lambda name: decoding.submit(read_source, prepare, root / name), count)
        under_way: deque[Future[Result]] = deque()
        for pair in pairs:
            images = cache.get(pair.first), cache.get(pair.second)
            under_way.append(matching.submit(_match, pair, images, forks))
            if len(under_way) >= 2 * (size.workers + size.decoders):
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()


def forked(stack: ExitStack, matcher: Matcher, workers: int) -> SimpleQueue[Matcher]:
    """Forks of a matcher, one for each worker, which end with `stack`. Errors: those of `Matcher.fork`."""
    forks: SimpleQueue[Matcher] = SimpleQueue()
    for _ in range(workers):
        fork = matcher.fork()
        stack.callback(fork.close)
        forks.put(fork)
    return forks


def thread_pool(stack: ExitStack, threads: int) -> ThreadPoolExecutor:
    """A pool of threads that ends with `stack`. Raises nothing."""
    pool = ThreadPoolExecutor(threads)
    # If the iteration stops early, only work that has begun is waited for.
    stack.callback(pool.shutdown, wait=True, cancel_futures=True)
    return pool


def _match(pair: ListedPair, images: tuple[Future[Read], Future[Read]], forks: SimpleQueue[Matcher]) -> Result:
    first, second = (image.result() for image in images)
    if not isinstance(first, SourceImage):
        return Result(pair, first)
    if not isinstance(second, SourceImage):
        return Result(pair, second)
    matcher = forks.get()
    try:
        return Result(pair, match_sources(matcher, pair, first, second))
    finally:
        forks.put(matcher)


def match_sources(matcher: Matcher, pair: ListedPair, first: SourceImage, second: SourceImage) -> Found | MatchRTError:
    """The matches of two images, or the error that concerns this pair only. Errors of the engine are raised."""
    try:
        images: tuple[Any, Any] = first.prepared, second.prepared
        if not matcher.options.tries_more:
            # Images that are stretched in pairs become pixels only here.
            images = matcher.adapter.prepare_pair(*images)
    except Exception as error:
        return image_error(error, f"{pair.first}' and '{pair.second}")
    try:
        return Found.of(matcher.match(*images), first.facts, second.facts)
    except MatchRTError as error:
        return own_error(error)


def own_error(error: MatchRTError) -> MatchRTError:
    """Returns an error that concerns one pair only, and raises an error of the engine or the GPU."""
    if error.exit_code != MatchRTError.exit_code:
        raise error
    return error


def cached(manifest: EngineManifest, options: MatcherOptions) -> int:
    """The number of images that the cache keeps.

    Images that are stretched in pairs, or that may be turned, are kept in their own size.
    """
    if not options.prepares_alone:
        return _FEWEST_CACHED
    frames = manifest.input.frames
    channels = manifest.input.channels if frames is None else frames.channels
    return max(_FEWEST_CACHED, _CACHE_BYTES // (best_side(manifest) ** 2 * channels))


class ImageCache:
    """A cache of the images that were used last, prepared or being prepared. Only one thread may use it."""

    def __init__(self, prepare: Callable[[str], Future[Read]], count: int) -> None:
        self._prepare, self._count = prepare, count
        self._images: OrderedDict[str, Future[Read]] = OrderedDict()

    def get(self, name: str) -> Future[Read]:
        """The future image of that name, whose preparation is begun if it is not in the cache."""
        image = self._images.pop(name, None) or self._prepare(name)
        self._images[name] = image
        if len(self._images) > self._count:
            self._images.popitem(last=False)
        return image
