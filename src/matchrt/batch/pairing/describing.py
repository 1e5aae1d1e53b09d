"""Descriptors of a folder's images, computed by a pool of threads once an image and kept on disk.

Errors: those of `descriptor_store`; split-missing, split-graph (the engine has no features of one image); pairs-engine
(its features hold no coarse map); engine and GPU errors. Errors of one image concern that image only.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import numpy.typing as npt

from matchrt._util.digest import sha256_bytes
from matchrt.batch.pairing.coarse import coarse_vectors
from matchrt.batch.pairing.descriptor import VERSION, Vocabulary
from matchrt.batch.pairing.descriptor_store import Described, DescriptorStore
from matchrt.batch.pool import PoolSize, forked, own_error, thread_pool
from matchrt.batch.sources import SourceImage, changed_since, read_source
from matchrt.errors import MatchRTError
from matchrt.manifest import EngineManifest
from matchrt.runtime.bundled import photographs_folder
from matchrt.runtime.matcher import Matcher
from matchrt.runtime.options import MatcherOptions
from matchrt.runtime.preprocess import PreparedImage

# Long side in pixels of the images that are described. Larger ones take longer and are found no better.
LONG_SIDE = 320
_COMMIT_IMAGES, _COMMIT_SECONDS = 64, 1.0
# Images and vectors of each that the vocabulary is made of.
_WORD_IMAGES, _WORD_VECTORS, _SEED = 64, 256, 0
_LEAST = 1e-9

Tell = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Descriptors:
    """The descriptors of a folder.

    values: float32 [N, D], each of length 1; zeros for an image that could not be read.
    failed: the images that could not be read, by number, and why.
    computed: how many were computed now; the others were kept from an earlier run.
    seconds: that it took.
    """

    values: npt.NDArray[np.float32]
    failed: dict[int, MatchRTError]
    computed: int
    seconds: float


def small_images(manifest: EngineManifest, options: MatcherOptions) -> MatcherOptions:
    """The same options for small images, if the engine takes any size. Raises nothing."""
    profile = manifest.input.profile
    if manifest.input.height is not None or profile is None:
        return replace(options, resize=None)
    return replace(options, resize=min(max(LONG_SIDE, *profile.minimum), *profile.maximum))


def describe_folder(
    matcher: Matcher, root: Path, names: Sequence[str], kept_in: Path, size: PoolSize, tell: Tell | None = None
) -> Descriptors:
    """Describes the images `root / name`. tell: called with the numbers of images done and of all.

    matcher: with the options of `small_images`. kept_in: the file of descriptors. Errors: the module's.
    """
    start = time.perf_counter()
    found: dict[int, Described] = {}
    failed: dict[int, MatchRTError] = {}
    with DescriptorStore(kept_in, _made_by(matcher)) as store:
        vocabulary = _vocabulary(matcher, store, root, names)
        for number, name in enumerate(names):
            kept = store.find(name)
            if kept is not None and changed_since(root / name, kept[0]) is not None and (root / name).is_file():
                found[number] = kept
        waiting = [number for number in range(len(names)) if number not in found]
        done, fresh, last = len(found), [], time.monotonic()
        try:
            for number, outcome in _described(matcher, vocabulary, root, names, waiting, size):
                if isinstance(outcome, MatchRTError):
                    failed[number] = outcome
                else:
                    found[number] = outcome
                    fresh.append((names[number], outcome))
                done += 1
                if len(fresh) >= _COMMIT_IMAGES or time.monotonic() - last >= _COMMIT_SECONDS:
                    store.put(fresh)
                    fresh, last = [], time.monotonic()
                if tell is not None:
                    tell(done, len(names))
        finally:
            store.put(fresh)
    width = len(next(iter(found.values()))[1]) if found else 1
    values = np.zeros((len(names), width), np.float32)
    for number, (_, descriptor) in found.items():
        values[number] = descriptor / max(float(np.linalg.norm(descriptor)), _LEAST)  # half precision has changed it
    return Descriptors(values, failed, len(waiting), time.perf_counter() - start)


def _made_by(matcher: Matcher) -> str:
    manifest, options = matcher.manifest, matcher.options
    parts = (VERSION, manifest.engine_sha256, manifest.backend, options.resize, options.apply_exif, options.stretch)
    return sha256_bytes(repr(parts).encode())


def _vocabulary(matcher: Matcher, store: DescriptorStore, root: Path, names: Sequence[str]) -> Vocabulary:
    """The words of the folder, which are kept, so that images which are added later get the same ones.

    They come from the package's photographs, which can always be read, and from images spread over the folder.
    """
    kept = store.words()
    if kept is not None:
        return Vocabulary(kept)
    dice = np.random.default_rng(_SEED)
    samples = [_vectors(matcher, path) for path in sorted(photographs_folder().glob("*.jpg"))]
    for name in names[:: -(-len(names) // _WORD_IMAGES)]:
        read = read_source(matcher.adapter.prepare, root / name)
        if isinstance(read, SourceImage):
            assert isinstance(read.prepared, PreparedImage)  # `adapter.prepare` gives no other
            samples.append(_vectors(matcher, read.prepared))
    found = Vocabulary.of([dice.permutation(vectors)[:_WORD_VECTORS] for vectors in samples])
    store.put_words(found.words)
    return found


def _vectors(matcher: Matcher, image: PreparedImage | Path) -> npt.NDArray[np.float32]:
    return coarse_vectors(matcher.features(image, on_host=True), matcher.manifest.matching.coarse_stride)


Outcome = Described | MatchRTError


def _described(
    matcher: Matcher,
    vocabulary: Vocabulary,
    root: Path,
    names: Sequence[str],
    numbers: Iterable[int],
    size: PoolSize,
) -> Iterator[tuple[int, Outcome]]:
    with ExitStack() as stack:
        forks = forked(stack, matcher, size.workers)
        pool = thread_pool(stack, size.workers)
        under_way: deque[tuple[int, Future[Outcome]]] = deque()
        for number in numbers:
            under_way.append((number, pool.submit(_describe, forks, vocabulary, root / names[number])))
            if len(under_way) >= 4 * size.workers:
                first, future = under_way.popleft()
                yield first, future.result()
        while under_way:
            first, future = under_way.popleft()
            yield first, future.result()


def _describe(forks: SimpleQueue[Matcher], vocabulary: Vocabulary, path: Path) -> Outcome:
    matcher = forks.get()
    try:
        read = read_source(matcher.adapter.prepare, path)
        if not isinstance(read, SourceImage):
            return read
        assert isinstance(read.prepared, PreparedImage)  # `adapter.prepare` gives no other
        # Rounded to what is kept, so that a run that goes on gives what a whole one gives.
        kept = vocabulary.describe(_vectors(matcher, read.prepared)).astype(np.float16)
        return read.facts, kept.astype(np.float32)
    except MatchRTError as error:
        return own_error(error)
    finally:
        forks.put(matcher)
