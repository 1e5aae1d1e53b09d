"""Loading an engine: what does not fit is refused, with the field that differs and the command that helps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import pytest
from support.machines import KINDS, Machine, make_engine, make_machine, save_engine, with_plan

from matchrt.errors import MatchRTError
from matchrt.manifest import Portability
from matchrt.runtime.engine_file import EngineFile, read_engine
from matchrt.runtime.gpu import kernels
from matchrt.runtime.gpu.loaded import LoadedEngine
from matchrt.runtime.opening import open_session
from matchrt.runtime.session import SessionOptions

every_machine = pytest.mark.parametrize("machine", KINDS, indirect=True)
UNSUPPORTED_GPU = 2  # the stub's bit
COMMAND = "matchrt build loftr-outdoor --backend {backend} --precision fp32 --height 32 --width 48"


@pytest.fixture(autouse=True)
def kernel_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No test touches the user's compiled kernels."""
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda *names, **more: str(tmp_path / "cache"))
    return tmp_path / "cache" / "kernels"


def refused(machine: Machine, engine: EngineFile, code: str) -> MatchRTError:
    with pytest.raises(MatchRTError) as caught:
        open_session(engine)
    assert caught.value.code == code, caught.value
    return caught.value


def loaded(machine: Machine) -> bool:
    return "deserialize_cuda_engine" in machine.script.names()


def fitted(engine: EngineFile, **manifest: Any) -> EngineFile:
    return replace(engine, manifest=replace(engine.manifest, **manifest))


@every_machine
def test_another_version(machine: Machine) -> None:
    engine = fitted(make_engine(machine), backend_version="10.0.0.1")
    machine.script.calls.clear()
    error = refused(machine, engine, "engine-version")
    assert "backend_version is 10.0.0.1" in error.message and machine.version in error.message
    assert COMMAND.format(backend=machine.backend) in error.remedy
    assert machine.script.calls == [] and "cudaGetDevice" not in machine.cuda.calls[-1:]


def test_the_command_repeats_what_the_engine_is(machine: Machine) -> None:
    engine = fitted(make_engine(machine), backend_version="10.0.0.1", options={"tf32": "True", "workspace": "1"})
    engine = fitted(engine, input=replace(engine.manifest.input, batch=4))
    assert "--height 32 --width 48 --batch 4 --tf32 --checkpoint" in refused(machine, engine, "engine-version").remedy


@pytest.mark.parametrize(
    ("built", "here", "fits"),
    [("10.9.0.34", "10.9.0.34", True), ("10.8.0.43", "10.9.0.34", True), ("10.9.0.34", "11.4.0.106", True),
     ("10.10.0.31", "10.9.0.34", False), ("11.0.0.114", "10.16.1.11", False)],
)  # fmt: skip
def test_engines_that_later_versions_run(monkeypatch: pytest.MonkeyPatch, built: str, here: str, fits: bool) -> None:
    machine = make_machine(monkeypatch, "tensorrt-10", here)
    portability = Portability(("8.9",), False, "newer")
    engine = fitted(make_engine(machine), backend_version=built, portability=portability)
    if fits and built != here:
        # Only with NVIDIA's lean runtime of the version that built it.
        error = refused(machine, engine, "engine-version")
        assert "MATCHRT_TENSORRT_LEAN" in error.remedy and "matchrt build" in error.remedy
        monkeypatch.setenv("MATCHRT_TENSORRT_LEAN", "libnvinfer_lean.so.10")
    if fits:
        open_session(engine).close()
    else:
        assert "or a later one" in refused(machine, engine, "engine-version").message


@pytest.mark.parametrize(
    ("listed", "newer", "here", "fits"),
    [(("8.9",), False, (8, 9), True), (("8.9",), False, (9, 0), False), (("8.9",), False, (8, 6), False),
     (("8.0",), True, (12, 0), True), (("8.0",), True, (7, 5), False), (("8.0", "12.0"), False, (12, 0), True),
     (("8.9", "12.0"), True, (10, 0), True), ((), False, (5, 0), True)],
)  # fmt: skip
def test_another_gpu(machine: Machine, listed: tuple[str, ...], newer: bool, here: tuple[int, int], fits: bool) -> None:
    engine = fitted(make_engine(machine), portability=Portability(listed, newer, "exact"))
    machine.cuda.capability = here
    machine.script.calls.clear()
    if fits:
        open_session(engine).close()
        return
    error = refused(machine, engine, "engine-gpu")
    assert f"compute_capabilities are {', '.join(listed)}" in error.message
    assert f"has {here[0]}.{here[1]}" in error.message and "--backend tensorrt_rtx" in error.remedy
    assert machine.script.calls == []


def test_the_vendors_own_check_comes_before_loading(machine: Machine) -> None:
    engine = make_engine(machine)
    machine.script.validity = ("INVALID", 1 | UNSUPPORTED_GPU)
    error = refused(machine, engine, "engine-refused")
    assert "version mismatch" in error.message and "Stub 0" in error.message and not loaded(machine)
    assert (
        COMMAND.format(backend="tensorrt_rtx") in error.remedy and "--backend tensorrt or onnxruntime" in error.remedy
    )
    machine.script.validity = ("INVALID", 1 | 4)
    assert "version mismatch, old cuda driver" in _sorted_reasons(refused(machine, engine, "engine-refused").message)
    machine.script.validity = ("INVALID", 0)
    assert "no reason given" in refused(machine, engine, "engine-refused").message
    machine.script.validity = ("SUBOPTIMAL", 0)
    open_session(engine).close()


def test_a_gpu_that_the_check_does_not_list_is_left_to_the_loader(machine: Machine) -> None:
    """TensorRT-RTX 1.4 runs on an H100 what its check calls unsupported; 1.7 refuses to load it."""
    engine = make_engine(machine)
    machine.script.validity = ("INVALID", UNSUPPORTED_GPU)
    open_session(engine).close()
    machine.script.deserialize_fails = True
    error = refused(machine, engine, "engine-rejected")
    assert "magic tag" in error.message and "--backend tensorrt or onnxruntime" in error.remedy
    assert "No engine of this version runs on this GPU" in error.remedy and "matchrt build" not in error.remedy


def _sorted_reasons(message: str) -> str:
    reasons = message.split("loading: ")[1].rstrip(".").split(", ")
    return ", ".join(sorted(reasons, reverse=True))


@every_machine
def test_bytes_that_tensorrt_does_not_load(machine: Machine) -> None:
    engine = make_engine(machine)
    machine.script.deserialize_fails = True
    error = refused(machine, engine, "engine-rejected")
    assert "magic tag does not match" in error.message and "outdoor.engine" in error.message
    assert COMMAND.format(backend=machine.backend) in error.remedy
    machine.script.no_runtime = True
    assert "error: 999" in refused(machine, engine, "engine-rejected").message


@every_machine
def test_host_code_stays_disallowed(machine: Machine) -> None:
    open_session(make_engine(machine)).close()
    names = machine.script.names()
    assert machine.script.arguments("engine_host_code_allowed") == [(False,)]
    assert names.index("engine_host_code_allowed") < names.index("deserialize_cuda_engine")


@every_machine
def test_an_engine_with_other_tensors_than_its_manifest(machine: Machine) -> None:
    engine = with_plan(make_engine(machine), outputs=[["warp", "FLOAT", [1, 32, 48, 2]]])
    error = refused(machine, engine, "engine-graph")
    assert "warp" in error.message and "keypoints0" in error.message and "matchrt build" in error.remedy


@every_machine
def test_damaged_files_never_reach_tensorrt(machine: Machine, tmp_path: Path) -> None:
    path = save_engine(make_engine(machine), tmp_path)
    machine.script.calls.clear()
    data = path.read_bytes()
    for damaged in (data[:-1], bytes([data[0] ^ 1]) + data[1:], b""):
        path.write_bytes(damaged)
        with pytest.raises(MatchRTError) as caught:
            open_session(read_engine(path))
        assert caught.value.code == "engine-digest" and "matchrt build" in caught.value.remedy
    assert machine.script.calls == []


@every_machine
def test_no_gpu(machine: Machine) -> None:
    engine = make_engine(machine)
    machine.cuda.gpus = 0
    machine.script.calls.clear()
    assert "onnxruntime" in refused(machine, engine, "device-missing").remedy
    assert machine.script.calls == []


@every_machine
def test_engines_for_gpus_do_not_run_on_the_cpu(machine: Machine) -> None:
    with pytest.raises(MatchRTError) as caught:
        open_session(make_engine(machine), SessionOptions(device="cpu"))
    assert caught.value.code == "device-backend"


def test_the_command_names_what_was_built(machine: Machine) -> None:
    engine = make_engine(machine, None)
    machine.cuda.capability = (7, 5)
    remedy = refused(machine, engine, "engine-gpu").remedy
    assert "--dynamic 32x32,48x64,128x128" in remedy and "--checkpoint outdoor_ds.ckpt" in remedy


def test_how_rtx_contexts_are_made(machine: Machine) -> None:
    session = open_session(make_engine(machine))
    session.run(zeros(session))
    script, trt = machine.script, machine.script.module
    assert script.arguments("cuda_graph_strategy") == [(trt.CudaGraphStrategy.DISABLED,)]
    eager = trt.DynamicShapesKernelSpecializationStrategy.EAGER
    assert script.arguments("dynamic_shapes_kernel_specialization_strategy") == [(eager,)]
    assert len(script.arguments("set_runtime_cache")) == 1
    session.close()


def zeros(session: Any) -> dict[str, Any]:
    return {spec.name: np.ones(spec.shape, spec.dtype) for spec in session.manifest.inputs}


def test_compiled_kernels_are_kept_for_the_next_start(
    machine: Machine, kernel_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = make_engine(machine)
    session = open_session(engine)
    assert not kernel_folder.exists() and machine.script.kernels_known == []
    session.run(zeros(session))
    (file,) = kernel_folder.rglob("*.bin")
    compiled = file.read_bytes()
    assert compiled.startswith(b"kernels of ")
    assert caplog.text.count("compiles kernels") == 1
    written = file.stat().st_mtime_ns
    session.run(zeros(session))
    session.close()
    assert file.stat().st_mtime_ns == written
    again = open_session(engine)
    again.run(zeros(again))
    assert machine.script.kernels_known == [compiled]
    assert caplog.text.count("compiles kernels") == 1
    again.close()
    assert list(kernel_folder.rglob("*.bin")) == [file]


def test_kernels_are_not_kept_when_nobody_wants_them(machine: Machine, kernel_folder: Path) -> None:
    session = open_session(make_engine(machine), SessionOptions(keep_kernels=False))
    session.run(zeros(session))
    session.close()
    assert not kernel_folder.exists()


def test_kernels_of_another_gpu_driver_or_engine_are_not_taken(
    machine: Machine, kernel_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(machine)

    def run(file: EngineFile) -> None:
        session = open_session(file)
        session.run(zeros(session))
        session.close()

    run(engine)
    machine.cuda.capability = (12, 0)
    run(engine)
    monkeypatch.setattr(machine.cuda.module, "cudaDriverGetVersion", lambda: (0, 13010))
    run(engine)
    run(with_plan(engine, note="another engine"))
    assert machine.script.kernels_known == [] and len(list(kernel_folder.rglob("*.bin"))) == 4


def images(height: int, width: int) -> dict[str, np.ndarray]:
    return {name: np.ones((1, height, width, 1), np.uint8) for name in ("image0", "image1")}


def test_a_context_gets_the_kernels_of_its_own_shapes(machine: Machine, kernel_folder: Path) -> None:
    """Not those of others: with them a second context of a shape would give other bits than the first."""
    session = open_session(make_engine(machine, None))
    for size in ((32, 64), (64, 32)):
        session.run(images(*size))
    assert machine.script.kernels_known == []
    first, second = sorted(kernel_folder.rglob("*.bin"), key=lambda file: file.stat().st_mtime_ns)
    fork = session.fork()
    fork.run(images(64, 32))
    session.run(images(128, 128))  # more memory: every shape gets a new context
    session.run(images(32, 64))
    assert first.read_bytes() != second.read_bytes()
    assert machine.script.kernels_known == [second.read_bytes(), first.read_bytes()]
    fork.close()
    session.close()


def test_only_so_many_kernels_are_kept(machine: Machine, kernel_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "MAX_FILES", 2)
    session = open_session(make_engine(machine, None))
    for width in (32, 48, 64, 80):
        session.run(images(32, width))
    session.close()
    assert len(list(kernel_folder.rglob("*.bin"))) == 2


def test_kernels_that_cannot_be_kept_do_no_harm(
    machine: Machine, kernel_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kernel_folder.parent.write_text("a file where the folder should be")
    session = open_session(make_engine(machine))
    assert "num_matches" in session.run(zeros(session))
    assert "not kept" in caplog.text
    session.close()


@pytest.mark.parametrize("machine", ["tensorrt-10", "tensorrt-11"], indirect=True)
def test_full_tensorrt_keeps_no_kernels(machine: Machine, kernel_folder: Path) -> None:
    session = open_session(make_engine(machine))
    session.run(zeros(session))
    session.close()
    assert not kernel_folder.exists()


def test_loading_twice_is_two_engines_forking_is_one(machine: Machine) -> None:
    first = open_session(make_engine(machine))
    second = first.fork()
    assert machine.script.names().count("deserialize_cuda_engine") == 1
    first.close()
    assert second.run(zeros(second))["num_matches"][0] > 0
    second.close()


def test_the_log_is_told_once(machine: Machine) -> None:
    engine = LoadedEngine(make_engine(machine))
    machine.script.complain("one")
    machine.script.complain("one")
    machine.script.complain("two")
    assert engine.why() == "one; two" and engine.why() == "no reason given"
