"""The self-test on stubs of CUDA and TensorRT: it runs once, is asked again after any change, and refuses."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import platformdirs
import pytest
from support.machines import KINDS, PROFILE, Machine, make_engine, save_engine
from support.self_tests import with_self_test

from matchrt.errors import MatchRTError
from matchrt.manifest import TensorSpec
from matchrt.nvidia.boards import Board
from matchrt.runtime import onnxruntime as ort
from matchrt.runtime.engine_file import EngineFile, read_engine
from matchrt.runtime.gpu import loaded
from matchrt.runtime.opening import open_named, open_session
from matchrt.runtime.self_test.prove import prove, prove_now
from matchrt.runtime.session import Session, SessionOptions

every_machine = pytest.mark.parametrize("machine", KINDS, indirect=True)
rtx = pytest.mark.parametrize("machine", ["rtx"], indirect=True)


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda *names, **more: str(folder))
    return folder


@pytest.fixture
def engine(machine: Machine, cache: Path) -> EngineFile:
    """A static engine with a self-test; nothing of how it was made is kept."""
    made = with_self_test(make_engine(machine, slots=40))
    for file in cache.rglob("*.bin"):
        file.unlink()
    machine.script.calls.clear()
    return made


def runs(machine: Machine) -> int:
    """How often the kernel was started."""
    return machine.script.names().count("execute_async_v3")


def opened(engine: EngineFile, **options: Any) -> None:
    open_session(engine, SessionOptions(**options)).close()


def refused(engine: EngineFile) -> MatchRTError:
    with pytest.raises(MatchRTError) as caught:
        open_session(engine)
    assert caught.value.code == "engine-self-test" and caught.value.remedy
    return caught.value


@every_machine
def test_it_runs_once(machine: Machine, engine: EngineFile, cache: Path) -> None:
    opened(engine, self_test=False)
    assert runs(machine) == 0
    opened(engine)
    assert runs(machine) == 1 and len(list(cache.glob("self-tests/*.json"))) == 1
    for _ in range(3):
        opened(engine)
    assert runs(machine) == 1 and len(list(cache.glob("self-tests/*.json"))) == 1


@every_machine
def test_engines_without_one_are_opened(machine: Machine, engine: EngineFile) -> None:
    opened(replace(engine, manifest=replace(engine.manifest, self_test=None)))
    assert runs(machine) == 0


@rtx
def test_dynamic_engines_run_it_at_their_best_size(machine: Machine) -> None:
    engine = with_self_test(make_engine(machine, None, slots=40))
    machine.script.calls.clear()
    opened(engine)
    assert {shape for _, shape in machine.script.arguments("set_input_shape")} == {(1, *PROFILE.optimum, 1)}


@every_machine
def test_any_change_asks_again(
    machine: Machine, engine: EngineFile, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    opened(engine)
    asked = runs(machine)

    def expect_another_run() -> None:
        nonlocal asked
        for more in (1, 0):
            opened(engine)
            asked += more
            assert runs(machine) == asked

    monkeypatch.setattr(loaded, "driver_version", lambda: "580.1")
    expect_another_run()
    monkeypatch.setattr(loaded, "driver_version", lambda: "580.2")
    expect_another_run()
    properties = machine.cuda.module.cudaGetDeviceProperties

    def other(index: int) -> Any:
        error, found = properties(index)
        found.name = b"Another GPU"
        return error, found

    monkeypatch.setattr(machine.cuda.module, "cudaGetDeviceProperties", other)
    expect_another_run()
    assert engine.manifest.self_test is not None
    stricter = replace(engine.manifest.self_test, score=0.004)
    engine = replace(engine, manifest=replace(engine.manifest, self_test=stricter))
    expect_another_run()
    manifest = replace(engine.manifest, portability=replace(engine.manifest.portability, version="newer"))
    engine = replace(engine, manifest=manifest)
    monkeypatch.setattr(machine.script.module, "__version__", "99.0.0.1")
    monkeypatch.setenv(loaded.LEAN_RUNTIME, "libnvinfer_lean.so")
    if machine.backend == "tensorrt_rtx":
        expect_another_run()
    if files := list(cache.rglob("*.bin")):
        for file in files:
            file.write_bytes(file.read_bytes() + b" of another compiler")
        expect_another_run()


@every_machine
def test_a_cache_that_cannot_be_used_only_means_asking_again(machine: Machine, engine: EngineFile, cache: Path) -> None:
    for file in cache.rglob("*"):
        assert not file.is_file()
    folder = cache / "self-tests"
    folder.parent.mkdir(exist_ok=True)
    folder.write_text("not a folder")
    for count in (1, 2):
        opened(engine)
        assert runs(machine) == count
    folder.unlink()
    folder.symlink_to(folder)  # looking into it is an error of the system, whoever asks
    opened(engine)
    assert runs(machine) == 3


@every_machine
def test_an_engine_that_computes_wrong_is_refused(machine: Machine, engine: EngineFile, cache: Path) -> None:
    machine.script.wrong_by = 0.3
    error = refused(engine)
    count = engine.manifest.self_test.matches  # type: ignore[union-attr]
    assert f"median distance {0.3 * 2**0.5:.3g} px (limit 0.02)" in error.message and "Stub 0" in error.message
    assert machine.backend in error.message and "fp32 engine of loftr-outdoor" in error.message
    machine.script.wrong_by = 90
    assert f"0.0% of {count} matches within 1 px (limit 97.0%)" in refused(engine).message
    assert not list(cache.glob("self-tests/*.json"))
    assert machine.cuda.held() == 0, "the session is closed"
    machine.script.wrong_by = 0
    opened(engine)


@every_machine
def test_a_run_that_fails_closes_the_session(machine: Machine, engine: EngineFile) -> None:
    machine.script.execute_fails = True
    with pytest.raises(MatchRTError) as caught:
        open_session(engine)
    assert caught.value.code == "session-failed" and machine.cuda.held() == 0


@rtx
def test_stale_kernels_are_dropped_and_compiled_anew_once(
    machine: Machine, engine: EngineFile, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    opened(engine)
    (file,) = cache.rglob("*.bin")
    machine.script.compiler = "after an update, kernels"
    for record in cache.glob("self-tests/*.json"):
        record.unlink()
    machine.script.calls.clear()
    with caplog.at_level(logging.WARNING, "matchrt.runtime"):
        opened(engine)
    assert runs(machine) == 2 and file.read_bytes().startswith(b"after an update, kernels")
    assert sum("kernels of an earlier start; they are dropped" in line for line in caplog.messages) == 1
    opened(engine)
    assert runs(machine) == 2, "the new kernels' verdict is remembered"


@rtx
def test_stale_kernels_that_are_added_to_are_dropped_too(machine: Machine, engine: EngineFile, cache: Path) -> None:
    """A run compiles what the file lacks, so the content changes; it is not this process's own for that."""
    opened(engine)
    (file,) = cache.rglob("*.bin")
    file.write_bytes(b"stale")
    session = open_session(engine, SessionOptions(self_test=False))
    kernels = session._engine._kernels  # type: ignore[attr-defined]
    shapes = {spec.name: tuple(spec.shape) for spec in engine.manifest.inputs}
    store = kernels.open(shapes)
    store._data = b"stale and something new"
    kernels.keep(shapes, store)
    assert file.read_bytes() == b"stale and something new"
    assert session.drop_kept_kernels() and not file.exists() and not session.drop_kept_kernels()
    session.close()


@rtx
def test_what_still_fails_with_new_kernels_is_refused(
    machine: Machine, engine: EngineFile, caplog: pytest.LogCaptureFixture, cache: Path
) -> None:
    opened(engine)
    machine.script.wrong_by = 3
    for record in cache.glob("self-tests/*.json"):
        record.unlink()
    machine.script.calls.clear()
    with caplog.at_level(logging.WARNING, "matchrt.runtime"):
        refused(engine)
    assert runs(machine) == 2 and machine.cuda.held() == 0
    assert sum("they are dropped" in line for line in caplog.messages) == 1


@rtx
def test_kernels_of_this_process_are_not_compiled_again(machine: Machine, engine: EngineFile) -> None:
    machine.script.wrong_by = 3
    refused(engine)
    assert runs(machine) == 1, "compiling again would give the same"


@rtx
def test_asking_again_forgets_what_no_longer_holds(machine: Machine, engine: EngineFile, cache: Path) -> None:
    test = engine.manifest.self_test
    assert test is not None
    session = open_session(engine)
    assert prove(session) is None and runs(machine) == 1
    assert not prove_now(session, test).failures(test) and list(cache.glob("self-tests/*.json"))
    machine.script.wrong_by = 3
    assert prove(session) is None, "it is remembered"
    assert prove_now(session, test).failures(test) and not list(cache.glob("self-tests/*.json"))
    session.close()
    machine.script.wrong_by = 3
    refused(engine)


@every_machine
def test_a_manifest_that_no_engine_has(machine: Machine, engine: EngineFile) -> None:
    plan, odd = engine.manifest, TensorSpec("depth", "uint8", (1, 2))
    session = open_session(engine)
    for manifest in (replace(plan, inputs=(*plan.inputs, odd)),):
        session._manifest = manifest  # type: ignore[attr-defined]
        with pytest.raises(MatchRTError) as caught:
            prove_now(session, plan.self_test)  # type: ignore[arg-type]
        assert caught.value.code == "manifest-invalid" and "depth" in caught.value.message
    session.close()


@every_machine
def test_named_engines_are_tested_too(machine: Machine, engine: EngineFile, tmp_path: Path) -> None:
    path = save_engine(engine, tmp_path)
    machine.script.wrong_by = 3
    with pytest.raises(MatchRTError) as caught:
        open_named(path)
    assert caught.value.code == "engine-self-test"


@pytest.fixture
def bundled() -> Iterator[Session]:
    session = open_session(read_engine("loftr-lite"))
    yield session
    session.close()


def test_on_a_cpu_it_is_not_asked(bundled: Session, cache: Path) -> None:
    assert bundled.circumstances() is None and prove(bundled) is None
    assert not list(cache.rglob("*.json")) and not bundled.drop_kept_kernels()


def test_onnx_runtime_on_a_gpu_depends_on_gpu_and_driver(bundled: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = set()
    for name, driver in (("A", "1.1"), ("A", "1.2"), ("B", "1.2")):
        monkeypatch.setattr(ort, "read_boards", lambda name=name, driver=driver: (Board(0, name, "0:1", driver),))
        session = bundled.fork()
        monkeypatch.setattr(session, "_provider", "CUDAExecutionProvider")
        where = session.circumstances()
        assert where is not None and f"{name}, driver {driver}, CUDAExecutionProvider, onnxruntime" in where
        seen.add(where)
    assert len(seen) == 3
    monkeypatch.setattr(ort, "read_boards", lambda: ())
    assert session.circumstances() == where, "it is asked once"
    monkeypatch.setattr(bundled, "_provider", "CUDAExecutionProvider")
    assert "unknown GPU" in str(bundled.circumstances())
