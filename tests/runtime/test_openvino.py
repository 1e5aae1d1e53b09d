"""OpenVINO runs ONNX Runtime's engines, and finds the same matches."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.commands import CommandLine
from support.pictures import shifted_pair

from matchrt.errors import MatchRTError
from matchrt.runtime.engine_file import EngineFile, read_engine
from matchrt.runtime.matcher import Matcher
from matchrt.runtime.opening import open_session
from matchrt.runtime.options import MatcherOptions
from matchrt.runtime.session import Session, SessionOptions

pytest.importorskip("openvino", reason="the extra `openvino` is not installed")
PAIR = shifted_pair(120, 160, (16, 8))


@pytest.fixture(scope="module")
def engine() -> EngineFile:
    return read_engine("loftr-lite", backend="openvino")


@pytest.fixture
def session(engine: EngineFile) -> Session:
    return open_session(engine, SessionOptions(threads=1))


def inputs(size: tuple[int, int] = (64, 96)) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {f"image{index}": rng.integers(0, 256, (1, *size, 1), dtype=np.uint8) for index in (0, 1)}


def test_the_matches_are_those_of_onnx_runtime() -> None:
    with Matcher("loftr-lite") as plain, Matcher("loftr-lite", MatcherOptions(backend="openvino")) as other:
        expected, found = plain.match(*PAIR), other.match(*PAIR)
    assert found.provenance is not None and found.provenance.backend == "openvino"
    assert abs(len(found) - len(expected)) <= 1 and len(expected) > 100
    ours = {tuple(point): place for place, point in enumerate(found.keypoints0)}
    places = [(ours[tuple(point)], place) for place, point in enumerate(expected.keypoints0) if tuple(point) in ours]
    assert len(places) >= len(expected) - 1
    mine, theirs = np.array(places).T
    assert np.abs(found.keypoints1[mine] - expected.keypoints1[theirs]).max() < 1e-2
    assert np.abs(found.scores[mine] - expected.scores[theirs]).max() < 1e-3


def test_sizes_alternate_and_results_are_not_overwritten(session: Session) -> None:
    first = session.run(inputs())
    kept = {name: array.copy() for name, array in first.items()}
    session.run(inputs((96, 64)))
    assert all(np.array_equal(first[name], kept[name]) for name in kept)
    again = session.run(inputs())
    assert all(np.array_equal(again[name], kept[name]) for name in kept)
    assert "openvino" in session.device() and session.circumstances() is None


def test_forks_run_in_threads_of_their_own(session: Session) -> None:
    expected = session.run(inputs())
    forks = [session.fork() for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(lambda fork: [fork.run(inputs()) for _ in range(3)], forks))
    for result in (one for several in results for one in several):
        assert all(np.array_equal(result[name], expected[name]) for name in expected)


def test_bad_inputs_and_closed_sessions_are_named(session: Session) -> None:
    def fails(code: str, size: tuple[int, int]) -> None:
        with pytest.raises(MatchRTError) as caught:
            session.run(inputs(size))
        assert caught.value.code == code

    fails("session-input", (63, 96))
    session.close()
    session.close()
    fails("session-closed", (64, 96))
    with pytest.raises(MatchRTError, match="closed"):
        session.fork()


def test_bytes_that_are_no_graph_are_refused(engine: EngineFile) -> None:
    for data in (b"", b"no graph", engine.data[: len(engine.data) // 2]):
        with pytest.raises(MatchRTError) as caught:
            open_session(replace(engine, data=data))
        assert caught.value.code == "engine-rejected" and "Traceback" not in str(caught.value)


def test_tensors_that_are_not_the_manifests_are_refused(engine: EngineFile) -> None:
    outputs = (replace(engine.manifest.outputs[0], name="other"), *engine.manifest.outputs[1:])
    with pytest.raises(MatchRTError) as caught:
        open_session(replace(engine, manifest=replace(engine.manifest, outputs=outputs)))
    assert caught.value.code == "engine-graph"


def test_a_missing_package_is_named(engine: EngineFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.delitem(sys.modules, "matchrt.runtime.openvino", raising=False)
    with pytest.raises(MatchRTError) as caught:
        open_session(engine)
    assert caught.value.code == "package-missing" and "matchrt[openvino]" in str(caught.value)


def test_the_commands_take_it(cli: CommandLine, tmp_path: Path) -> None:
    images = [tmp_path / f"{index}.png" for index in (0, 1)]
    for path, pixels in zip(images, PAIR, strict=True):
        cv2.imwrite(str(path), pixels)
    matched = cli("match", *images, "--backend", "openvino", "--json")
    assert matched.code == 0 and matched.json["matches"] > 100, matched.err
    assert matched.json["provenance"]["backend"] == "openvino"
    refused = cli.fails("backend-unknown", "build", "loftr-lite", "--backend", "openvino")
    assert "it runs those of onnxruntime" in refused.err and "match with --backend openvino" in refused.err
    cli.fails("device-backend", "match", *images, "--backend", "openvino", "--device", "cuda")
    states = {state["name"]: state for state in cli("doctor", "--json").json["backends"]}
    assert states["openvino"]["runs"]["works"] and not states["openvino"]["builds"]["works"]
