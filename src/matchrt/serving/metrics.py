"""The metrics that Prometheus reads. Each service has its own registry; nothing is global."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The counters of one service. No method raises an error."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "matchrt_requests", "Requests answered.", ("protocol", "endpoint", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "matchrt_request_seconds", "From the request's head to its answer.", ("protocol", "endpoint"),
            buckets=_SECONDS, registry=self._registry,
        )  # fmt: skip
        self._refused = Counter("matchrt_refused", "Requests refused because all places were taken.",
                                registry=self._registry)  # fmt: skip
        self._run_seconds = Histogram(
            "matchrt_run_seconds", "One run of the engine.", ("engine",), buckets=_SECONDS, registry=self._registry
        )
        self._rows = Histogram(
            "matchrt_run_pairs", "Pairs in one run of the engine.", ("engine",), buckets=_ROWS, registry=self._registry
        )
        self._ended = Counter(
            "matchrt_decoders_ended", "Decoding processes that an image, or a deadline, ended.", registry=self._registry
        )
        self._taken = Gauge("matchrt_places_taken", "Requests that run or wait.", registry=self._registry)
        self._places = Gauge("matchrt_places", "Requests that may run or wait.", registry=self._registry)

    def watch(self, taken: Callable[[], float], places: int) -> None:
        """Sets what the gauges of the requests' places show.

        taken: called for the number of places taken, whenever somebody reads the metrics.
        places: the number of all places.
        """
        self._taken.set_function(taken)
        self._places.set(places)

    def answered(self, protocol: str, endpoint: str, status: str, seconds: float) -> None:
        """Counts an answered request, which took `seconds`."""
        self._requests.labels(protocol, endpoint, status).inc()
        self._seconds.labels(protocol, endpoint).observe(seconds)

    def refused(self) -> None:
        """Counts a request that found no free place."""
        self._refused.inc()

    def decoder_ended(self) -> None:
        """Counts a decoding process that ended because of an image, or because of the request's deadline."""
        self._ended.inc()

    def runs_of(self, engine: str) -> Callable[[int, float], None]:
        """A function that counts runs of an engine: it takes the number of pairs, and the milliseconds of a run."""
        seconds, rows = self._run_seconds.labels(engine), self._rows.labels(engine)

        def seen(pairs: int, milliseconds: float) -> None:
            seconds.observe(milliseconds / 1e3)
            rows.observe(pairs)

        return seen

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)
