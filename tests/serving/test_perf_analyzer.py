"""perf_analyzer against a running service: it learns what the models are, measures, and reads where the time went."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.perf_analyzer import analyze, find
from support.serving import Running, running
from support.tiny_engines import tiny_engine
from support.triton_engines import several_pairs

IMAGES = ("--shape", "image0:64,64,1", "--shape", "image1:64,64,1")
# Short windows, and any spread: the test wants a figure, not a good one.
QUICK = ("-p", "400", "-r", "10", "-s", "999")
TIMES = ("Server Queue", "Server Compute Input", "Server Compute Infer", "Server Compute Output")


@pytest.fixture(scope="module")
def program() -> str:
    found, why = find()
    if found is None:
        pytest.skip(why)
    return found


@pytest.fixture(scope="module")
def tiny(program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("tiny")
    engines = f"tiny={tiny_engine(folder)}", f"many={several_pairs(folder, 4, 32)}"
    with running(folder, *engines, "--queue", "8") as service:
        yield service


@pytest.mark.parametrize(
    ("model", "way", "more"),
    [
        ("tiny", "http", IMAGES),
        ("tiny", "grpc", (*IMAGES, "--async")),
        ("tiny", "grpc", (*IMAGES, "--streaming")),
        ("tiny-engine", "http", ()),
        ("tiny-engine", "grpc", ()),
        # Two pairs a request, to an engine of four.
        ("many-engine", "grpc", ("-b", "2")),
    ],
    ids=["http", "grpc", "stream", "engine-http", "engine-grpc", "rows"],
)
def test_it_measures(program: str, tiny: Running, tmp_path: Path, model: str, way: str, more: tuple[str, ...]) -> None:
    port = tiny.http if way == "http" else tiny.grpc
    where = ("-m", model, "-i", way, "-u", f"127.0.0.1:{port}", "--concurrency-range", "2")
    found = analyze(program, tmp_path, *where, *QUICK, *more)
    assert found["Concurrency"] == 2 and found["Inferences/Second"] > 5
    # Without statistics these would be missing, or 0.
    assert found["Server Compute Infer"] > 0 and found["Server Compute Input"] > 0
    assert 0 < sum(found[name] for name in TIMES) < found["p99 latency"]
