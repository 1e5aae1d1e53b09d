"""Matches pairs on a Ray cluster with Ray Data. Tasks decode images, and each actor holds one engine.

The driver keeps the journal, as in `pool`. It sends blocks of neighbouring pairs, so that an image is decoded only once
in a block, and it takes results as they come. Nodes need the same version of matchrt, and must see the images under the
same root. The engine is sent to them. Ray repeats the work of a lost node; results that come twice replace each other.

Errors: package-missing, ray-cluster (it cannot be reached or started, or has no GPU for the engine), ray-version (a
node has another version of matchrt), ray-failed (Ray itself failed), and those of `pool`.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from matchrt._version import __version__
from matchrt.batch.pool import match_sources
from matchrt.batch.results import Found, ListedPair, Result
from matchrt.batch.sources import Read, SourceImage, read_source
from matchrt.errors import MatchRTError, missing_package
from matchrt.runtime.adapter import PairAdapter
from matchrt.runtime.backend import get_backend
from matchrt.runtime.engine_file import EngineFile
from matchrt.runtime.matcher import Matcher
from matchrt.runtime.opening import open_session
from matchrt.runtime.options import MatcherOptions
from matchrt.runtime.session import SessionOptions

# Number of pairs in a block; an image is decoded once in a block.
_BLOCK = 16
# Blocks of a short list are smaller, so that each actor gets at least so many and has work to the end.
_BLOCKS_PER_ACTOR = 4
# Blocks of one execution. Their names wait in Ray's object store, which may spill to disk.
_BLOCKS_AT_ONCE = 4096
# Actors on CPUs leave a share of a core to the tasks that decode images.
_ACTOR_SHARE = 0.75
_DECODE_CPUS = 0.25


@dataclass(frozen=True)
class RayWork:
    """What nodes need to match pairs.

    engine: the engine, which is sent to the nodes.
    options: the matcher's options.
    root: folder of the images, which has the same path on all nodes.
    actors: number of engines in the cluster.
    cpus: number of CPU cores that Ray reserves for each actor.
    gpus: number of GPUs that Ray reserves for each actor.
    version: matchrt's version, which nodes must have too.
    """

    engine: EngineFile
    options: MatcherOptions
    root: Path
    actors: int
    cpus: float
    gpus: float
    version: str = __version__

    @classmethod
    def of(cls, engine: EngineFile, options: MatcherOptions, root: Path, workers: int | None) -> RayWork:
        """Plans one engine for each GPU of the cluster, or for each CPU core; at most `workers` engines.

        root: folder of the images. Errors: ray-cluster, those of `PairAdapter`.
        """
        import ray

        PairAdapter(engine.manifest, options)  # raises here the errors that it would raise on every node
        on_gpu = get_backend(engine.manifest.backend).device(options.device) == "cuda"
        kind, threads = ("GPU", 1) if on_gpu else ("CPU", options.threads or 1)
        there = int(ray.cluster_resources().get(kind, 0)) // (1 if on_gpu else threads)
        if there < 1:
            raise MatchRTError(
                "ray-cluster",
                f"The cluster has no {kind} for an engine for backend {engine.manifest.backend}.",
                "Start Ray on nodes that have one, or use an engine of another backend.",
            )
        shares = (_DECODE_CPUS, 1.0) if on_gpu else (threads - 1 + _ACTOR_SHARE, 0.0)
        settled = replace(options, threads=threads)
        return cls(engine, settled, root.absolute(), min(workers or there, there), *shares)


@contextmanager
def cluster(address: str | None) -> Iterator[None]:
    """Connects to the cluster at `address` or RAY_ADDRESS, or starts Ray here. Errors: package-missing, ray-cluster."""
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise missing_package("ray[data]", "ray", "Matching on Ray") from error
    if ray.is_initialized():  # the caller has started Ray and will stop it
        yield
        return
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", include_dashboard=None)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise MatchRTError(
            "ray-cluster",
            f"No Ray cluster can be reached or started: {error}.",
            "Check --ray-address, RAY_ADDRESS and the output of `ray status`.",
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def match_on_ray(work: RayWork, pairs: Iterable[ListedPair]) -> Iterator[Result]:
    """Matches pairs and yields the results in any order.

    Errors of one pair are its result. Errors that are raised: those of the module.
    """
    import ray

    held = ray.put(work)
    source = iter(pairs)
    while some := list(islice(source, _BLOCK * _BLOCKS_AT_ONCE)):
        yield from _execute(work, held, some)


def _execute(work: RayWork, held: Any, pairs: list[ListedPair]) -> Iterator[Result]:
    import ray

    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    size = min(_BLOCK, max(1, len(pairs) // (_BLOCKS_PER_ACTOR * work.actors)))
    blocks = [{"block": pickle.dumps(pairs[i : i + size])} for i in range(0, len(pairs), size)]
    found = (
        ray.data.from_items(blocks, override_num_blocks=len(blocks))
        .map(_decode, fn_kwargs={"held": held}, num_cpus=_DECODE_CPUS)
        .map(
            _Engine,
            fn_constructor_kwargs={"held": held},
            compute=ray.data.ActorPoolStrategy(size=work.actors),
            num_cpus=work.cpus,
            num_gpus=work.gpus,
        )
    )
    try:
        for row in found.iter_rows():
            outcome = pickle.loads(row["results"])
            if isinstance(outcome, MatchRTError):
                raise outcome
            yield from outcome
    except ray.exceptions.RayError as error:
        what = str(error).strip().splitlines()[-1]
        raise MatchRTError(
            "ray-failed",
            f"Ray could not do the work: {what}",
            "Read Ray's logs and run the command again. It goes on where it ended.",
        ) from error


Images = dict[str, Read]


def _decode(row: dict[str, Any], held: Any) -> dict[str, Any]:
    """A task that prepares the images of a block of pairs, each image once. A bad image is replaced by its error."""
    import ray

    work: RayWork = ray.get(held)
    pairs: list[ListedPair] = pickle.loads(row["block"])
    adapter, images = PairAdapter(work.engine.manifest, work.options), Images()
    for name in dict.fromkeys(name for pair in pairs for name in (pair.first, pair.second)):
        images[name] = read_source(adapter.share, work.root / name)
    return {"prepared": pickle.dumps((pairs, images))}


class _Engine:
    """An actor with one engine, which matches blocks of pairs."""

    def __init__(self, held: Any) -> None:
        import ray

        work: RayWork = ray.get(held)
        self._matcher: Matcher | MatchRTError
        try:
            _require_version(work.version)
            chosen = SessionOptions(threads=work.options.threads, device=work.options.device)
            self._matcher = Matcher(open_session(work.engine, chosen), work.options)
        except MatchRTError as error:  # kept, because Ray would start a failed actor again and again
            self._matcher = error

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """The results of a block, or the error that ends the run."""
        pairs, images = pickle.loads(row["prepared"])
        try:
            results: Any = [Result(pair, self._outcome(pair, images)) for pair in pairs]
        except MatchRTError as error:
            results = error
        return {"results": pickle.dumps(results)}

    def _outcome(self, pair: ListedPair, images: Images) -> Found | MatchRTError:
        if isinstance(self._matcher, MatchRTError):
            raise self._matcher
        first, second = images[pair.first], images[pair.second]
        if not isinstance(first, SourceImage):
            return first
        if not isinstance(second, SourceImage):
            return second
        return match_sources(self._matcher, pair, first, second)


def _require_version(version: str) -> None:
    if version != __version__:
        raise MatchRTError(
            "ray-version",
            f"A node has matchrt {__version__}, but the driver has {version}.",
            "Install the same version on all nodes.",
        )
