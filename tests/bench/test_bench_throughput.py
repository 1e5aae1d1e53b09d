"""Throughput: who runs where, and what is counted. No speed is asserted."""

import threading
import time

import pytest

from matchrt.bench.tables import throughput_notes, throughput_table
from matchrt.bench.throughput import Rate, ThroughputOptions, ThroughputReport, measure_rate, measure_throughput
from matchrt.errors import MatchRTError


class Streams:
    """Calls that remember the threads that made them, and how many were under way at once."""

    def __init__(self, count):
        self.threads = [set() for _ in range(count)]
        self.counts = [0] * count
        self.calls = [self._call(index) for index in range(count)]

    def _call(self, index):
        def call():
            self.threads[index].add(threading.get_ident())
            self.counts[index] += 1
            time.sleep(0.001)

        return call


def test_each_stream_has_its_thread_and_its_call():
    streams = Streams(3)
    rate = measure_rate(streams.calls, ThroughputOptions(count=20, warm_up=2))
    assert (rate.streams, rate.pairs) == (3, 60)
    assert streams.counts == [22, 22, 22]  # the warm-up is run and not counted
    assert all(len(threads) == 1 for threads in streams.threads)
    assert len(set.union(*streams.threads)) == 3
    assert rate.seconds >= 0.02


def test_a_fixed_time():
    streams = Streams(2)
    rate = measure_rate(streams.calls, ThroughputOptions(seconds=0.05, warm_up=0))
    assert rate.seconds >= 0.05 and rate.pairs == sum(streams.counts) > 1


def test_one_to_n_streams_with_engines_in_turn():
    order = []

    def named(name):
        return lambda: order.append(name)

    steps = []
    report = measure_throughput(
        {"a": [named("a0"), named("a1")], "b": [named("b0"), named("b1")]},
        ThroughputOptions(count=1, warm_up=0),
        lambda: steps.append(len(order)),
    )
    assert steps == [1, 2, 4, 6]
    assert order[:2] == ["a0", "b0"] and sorted(order[2:4]) == ["a0", "a1"] and sorted(order[4:]) == ["b0", "b1"]
    assert [rate.streams for rate in report.rates["b"]] == [1, 2]
    document = report.to_json()
    assert document["count"] == 1 and document["engines"]["a"][1]["pairs"] == 2


@pytest.mark.parametrize("failing", [0, 1])
@pytest.mark.parametrize("when", [1, 5])
def test_an_error_in_one_stream_is_raised_and_none_hangs(failing, when):
    calls = 0

    def bad():
        nonlocal calls
        calls += 1
        if calls == when:
            raise MatchRTError("out-of-memory", "x", "y")

    both = [lambda: None, lambda: None]
    both[failing] = bad
    with pytest.raises(MatchRTError):
        measure_rate(both, ThroughputOptions(count=10, warm_up=2))


@pytest.mark.parametrize(
    ("subjects", "options"),
    [({}, ThroughputOptions()), ({"a": []}, ThroughputOptions()), ({"a": [int]}, ThroughputOptions(seconds=0)),
     ({"a": [int]}, ThroughputOptions(count=0))],
)  # fmt: skip
def test_measuring_nothing(subjects, options):
    with pytest.raises(MatchRTError) as caught:
        measure_throughput(subjects, options)
    assert caught.value.code == "bench-runs"


def test_table():
    report = ThroughputReport(ThroughputOptions(), {"a": (Rate(1, 10, 2.0), Rate(2, 30, 2.0))})
    cells = throughput_table(report)
    assert cells.headings == ("engine", "1 stream", "2 streams") and cells.rows == (("a", "5.0", "15.0"),)
    assert "2 s each" in throughput_notes(report)[0]
