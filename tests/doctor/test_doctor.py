"""`matchrt doctor`: every no has a reason and something to do; nothing that it tries can bring it down."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.commands import CommandLine

from matchrt.doctor import ask as asking
from matchrt.doctor import report
from matchrt.doctor.ask import Answer, ask, read_answer
from matchrt.doctor.machine import Gpus, GpuState, read_gpus
from matchrt.doctor.packages import Packages, installed_packages
from matchrt.doctor.probe import MARK
from matchrt.doctor.stored import examine_store
from matchrt.doctor.verdicts import BackendState, Verdict, judge
from matchrt.manifest import Portability
from matchrt.runtime.engine_file import read_engine
from matchrt.store import EngineStore

ALL = ("torch", "onnx", "onnxscript", "onnx-graphsurgeon", "safetensors", "cuda-python", "onnxruntime")
FULL = Packages(dict.fromkeys(ALL, "1"))
MATCHED = Answer({"matches": 40, "providers": ["CPUExecutionProvider"]})
WORKING = {"version": "1.4.0.76", "builder": None, "runtime": None, "refusal": None}
H100 = GpuState("NVIDIA H100", "9.0", 80 << 30, 79 << 30, True)
NO_GPU = Gpus(why_none={"code": "device-missing", "message": "There is no GPU (cudaErrorNoDevice).", "remedy": "Buy."})


def _judge(packages: Packages = FULL, gpus: Gpus = Gpus((H100,)), **answers: Answer) -> dict[str, BackendState]:  # noqa: B008
    return {state.name: state for state in judge(packages, {"matching": MATCHED, **answers}, gpus)}


def test_on_this_machine(cli: CommandLine) -> None:
    ran = cli("doctor", "--json")
    assert ran.code == 0 and ran.json["healthy"]
    backends = {entry["name"]: entry for entry in ran.json["backends"]}
    assert (
        list(backends) == ["onnxruntime", "tensorrt", "tensorrt_rtx", "openvino"]
        and backends["onnxruntime"]["runs"]["works"]
    )
    for entry in backends.values():
        for verdict in (entry["builds"], entry["runs"]):
            assert verdict["works"] or (verdict["why"] and verdict["remedy"])
    assert ran.json["packages"]["numpy"] and "CPUExecutionProvider" in ran.json["providers"]


def test_the_table_has_reasons_and_commands(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "_importable", lambda module: False)
    monkeypatch.setattr(report, "ask", lambda probes: {"matching": MATCHED, "gpus": Answer(error=NO_GPU.why_none)})
    ran = cli("doctor")
    assert ran.code == 0
    assert "  -> pip install 'matchrt[tensorrt]'\n" in ran.out and "pip install 'matchrt[rtx]'" in ran.out
    assert "cudaErrorNoDevice" in ran.out
    crashed = Answer(error={"code": "probe-crashed", "message": "It crashed with SIGILL: x", "remedy": "Again."})
    monkeypatch.setattr(report, "ask", lambda probes: {"matching": crashed, "gpus": crashed})
    ran = cli("doctor")
    assert ran.code == 1 and "no: It crashed with SIGILL" in ran.out


def test_the_parent_imports_nothing_heavy(run_python: Callable[[str], subprocess.CompletedProcess[str]]) -> None:
    heavy = ["torch", "onnx", "onnxruntime", "numpy", "cv2", "jax", "tensorrt", "tensorrt_rtx", "cuda"]
    ran = run_python(
        f"import sys; from matchrt.doctor.report import examine; examine(); "
        f"print([m for m in {heavy!r} if m in sys.modules])"
    )
    assert ran.stdout.strip() == "[]", ran.stderr


# ------------------------------------------------------------------------------------------- probes


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("import os; print('noise'); os._exit(3)", "exit code 3"),
        ("raise ImportError('libnvinfer.so.10: cannot open shared object file')", "libnvinfer.so.10"),
        ("import time; time.sleep(60)", "did not answer"),
    ],
)
def test_a_crash_is_an_answer(monkeypatch: pytest.MonkeyPatch, code: str, expected: str) -> None:
    monkeypatch.setattr(asking, "_CHILD", code)
    answer = ask(["tensorrt"], timeout=5 if "sleep" not in code else 0.2)["tensorrt"]
    assert answer.value is None and answer.error is not None
    assert expected in answer.error["message"] and answer.error["remedy"]


def test_libraries_may_print_around_the_answer() -> None:
    out = f'[TRT] loading\n{MARK}{{"value": {{"version": "10"}}, "error": null}}\nbye\n'
    # It has answered before it crashed: nothing that was asked is unknown.
    assert read_answer(-11, out, "").value == {"version": "10"}


def test_a_probe_that_raises_says_so() -> None:
    answer = ask(["tensorrt"])["tensorrt"]
    if answer.value is None:  # no full TensorRT here
        assert answer.error is not None and answer.error["code"] == "package-missing"


# ----------------------------------------------------------------------------------------- verdicts


def test_everything_there() -> None:
    openvino = Answer({"device": "CPU, openvino 2026.4.1"})
    states = _judge(tensorrt=Answer(WORKING), tensorrt_rtx=Answer(WORKING), openvino=openvino)
    assert all(state.runs.works for state in states.values())
    assert [name for name, state in states.items() if not state.builds.works] == ["openvino"]
    assert "runs the engines of onnxruntime" in states["openvino"].builds.why
    assert "NVIDIA H100" in states["tensorrt_rtx"].runs.why and states["tensorrt"].version == "1.4.0.76"


def test_a_machine_without_a_gpu_builds_rtx_engines_only() -> None:
    states = _judge(gpus=NO_GPU, tensorrt=Answer(WORKING), tensorrt_rtx=Answer(WORKING))
    assert states["tensorrt_rtx"].builds.works and not states["tensorrt"].builds.works
    assert "tensorrt_rtx" in states["tensorrt"].builds.remedy
    assert not states["tensorrt_rtx"].runs.works and "cudaErrorNoDevice" in states["tensorrt_rtx"].runs.why
    assert "--gpus all" in states["tensorrt_rtx"].runs.remedy


def test_a_gpu_that_the_vendor_refuses() -> None:
    states = _judge(tensorrt_rtx=Answer(WORKING | {"refusal": "compute capability 9.0 is not supported"}))
    runs = states["tensorrt_rtx"].runs
    assert not runs.works and "9.0" in runs.why and "NVIDIA H100" in runs.why and states["tensorrt_rtx"].builds.works


@pytest.mark.parametrize(
    ("missing", "backend", "side", "command"),
    [
        ("torch", "onnxruntime", "builds", "pip install 'matchrt[export]'"),
        ("cuda-python", "tensorrt_rtx", "runs", "pip install 'matchrt[rtx]'"),
        ("cuda-python", "tensorrt", "runs", "pip install 'matchrt[tensorrt]'"),
    ],
)
def test_a_missing_package_names_its_extra(missing: str, backend: str, side: str, command: str) -> None:
    packages = Packages({name: None if name == missing else "1" for name in ALL})
    state = _judge(packages, tensorrt=Answer(WORKING), tensorrt_rtx=Answer(WORKING))[backend]
    verdict: Verdict = getattr(state, side)
    assert not verdict.works and missing in verdict.why and verdict.remedy == command


def test_without_the_export_extra_engines_are_made_from_onnx_engines() -> None:
    packages = Packages({name: None if name == "torch" else "1" for name in ALL})
    builds = _judge(packages, tensorrt_rtx=Answer(WORKING))["tensorrt_rtx"].builds
    assert builds.works and "ONNX engines only" in builds.why and "matchrt[export]" in builds.remedy


def test_onnxruntime_on_cuda_is_tried_where_it_is_installed() -> None:
    assert "CUDA" in _judge(**{"onnxruntime-cuda": Answer({})})["onnxruntime"].runs.why
    refused = Answer(error={"code": "device-missing", "message": "No CUDAExecutionProvider.", "remedy": "Install."})
    runs = _judge(**{"onnxruntime-cuda": refused})["onnxruntime"].runs
    assert runs.works and "No CUDAExecutionProvider" in runs.why and runs.remedy == "Install."


def test_an_engine_that_finds_nothing_is_no_yes() -> None:
    assert not judge(FULL, {"matching": Answer({"matches": 0, "providers": []})}, NO_GPU)[0].runs.works


# --------------------------------------------------------------------------------------------- GPUs


BOARD: dict[str, Any] = {
    "index": 0, "name": "NVIDIA L4", "bus": "00000000:01:00.0", "driver": "580.159", "compute_capability": "8.9",
    "memory_total": 24 << 30, "memory_free": 20 << 30,
}  # fmt: skip
CUDA: dict[str, Any] = {
    "index": 0, "name": "NVIDIA L4", "compute_capability": "8.9", "memory": 23 << 30, "driver": "13.0",
    "runtime": "13.1", "bus": "0000:01:00.0", "free": None,
}  # fmt: skip


def test_driver_and_cuda_describe_one_gpu() -> None:
    gpus = read_gpus(Answer({"boards": [BOARD], "cuda": [CUDA], "error": None}))
    assert gpus == Gpus((GpuState("NVIDIA L4", "8.9", 23 << 30, 20 << 30, True),), "580.159", "13.0", "13.1")
    alone = read_gpus(Answer({"boards": [], "cuda": [CUDA | {"free": 5}], "error": None}))
    assert alone.usable[0].memory_free == 5 and alone.driver is None


def test_a_virtual_machine_numbers_the_bus_anew() -> None:
    """As on a lent H100: one GPU, two places."""
    other = BOARD | {"index": 1, "name": "NVIDIA A2", "bus": "00000000:02:00.0"}
    gpus = read_gpus(Answer({"boards": [other, BOARD | {"bus": "00000000:9C:00.0"}], "cuda": [CUDA], "error": None}))
    assert gpus.usable == (GpuState("NVIDIA L4", "8.9", 23 << 30, 20 << 30, True),)
    assert [gpu.name for gpu in gpus.found if not gpu.cuda] == ["NVIDIA A2"]


def test_a_gpu_that_cuda_does_not_see() -> None:
    hidden = read_gpus(Answer({"boards": [BOARD], "cuda": [], "error": None}))
    assert not hidden.usable and hidden.why_none is not None and "CUDA_VISIBLE_DEVICES" in hidden.why_none["remedy"]
    runs = _judge(gpus=hidden, tensorrt_rtx=Answer(WORKING))["tensorrt_rtx"].runs
    assert not runs.works and "580.159" in runs.why and "NVIDIA L4" in runs.why


# -------------------------------------------------------------------------------------------- store


def test_engines_that_do_not_fit_any_more(tmp_path: Path, coarse_engine: Path) -> None:
    store, engine = EngineStore(tmp_path / "store"), read_engine(coarse_engine)
    rtx = replace(
        engine.manifest, backend="tensorrt_rtx", backend_version="1.4.0.76",
        portability=Portability(("8.0",), True, "exact"),
    )  # fmt: skip
    engines = {
        "fits": rtx,
        "older": replace(rtx, backend_version="1.3.0.1"),
        "other-gpu": replace(rtx, portability=Portability(("12.0",), False, "exact")),
        "not-installed": replace(rtx, backend="tensorrt"),
        "onnx": engine.manifest,
    }
    for index, (name, manifest) in enumerate(engines.items()):
        store.put(engine.data, replace(manifest, build_key=f"{index:064d}"[::-1]), f"{name}.engine")
    backends = [BackendState("tensorrt_rtx", "1.4.0.76", Verdict(True), Verdict(True))]
    state = examine_store(store, backends, Gpus((H100,)))
    found = {Path(misfit.path).stem: misfit for misfit in state.misfits}
    assert {name: misfit.code for name, misfit in found.items()} == {
        "older": "engine-version", "other-gpu": "engine-gpu", "not-installed": "package-missing",
    }  # fmt: skip
    assert "matchrt build coarse-loftr" in found["older"].remedy
    assert state.engines == 5 and state.size > 5 * len(engine.data) and state.writable
    # Without a GPU, nobody can say which GPU an engine does not fit.
    assert "other-gpu" not in {Path(m.path).stem for m in examine_store(store, backends, NO_GPU).misfits}


def test_a_store_that_does_not_exist_yet(tmp_path: Path) -> None:
    state = examine_store(EngineStore(tmp_path / "a" / "b"), [], NO_GPU)
    assert (state.engines, state.size, state.writable) == (0, 0, True)
    (tmp_path / "file").write_text("x")
    assert not examine_store(EngineStore(tmp_path / "file" / "b"), [], NO_GPU).writable


def test_packages_that_hold_the_same_files(monkeypatch: pytest.MonkeyPatch) -> None:
    from matchrt.doctor import packages

    versions = {"onnxruntime": "1.20", "onnxruntime-gpu": "1.19"}
    monkeypatch.setattr(packages, "_version", versions.get)
    found = installed_packages()
    assert len(found.warnings) == 1 and "pip uninstall onnxruntime)" in found.warnings[0]
    assert found.missing(("torch", "onnxruntime")) == ("torch",)


def test_the_small_engine_that_is_tried_can_be_built() -> None:
    """Where there is no GPU it is built and then refused by the loader, with the vendor's words."""
    pytest.importorskip("tensorrt_rtx")
    from matchrt.doctor.probe import _has_gpu, _made, _refusal
    from matchrt.nvidia.log import make_log
    from matchrt.nvidia.modules import open_dialect

    dialect = open_dialect("tensorrt_rtx")
    log = make_log(dialect.trt)
    builder, no_builder = _made(lambda: dialect.trt.Builder(log), log)
    runtime, no_runtime = _made(lambda: dialect.trt.Runtime(log), log)
    assert no_builder is no_runtime is None
    refusal = _refusal(dialect, builder, runtime, log)
    if not _has_gpu():
        assert refusal is not None and "cannot build" not in refusal and "CUDA" in refusal


def test_a_library_that_gives_nothing_says_why() -> None:
    from types import SimpleNamespace

    from matchrt.doctor.probe import _made

    def nothing() -> None:
        raise TypeError("factory function returned nullptr")

    told = SimpleNamespace(take_errors=lambda: "CUDA initialization failure with error: 35")
    silent = SimpleNamespace(take_errors=lambda: "no reason given")
    assert _made(nothing, told) == (None, "CUDA initialization failure with error: 35")
    assert _made(nothing, silent) == (None, "factory function returned nullptr")
    assert _made(lambda: None, told)[1] and _made(lambda: 3, told) == (3, None)
