"""What Prometheus reads: every figure is of what it is named for."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from matchrt.serving.metrics import Metrics


def figures(metrics: Metrics) -> dict[str, float]:
    """Every sample by its name and, in order, the values of its labels."""
    families = text_string_to_metric_families(metrics.text().decode())
    samples = [sample for family in families for sample in family.samples]
    return {" ".join([s.name, *(s.labels[key] for key in sorted(s.labels))]): s.value for s in samples}


def test_a_run_counts_its_pairs_and_its_seconds() -> None:
    metrics = Metrics()
    seen = metrics.runs_of("a")
    seen(3, 40.0)
    seen(1, 2000.0)
    metrics.runs_of("b")(8, 1.0)
    found = figures(metrics)
    assert found["matchrt_run_pairs_sum a"] == 4 and found["matchrt_run_pairs_count a"] == 2
    assert found["matchrt_run_pairs_sum b"] == 8
    assert (found["matchrt_run_pairs_bucket a 2.0"], found["matchrt_run_pairs_bucket a 4.0"]) == (1, 2)
    assert found["matchrt_run_seconds_sum a"] == pytest.approx(2.04)
    assert (found["matchrt_run_seconds_bucket a 0.05"], found["matchrt_run_seconds_bucket a 2.5"]) == (1, 2)


def test_requests_places_and_refusals() -> None:
    metrics = Metrics()
    metrics.answered("grpc", "ModelInfer", "OK", 0.2)
    metrics.answered("grpc", "ModelInfer", "INTERNAL", 0.3)
    metrics.refused()
    taken = [2.0]
    metrics.watch(lambda: taken[0], 16)
    found = figures(metrics)
    assert found["matchrt_requests_total ModelInfer grpc OK"] == 1
    assert found["matchrt_requests_total ModelInfer grpc INTERNAL"] == 1
    assert found["matchrt_request_seconds_sum ModelInfer grpc"] == pytest.approx(0.5)
    assert found["matchrt_refused_total"] == 1
    assert found["matchrt_places"] == 16 and found["matchrt_places_taken"] == 2
    taken[0] = 5.0
    assert figures(metrics)["matchrt_places_taken"] == 5


def test_two_services_count_apart() -> None:
    first, second = Metrics(), Metrics()
    first.refused()
    assert figures(first)["matchrt_refused_total"] == 1 and figures(second)["matchrt_refused_total"] == 0
