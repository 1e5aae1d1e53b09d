"""Engines, the places for requests, and the way of a request through them. This knows neither HTTP nor gRPC."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from matchrt._util.reading import is_regular
from matchrt._util.text import is_model_name, shortened
from matchrt.errors import MatchRTError
from matchrt.runtime.adapter import PairAdapter
from matchrt.runtime.engine_file import read_engine
from matchrt.runtime.opening import open_session
from matchrt.runtime.options import MatcherOptions
from matchrt.runtime.session import Session, SessionOptions
from matchrt.serving.admission import Admission, Place
from matchrt.serving.call import Call
from matchrt.serving.decoding.pool import Decoders
from matchrt.serving.failures import bad_request, draining, free_frames, out_of_memory
from matchrt.serving.helpers import Helpers
from matchrt.serving.memory import Trimmer
from matchrt.serving.metrics import Metrics
from matchrt.serving.options import ServeOptions
from matchrt.serving.statistics import Spent
from matchrt.serving.wishes import Wishes
from matchrt.serving.workers import EngineWorkers, Rows, Run, rows_of_run
from matchrt.store import EngineStore

T = TypeVar("T")
# The bytes of all bodies in memory at one time, in multiples of the largest body allowed.
_BODIES = 4


@dataclass(frozen=True)
class Job(Generic[T]):
    """What a request wants of an engine.

    inputs: rows to run, `[rows, ...]` by name.
    finish: makes the request's result from the run.
    engine: what runs them; None for the engine that the request was made for.
    """

    inputs: Rows
    finish: Callable[[Run], T]
    engine: ServedEngine | None = None


class ServedEngine:
    """An engine with its workers, and the helpers and decoders that all engines of the service share."""

    def __init__(
        self,
        name: str,
        session: Session,
        options: ServeOptions,
        metrics: Metrics,
        helpers: Helpers,
        decoders: Decoders,
    ) -> None:
        self.name, self.manifest, self.max_pixels = name, session.manifest, options.max_pixels
        self.helpers, self.decoders = helpers, decoders
        self._adapter = PairAdapter(self.manifest, Wishes().options(self.max_pixels))
        self.workers = EngineWorkers(session, options.workers, options.batch_wait, metrics.runs_of(name))

    def warm_up(self) -> None:
        """Runs once on blank images for every number of rows that runs have, so that no first request is slower.

        Errors: size-memory, those of the session.
        """
        contract = self.manifest.input
        inputs = self._adapter.inputs(self._adapter.blank(0), self._adapter.blank(1))
        counts = [contract.batch]
        if contract.any_batch:
            counts = sorted({rows_of_run(rows, contract.batch, True) for rows in range(1, contract.batch + 1)})
        for count in counts:
            self.workers.submit({name: np.repeat(rows, count, axis=0) for name, rows in inputs.items()}).result()

    def adapter(self, options: MatcherOptions | None = None) -> PairAdapter:
        """The adapter that prepares images for the engine and reads its outputs, in any thread.

        The workers run the engine. options: None for the defaults. Raises nothing.
        """
        return self._adapter if options is None else PairAdapter(self.manifest, options)


class Service:
    """All engines of one process.

    A request gets a place or is refused at once. It is decoded and resized in its own thread and a helper's, and the
    engine runs in the workers' threads. Close the service after the last request.
    engines: `NAME=ENGINE` or `ENGINE`, as `read_engine` takes them.
    store: where engines are looked for; None for the default store.
    Errors: serve-name, those of `read_engine` and `open_session`.
    """

    def __init__(self, engines: Iterable[str], options: ServeOptions, store: EngineStore | None = None) -> None:
        self.options, self.metrics = options, Metrics()
        self.engines: dict[str, ServedEngine] = {}
        self._helpers = Helpers(os.cpu_count() or 1)
        self.decoders = Decoders(
            max(2, os.cpu_count() or 1), options.max_pixels, options.decode_seconds, self.metrics.decoder_ended
        )
        try:
            for engine in engines:
                self._open(engine, store)
            self._warm_up()
        except BaseException:
            self._close_engines()
            self.decoders.close()
            self._helpers.close()
            raise
        batch = max(engine.manifest.input.batch for engine in self.engines.values())
        round_ = options.workers * batch
        self.places = round_ + (round_ if options.queue is None else options.queue)
        self.trimmer = Trimmer()
        # For large bodies. Parsers hold the interpreter's lock, so several at a time are no faster, and delay others.
        self.parsing = threading.Lock()
        self._admission = Admission(self.places, _BODIES * options.max_body, self.trimmer.freed)
        self._threads = ThreadPoolExecutor(self.places, thread_name_prefix="matchrt-request")
        self._draining = False
        # Set when requests are taken no more, for whoever waits in the event loop for the next one.
        self.draining = asyncio.Event()
        self.metrics.watch(lambda: self._taken, self.places)

    @property
    def ready(self) -> bool:
        """Whether the service takes requests."""
        return not self._draining

    def engine(self, name: str | None) -> ServedEngine:
        """The engine of that name; None for the only one. Errors: model-not-served, request-invalid."""
        if name is None and len(self.engines) == 1:
            return next(iter(self.engines.values()))
        known = ", ".join(self.engines)
        if name is None:
            raise bad_request("Several engines are served.", f"Name one: {known}.")
        if name not in self.engines:
            raise MatchRTError("model-not-served", f"No engine '{name[:80]}' is served.", f"Served: {known}.")
        return self.engines[name]

    def enter(self) -> Place:
        """A place for a request, before its body is read. Errors: server-busy, server-draining."""
        if self._draining:
            raise draining()
        try:
            return self._admission.enter()
        except MatchRTError:
            self.metrics.refused()
            raise

    def run(
        self, engine: ServedEngine | None, call: Call, prepare: Callable[[], Job[T]], place: Place | None = None
    ) -> asyncio.Future[T]:
        """The result of a request, as a future; cancelling it abandons the request.

        engine: what runs it; None if the job says that.
        prepare: makes the job, in a thread of its own.
        place: what the request has; it is left when the work is done. None to ask for one.
        Errors: server-busy and server-draining at once; later deadline-exceeded, request-abandoned, those of `prepare`
        and of the engine.
        """
        result = asyncio.wrap_future(self._begin(engine, call, prepare, place or self.enter()))
        result.add_done_callback(lambda done: call.abandon() if done.cancelled() else None)
        return result

    async def drain(self) -> None:
        """Takes no more requests, and waits for those under way, but at most `ServeOptions.drain` seconds.

        Images that are still being decoded then fail with server-draining.
        """
        self._draining = True
        self.draining.set()
        end = asyncio.get_running_loop().time() + self.options.drain
        while self._taken and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.01)
        self.decoders.close()

    def close(self) -> None:
        """Ends all threads and frees the engines. Requests that are still under way fail. Raises nothing."""
        self._draining = True
        self.decoders.close()
        self._close_engines()
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._helpers.close()
        self.trimmer.close()

    @property
    def _taken(self) -> int:
        return self._admission.taken

    def _begin(self, engine: ServedEngine | None, call: Call, prepare: Callable[[], Job[T]], place: Place) -> Future[T]:
        def work() -> T:
            call.check()
            job = prepare()
            call.check()
            chosen = job.engine or engine
            assert chosen is not None
            rows, prepared = len(next(iter(job.inputs.values()))), time.perf_counter_ns()
            run = call.wait(chosen.workers.submit(job.inputs))
            ran = time.perf_counter_ns()
            result = job.finish(run)
            if call.statistics is not None:
                end = time.perf_counter_ns()
                infer, queue = round(run.milliseconds * 1e6), max(run.began - prepared, 0)
                spent = Spent(end - call.begun, queue, prepared - call.begun, infer, end - ran)
                call.statistics.succeeded(spent, rows, run.execution)
            return result

        def work_tidily() -> T:
            try:
                return work()
            except BaseException as error:
                if call.statistics is not None:
                    call.statistics.failed(time.perf_counter_ns() - call.begun)
                free_frames(error)
                raise

        # Each admitted request owns one thread. Its place is free again when the work is done, not when somebody stops
        # waiting for it.
        try:
            future = self._threads.submit(work_tidily)
        except RuntimeError as error:
            place.leave()
            # The pool is closed, or the system gives it no thread.
            raise (draining() if self._draining else out_of_memory()) from error
        place.used = True
        future.add_done_callback(lambda _: place.leave())
        return future

    def _open(self, engine: str, store: EngineStore | None) -> None:
        # A file's own path may have the sign in it.
        name, _, path = ("", "", engine) if is_regular(engine) else engine.rpartition("=")
        file = read_engine(path, store, self.options.backend)
        name = name or file.manifest.model
        if name in self.engines or not is_model_name(name):
            raise MatchRTError(
                "serve-name",
                f"'{shortened(name)}' cannot name an engine here: names are unique, of at most 100 letters of ASCII, "
                "digits, '-', '_' and '.'.",
                "Write NAME=ENGINE to give it a name.",
            )
        # Between runs, the threads that answer requests need the cores.
        chosen = SessionOptions(threads=self.options.threads, device=self.options.device, spin=False)
        session = open_session(file, chosen)
        try:
            self.engines[name] = ServedEngine(name, session, self.options, self.metrics, self._helpers, self.decoders)
        except BaseException:
            session.close()
            raise

    def _warm_up(self) -> None:
        for engine in self.engines.values():
            engine.warm_up()

    def _close_engines(self) -> None:
        for engine in self.engines.values():
            engine.workers.close()
