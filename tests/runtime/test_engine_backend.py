"""One name, engines for several backends: which one is meant, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support.commands import CommandLine

from matchrt import Matcher, MatcherOptions, MatchRTError
from matchrt.manifest import Portability
from matchrt.runtime.engine_file import engine_path, read_engine
from matchrt.store import EngineStore


@pytest.fixture
def store(tmp_path: Path, coarse_engine: Path) -> EngineStore:
    """The same engine as of two backends; and one called as the bundled model is."""
    store, engine = EngineStore(tmp_path / "store"), read_engine(coarse_engine)
    other = replace(engine.manifest, backend="tensorrt_rtx", portability=Portability(("8.0",), True, "exact"))
    store.put(engine.data, engine.manifest, "a.onnx")
    store.put(engine.data, replace(other, build_key="e" * 64), "b.engine")
    store.put(engine.data, replace(other, model="loftr-lite", build_key="f" * 64), "c.engine")
    return store


def test_the_backend_decides_between_engines_of_one_name(store: EngineStore) -> None:
    assert engine_path("coarse-loftr", store, "onnxruntime").name == "a.onnx"
    assert engine_path("coarse-loftr", store, "tensorrt_rtx").name == "b.engine"
    with pytest.raises(MatchRTError) as caught:
        engine_path("coarse-loftr", store)
    assert caught.value.code == "engine-ambiguous" and "--backend" in caught.value.remedy


def test_a_bundled_name_of_another_backend_is_looked_up_in_the_store(store: EngineStore, tmp_path: Path) -> None:
    assert engine_path("loftr-lite", store) == engine_path("loftr-lite", store, "onnxruntime")
    assert engine_path("loftr-lite", store, "tensorrt_rtx").name == "c.engine"
    for empty, backend in ((EngineStore(tmp_path / "none"), "tensorrt_rtx"), (store, "tensorrt")):
        with pytest.raises(MatchRTError) as caught:
            engine_path("loftr-lite", empty, backend)
        assert caught.value.code == "engine-missing"
        assert f"matchrt build loftr-lite --backend {backend}" in caught.value.remedy


def test_a_file_of_another_backend_is_refused_with_both_names(store: EngineStore, coarse_engine: Path) -> None:
    for engine, wanted in ((coarse_engine, "tensorrt"), (engine_path("loftr-lite", store, "tensorrt_rtx"), "tensorrt")):
        with pytest.raises(MatchRTError) as caught:
            Matcher(engine, MatcherOptions(backend=wanted))
        assert caught.value.code == "engine-backend"
        assert wanted in caught.value.message and read_engine(engine).manifest.backend in caught.value.message
    with Matcher(coarse_engine, MatcherOptions(backend="onnxruntime")) as matcher:
        assert matcher.session.launch_mode() == "call"


def test_an_unknown_backend(cli: CommandLine, coarse_engine: Path) -> None:
    with pytest.raises(MatchRTError) as caught:
        MatcherOptions(backend="no-backend")
    assert caught.value.code == "backend-unknown" and "tensorrt_rtx" in caught.value.remedy
    cli.fails("backend-unknown", "match", "a.jpg", "b.jpg", "--backend", "no-backend")
    cli.fails("engine-backend", "match", "a.jpg", "b.jpg", "--engine", coarse_engine, "--backend", "tensorrt")


def test_cuda_graphs_can_be_switched_off(coarse_engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import matchrt.runtime.opening as module

    seen = []
    real = module.open_session
    monkeypatch.setattr(module, "open_session", lambda file, options: (seen.append(options), real(file, options))[1])
    Matcher(coarse_engine, MatcherOptions(cuda_graph=False)).close()
    Matcher(coarse_engine).close()
    assert [options.cuda_graph for options in seen] == [False, True]
