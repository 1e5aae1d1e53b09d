"""Whole calls, one stream, peers and cautions: what is measured, what is left out, and what readers are told."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.serving_stub import SIDE, StubSession, manifest
from support.tiny_engines import tiny_engine

from matchrt import Matcher
from matchrt.bench import peers as peers_module
from matchrt.bench.calls import measure_calls
from matchrt.bench.cautions import CpuTime, cpu_time, machine_cautions, size_cautions
from matchrt.bench.latency import LatencyOptions
from matchrt.bench.machine import this_machine
from matchrt.bench.peers import OURS, measure_peers
from matchrt.bench.report import Results, report_markdown, report_value
from matchrt.bench.stream_rate import measure_stream
from matchrt.bench.throughput import ThroughputOptions
from matchrt.errors import MatchRTError
from matchrt.runtime.engine_file import read_engine
from matchrt.runtime.opening import open_session

FEW = LatencyOptions(runs=2, warm_up=1, pause=0.0)
SMALL = ((SIDE, SIDE), (2 * SIDE, 3 * SIDE))


def test_every_engine_is_called_on_frames_of_every_size_and_time_is_split() -> None:
    advanced: list[int] = []
    with Matcher(StubSession()) as one, Matcher(StubSession()) as two:
        report = measure_calls({"one": one, "two": two}, SMALL, FEW, lambda: advanced.append(1))
    assert [(times.call.engine, times.call.size, times.call.place) for times in report.calls] == [
        (name, size, "host") for name in ("one", "two") for size in SMALL
    ]
    for row in report.to_json()["rows"]:
        parts = row["host_ms"] + row["copies_ms"] + row["engine_ms"]
        assert parts == pytest.approx(row["total_ms"]["p50"], rel=0.01) and row["copies_ms"] == 0
        assert sum(row["shares"].values()) == pytest.approx(1, abs=0.01)
    assert len(advanced) == 3 and not report.skipped


def test_calls_that_cannot_be_made_are_left_out_with_their_reason() -> None:
    session = StubSession()
    session.asynchronous = True  # so frames on the GPU are wanted too, and there is no GPU
    with Matcher(session) as matcher:
        report = measure_calls({"stub": matcher}, SMALL[:1], FEW)
    assert [times.call.place for times in report.calls] == ["host"]
    assert [(entry.call.place, bool(entry.reason)) for entry in report.skipped] == [("gpu", True)]
    session.failure = MatchRTError("out-of-memory", "No memory.", "Buy some.")
    with Matcher(session) as matcher:
        nothing = measure_calls({"stub": matcher}, SMALL[:1], FEW)
    assert not nothing.calls and len(nothing.skipped) == 2
    text = report_markdown(Results(this_machine(), calls=nothing))
    assert "Left out: stub, 64x64 on the host: No memory." in text


def test_one_stream_counts_pairs_and_what_the_engine_did() -> None:
    with Matcher(StubSession()) as matcher:
        rate = measure_stream(matcher, SMALL[1], ThroughputOptions(count=5))
    assert rate.pairs == 5 and 0 <= rate.busy <= 1 and 0 <= rate.waited <= 1
    assert rate.to_json()["pairs_per_second"] == pytest.approx(5 / rate.seconds, rel=0.01)


# ------------------------------------------------------------------------------------------- peers


def test_peers_run_beside_the_engine_and_those_that_cannot_say_why(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(peers_module, "find_spec", lambda name: None)  # as where torch is not installed
    file = read_engine(tiny_engine(tmp_path))
    with ExitStack() as stack:
        session = open_session(file)
        stack.callback(session.close)
        report = measure_peers("tiny", file, session, FEW, stack, threads=1)
    names = [subject.name for subject in report.latency.subjects]
    assert names[0] == OURS and set(names[1:]) | set(report.skipped) == {
        "openvino", "onnxruntime, cuda", "torch eager, cpu", "torch compiled, cpu",
    }  # fmt: skip
    assert report.skipped["torch eager, cpu"] == "torch is not installed."
    assert "CUDAExecutionProvider" in report.skipped["onnxruntime, cuda"]
    document = report_value(Results(this_machine(), peers=(report,)))
    assert document["peers"][0]["engine"] == "tiny" and json.dumps(document)


# ------------------------------------------------------------------------------------------- cautions


def test_a_busy_machine_is_told() -> None:
    machine = replace(this_machine(), load=0.1, cores=4)
    assert machine_cautions(machine) == machine_cautions(replace(machine, load=None), 0.01) == []
    assert "load 3.0 on 4 cores" in machine_cautions(replace(machine, load=3.0))[0]
    assert "12%" in machine_cautions(machine, 0.12)[0]


def test_stolen_time_is_read_from_the_kernel(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    for text, expected in (
        ("cpu  10 0 20 60 0 0 0 10 0 0\ncpu0 1\n", CpuTime(100, 10)),
        ("cpu  10 0 20\n", None),
        ("intr 5\n", None),
        ("", None),
    ):
        stat.write_text(text)
        assert cpu_time(stat) == expected
    assert cpu_time(tmp_path / "missing") is None
    assert CpuTime(300, 60).share_stolen_since(CpuTime(100, 10)) == 0.25
    assert CpuTime(100, 10).share_stolen_since(CpuTime(100, 10)) == 0.0


def test_sizes_that_differ_are_told() -> None:
    fixed = manifest(1)
    other = replace(fixed, input=replace(fixed.input, height=96))
    assert size_cautions({"a": fixed, "b": fixed}, (SIDE, SIDE)) == []
    assert size_cautions({"a": fixed}, None) == []
    assert "a resizes the pair of 480x640 to fit into 64x64" in size_cautions({"a": fixed}, (480, 640))[0]
    assert "a 64x64, b 96x64" in size_cautions({"a": fixed, "b": other}, None)[0]
    dynamic = read_engine("loftr-lite").manifest
    assert size_cautions({"a": dynamic}, (480, 640)) == []


def test_what_is_doubtful_stands_first_in_every_form() -> None:
    results = Results(this_machine(), cautions=("The machine was busy.",))
    assert "**Caution:** The machine was busy." in report_markdown(results)
    assert report_value(results)["cautions"] == ["The machine was busy."]
