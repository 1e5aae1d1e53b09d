"""What the builder tells TensorRT 10, 11 and RTX, in which order, and what it makes of their failures."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.commands import CommandLine
from support.cuda_stub import CudaStub
from support.machines import (
    KINDS,
    PROFILE,
    Machine,
    graph_facts,
    install_cuda,
    make_engine,
    make_machine,
    matcher_graph,
)

from matchrt.building.pipeline import BuildRequest, build
from matchrt.engines.build import build_engine
from matchrt.errors import InternalError, MatchRTError
from matchrt.manifest import Portability
from matchrt.nvidia.dialect import BuilderOptions
from matchrt.runtime.backend import building_backends, get_backend
from matchrt.runtime.engine_file import engine_path
from matchrt.store import EngineStore

every_machine = pytest.mark.parametrize("machine", KINDS, indirect=True)
full_tensorrt = pytest.mark.parametrize("machine", ["tensorrt-10", "tensorrt-11"], indirect=True)


def build_with(machine: Machine, **options: Any) -> None:
    make_engine(machine, options=BuilderOptions(**options))


def fails(machine: Machine, code: str, **options: Any) -> MatchRTError:
    with pytest.raises(MatchRTError) as caught:
        build_with(machine, **options)
    assert caught.value.code == code
    return caught.value


@every_machine
def test_order_of_calls(machine: Machine) -> None:
    make_engine(machine, None)
    names = machine.script.names()
    order = ["Builder", "create_network", "parse", "create_builder_config", "profiling_verbosity",
             "create_optimization_profile", "set_shape", "set_shape", "add_optimization_profile", "progress_monitor",
             "build_serialized_network"]  # fmt: skip
    assert [name for name in names if name in order] == order
    assert names[-1] == "build_serialized_network"


@every_machine
def test_networks_are_strongly_typed(machine: Machine) -> None:
    build_with(machine)
    strongly_typed = 1 << 1  # as TensorRT 10 numbers its flags
    wanted = strongly_typed if machine.version.startswith("10.") else 0
    assert machine.script.arguments("create_network") == [(wanted,)]


@every_machine
def test_defaults(machine: Machine) -> None:
    """Full float32, layer names for inspect, and nothing else that TensorRT would decide by itself."""
    build_with(machine)
    script, trt = machine.script, machine.script.module
    assert script.arguments("clear_flag") == [(trt.BuilderFlag.TF32,)]
    assert script.arguments("profiling_verbosity") == [(trt.ProfilingVerbosity.DETAILED,)]
    assert script.arguments("set_flag") == []
    untouched = {"set_memory_pool_limit", "builder_optimization_level", "hardware_compatibility_level",
                 "num_compute_capabilities", "set_compute_capability", "set_timing_cache",
                 "add_optimization_profile"}  # fmt: skip
    assert not untouched & set(script.names())


@every_machine
def test_options_that_all_have(machine: Machine) -> None:
    engine = make_engine(machine, options=BuilderOptions(workspace=2**28, optimization_level=4, tf32=True))
    script, trt = machine.script, machine.script.module
    assert script.arguments("set_memory_pool_limit") == [(trt.MemoryPoolType.WORKSPACE, 2**28)]
    assert script.arguments("builder_optimization_level") == [(4,)]
    assert script.arguments("set_flag")[0] == (trt.BuilderFlag.TF32,) and not script.arguments("clear_flag")
    assert engine.manifest.options == {"workspace": str(2**28), "optimization_level": "4", "tf32": "True"}


@every_machine
def test_profiles_of_dynamic_engines(machine: Machine) -> None:
    engine = make_engine(machine, None)
    shapes = [(1, *size, 1) for size in (PROFILE.minimum, PROFILE.optimum, PROFILE.maximum)]
    assert machine.script.arguments("set_shape") == [("image0", *shapes), ("image1", *shapes)]
    assert [spec.shape for spec in engine.manifest.inputs] == [(1, "height0", "width0", 1), (1, "height1", "width1", 1)]
    assert [spec.dtype for spec in engine.manifest.outputs] == ["float32", "float32", "float32", "int32"]


@every_machine
def test_what_the_manifest_says(machine: Machine) -> None:
    manifest = make_engine(machine).manifest
    assert (manifest.backend, manifest.backend_version) == (machine.backend, machine.version)
    assert [(s.name, s.dtype, s.shape) for s in manifest.inputs[::2]] == [
        ("image0", "uint8", (1, 32, 48, 1)), ("size0", "int32", (1, 2))
    ]  # fmt: skip
    rtx = machine.backend == "tensorrt_rtx"
    wanted = Portability(("8.0",), True, "exact") if rtx else Portability(("8.9",), False, "exact")
    assert manifest.portability == wanted


@full_tensorrt
@pytest.mark.parametrize(
    ("level", "member", "wanted"),
    [("ampere-plus", "AMPERE_PLUS", Portability(("8.0",), True, "exact")),
     ("same-compute-capability", "SAME_COMPUTE_CAPABILITY", Portability(("8.9",), False, "exact"))],
)  # fmt: skip
def test_hardware_compatibility(machine: Machine, level: Any, member: str, wanted: Portability) -> None:
    engine = make_engine(machine, options=BuilderOptions(hardware=level))
    levels = machine.script.module.HardwareCompatibilityLevel
    assert machine.script.arguments("hardware_compatibility_level") == [(levels[member],)]
    assert engine.manifest.portability == wanted


def test_a_level_that_came_later(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = make_machine(monkeypatch, "tensorrt-10", "10.3.0")
    error = fails(machine, "build-option", hardware="same-compute-capability")
    assert "10.3.0" in error.message and "10.9" in error.remedy and machine.script.calls == []
    build_with(machine, hardware="ampere-plus")


@full_tensorrt
def test_version_compatibility(machine: Machine) -> None:
    """Without the runtime that it would carry as host code, which sessions do not allow."""
    engine = make_engine(machine, options=BuilderOptions(version_compatible=True))
    flags = machine.script.module.BuilderFlag
    assert machine.script.arguments("set_flag") == [(flags.VERSION_COMPATIBLE,), (flags.EXCLUDE_LEAN_RUNTIME,)]
    assert engine.manifest.portability.version == "newer"


def test_targets_of_rtx(machine: Machine) -> None:
    engine = make_engine(machine, options=BuilderOptions(targets=("8.0", "8.9", "12.0")))
    script, kinds = machine.script, machine.script.module.ComputeCapability
    assert script.arguments("num_compute_capabilities") == [(3,)]
    assert script.arguments("set_compute_capability") == [(kinds.SM80, 0), (kinds.SM89, 1), (kinds.SM120, 2)]
    assert engine.manifest.portability == Portability(("8.0", "8.9", "12.0"), True, "exact")
    assert engine.manifest.options == {"targets": "8.0, 8.9, 12.0"}


def test_targets_that_rtx_refuses(machine: Machine) -> None:
    assert "sm120" in fails(machine, "build-option", targets=("9.0",)).remedy
    assert "twice" in fails(machine, "build-option", targets=("8.9", "8.9")).message
    assert machine.script.calls == []
    machine.script.targets_refused = True
    assert "8.9" in fails(machine, "build-option", targets=("8.9",)).message


@pytest.mark.parametrize(
    ("kind", "options", "named"),
    [
        ("tensorrt-10", {"targets": ("8.9",)}, "--target"),
        ("tensorrt-11", {"targets": ("8.9",)}, "--target"),
        ("rtx", {"hardware": "ampere-plus"}, "--hardware-compatible"),
        ("rtx", {"version_compatible": True}, "--version-compatible"),
        ("rtx", {"timing_cache": Path("t.bin")}, "--timing-cache"),
    ],
)
def test_options_of_another_backend(
    monkeypatch: pytest.MonkeyPatch, kind: str, options: dict[str, Any], named: str
) -> None:
    machine = make_machine(monkeypatch, kind)
    assert named in fails(machine, "build-option", **options).message
    assert machine.script.calls == []


def test_onnxruntime_takes_no_builder_options() -> None:
    with pytest.raises(MatchRTError) as caught:
        get_backend("onnxruntime").builder(BuilderOptions(tf32=True))
    assert caught.value.code == "build-option"
    assert building_backends() == ("onnxruntime", "tensorrt", "tensorrt_rtx")


@full_tensorrt
def test_timing_cache_is_read_and_kept(machine: Machine, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "timings.bin"
    build_with(machine, timing_cache=path)
    assert path.read_bytes() == b"+timed"
    build_with(machine, timing_cache=path)
    assert machine.script.arguments("create_timing_cache") == [(b"",), (b"+timed",)]
    assert path.read_bytes() == b"+timed+timed" and [p.name for p in path.parent.iterdir()] == ["timings.bin"]
    names = machine.script.names()
    assert names.index("set_timing_cache") < names.index("build_serialized_network") < names.index("get_timing_cache")


@pytest.mark.parametrize("machine", ["tensorrt-11"], indirect=True)
def test_timing_caches_that_do_not_work_are_said_before_the_build(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"other")
    assert fails(machine, "output-unwritable", timing_cache=tmp_path / "file" / "t.bin")
    assert fails(machine, "output-unwritable", timing_cache=tmp_path)
    machine.script.timing_cache_fits = False
    assert "Remove" in fails(machine, "timing-cache", timing_cache=tmp_path / "file").remedy
    assert "build_serialized_network" not in machine.script.names()
    assert (tmp_path / "file").read_bytes() == b"other"


@every_machine
def test_what_the_parser_does_not_take_is_named(machine: Machine) -> None:
    machine.script.parse_errors = [("TopK", f"coarse/TopK_{i}", "K must be constant ") for i in range(5)]
    error = fails(machine, "onnx-rejected")
    assert isinstance(error, InternalError)
    assert f"{machine.backend} {machine.version}" in error.message and "and 2 more" in error.message
    assert "TopK 'coarse/TopK_0': K must be constant;" in error.message and "TopK_3" not in error.message
    machine.script.parse_errors, machine.script.parse_fails = [], True
    assert "the parser said this" in fails(machine, "onnx-rejected").message


@every_machine
def test_a_build_that_fails_says_why(machine: Machine) -> None:
    machine.script.build_fails = True
    error = fails(machine, "engine-rejected")
    assert isinstance(error, InternalError) and "no implementation for node {ForeignNode}" in error.message


@every_machine
def test_no_builder(machine: Machine) -> None:
    machine.script.no_builder = True
    error = fails(machine, "engine-rejected")
    assert "CUDA initialization failure with error: 35" in error.message and not isinstance(error, InternalError)


@every_machine
@pytest.mark.parametrize("gpus", [0, None])
def test_without_a_gpu_or_cuda_python(machine: Machine, gpus: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only TensorRT-RTX builds anywhere; the other says so before anything is exported."""
    if gpus is None:
        import sys

        monkeypatch.setitem(sys.modules, "cuda.bindings", None)  # import fails
    else:
        install_cuda(monkeypatch, CudaStub(gpus=gpus))
    if machine.backend == "tensorrt_rtx":
        assert make_engine(machine, options=BuilderOptions(targets=("8.9",))).manifest.engine_bytes > 0
        return
    with pytest.raises(MatchRTError) as caught:
        get_backend(machine.backend).builder(BuilderOptions())
    assert caught.value.code == "device-missing" and "--backend tensorrt_rtx" in caught.value.remedy


@every_machine
def test_progress_grows_to_the_end(machine: Machine) -> None:
    told: list[tuple[str, float]] = []
    build_engine(
        matcher_graph((32, 48)),
        graph_facts((32, 48)),
        get_backend(machine.backend).builder(BuilderOptions()),
        lambda *what: told.append(what),
    )
    shares = [done for _, done in told]
    assert shares == sorted(shares) and shares[0] == 0.0 and shares[-1] == 1.0
    assert [what for what, _ in told][:3] == ["parsing ONNX", "Building Engine", "Timing"]


@every_machine
def test_what_else_decides_the_engine(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key of the store: version, options and the GPU, where the engine is for that one only."""

    def identity(**options: Any) -> str:
        return get_backend(machine.backend).builder(BuilderOptions(**options)).identity()

    first = identity()
    assert identity() == first and identity(tf32=True) != first and identity(workspace=1) != first
    machine.cuda.capability = (12, 0)
    assert (identity() == first) is (machine.backend == "tensorrt_rtx")
    machine.cuda.capability = (8, 9)
    machine.script.module.__version__ = machine.version + "1"
    assert identity() != first
    if machine.backend == "tensorrt":
        assert identity(timing_cache=Path("a")) == identity()
        compatible = identity(hardware="ampere-plus")
        machine.cuda.capability = (12, 0)
        assert identity(hardware="ampere-plus") == compatible


@every_machine
def test_whose_fp32_is_tf32(machine: Machine) -> None:
    """RTX on GPUs that have TF32, unless it is asked for; full TensorRT listens to its flag."""
    rtx = machine.backend == "tensorrt_rtx"
    assert get_backend(machine.backend).builder(BuilderOptions()).rounds_products is rtx
    assert not get_backend(machine.backend).builder(BuilderOptions(tf32=True)).rounds_products
    if rtx:
        assert get_backend(machine.backend).builder(BuilderOptions(targets=("8.0", "12.0"))).rounds_products
        assert not get_backend(machine.backend).builder(BuilderOptions(targets=("7.5", "8.9"))).rounds_products


@pytest.fixture
def _listening() -> Iterator[None]:
    """Python's own handler of Ctrl-C: whoever is started in the background of a shell inherits that it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupt() -> None:
    """Ctrl-C."""
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.usefixtures("_listening")
@every_machine
def test_interrupted_build_leaves_nothing(machine: Machine, tmp_path: Path) -> None:
    source = str(engine_path("loftr-lite"))
    output = tmp_path / "out" / "e.engine"
    store = EngineStore(tmp_path / "store")
    options = BuilderOptions(timing_cache=tmp_path / "t.bin") if machine.backend == "tensorrt" else BuilderOptions()
    request = BuildRequest(source, backend=machine.backend, output=output, builder=options, accept_accuracy_loss=True)
    machine.script.while_building = interrupt
    with pytest.raises(KeyboardInterrupt):
        build(request, store)
    assert list(tmp_path.iterdir()) == [] and machine.script.stopped
    machine.script.while_building = None
    assert build(replace(request, builder=BuilderOptions()), store).path == output


@pytest.mark.usefixtures("_listening")
def test_interrupted_command(machine: Machine, cli: CommandLine, tmp_path: Path) -> None:
    machine.script.while_building = interrupt
    ran = cli("build", engine_path("loftr-lite"), "--backend", "tensorrt_rtx", "--output", tmp_path / "e.engine",
              "--store", tmp_path / "store")  # fmt: skip
    assert ran.code == 130 and "Interrupted" in ran.err
    assert list(tmp_path.iterdir()) == [] and machine.script.stopped


def test_failed_build_leaves_nothing(machine: Machine, tmp_path: Path) -> None:
    machine.script.build_fails = True
    request = BuildRequest(str(engine_path("loftr-lite")), backend=machine.backend, output=tmp_path / "e.engine")
    with pytest.raises(MatchRTError):
        build(request, EngineStore(tmp_path / "store"))
    assert list(tmp_path.iterdir()) == []


def test_the_store_finds_what_was_built(machine: Machine, tmp_path: Path) -> None:
    store = EngineStore(tmp_path)
    request = BuildRequest(str(engine_path("loftr-lite")), backend=machine.backend, accept_accuracy_loss=True)
    first, second = build(request, store), build(request, store)
    assert not first.cached and second.cached and second.path == first.path and first.path.suffix == ".engine"
    assert set(first.seconds) == {"build"} and second.seconds == {}
    assert machine.script.names().count("build_serialized_network") == 1
    assert not build(replace(request, rebuild=True), store).cached
    assert not build(replace(request, builder=BuilderOptions(targets=("8.9",))), store).cached


def test_an_engine_that_answers_something_else_on_this_gpu_is_not_kept(machine: Machine, tmp_path: Path) -> None:
    """The stub's kernel matches nothing that the fp32 graph matches: the engine itself is judged, not the graph."""
    store = EngineStore(tmp_path)
    request = BuildRequest(str(engine_path("loftr-lite")), backend=machine.backend)
    with pytest.raises(MatchRTError) as caught:
        build(request, store)
    assert caught.value.code == "precision-gate" and "judged on Stub 0" in caught.value.message
    assert not store.engines()
    forced = build(replace(request, accept_accuracy_loss=True), store).manifest
    assert "Stub 0" in forced.judged and forced.checks["precision_kept"] < 0.1


def test_engines_are_made_from_fp32_onnx_only(machine: Machine, tmp_path: Path) -> None:
    store = EngineStore(tmp_path)
    request = BuildRequest(str(engine_path("loftr-lite")), backend=machine.backend, accept_accuracy_loss=True)
    built = build(request, store)
    renamed = tmp_path / "e.onnx"
    renamed.write_bytes(built.path.read_bytes())
    built.manifest.write(tmp_path / "e.onnx.json")
    for request in (
        BuildRequest(str(renamed), backend=machine.backend),
        BuildRequest(str(engine_path("loftr-lite")), backend=machine.backend, height=480, max_matches=7),
    ):
        with pytest.raises(MatchRTError) as caught:
            build(request, store)
        assert caught.value.code == "build-source"
    assert "height, max_matches" in caught.value.message
    with pytest.raises(MatchRTError) as caught:
        build(BuildRequest("loftr-lite", precision="fp7"), store)
    assert caught.value.code == "precision-unknown"


@pytest.mark.parametrize(
    "arguments",
    [("--target", "ada"), ("--target", "sm89,"), ("--target", "9.0"), ("--hardware-compatible", "all"),
     ("--target", "sm89", "--backend", "onnxruntime"), ("--version-compatible",)],
)  # fmt: skip
def test_options_on_the_command_line(machine: Machine, cli: CommandLine, arguments: tuple[str, ...]) -> None:
    backend = () if "--backend" in arguments else ("--backend", "tensorrt_rtx")
    cli.fails("build-option", "build", engine_path("loftr-lite"), *backend, *arguments)
    assert machine.script.calls == []


def test_the_command_tells_what_it_built(machine: Machine, cli: CommandLine, tmp_path: Path) -> None:
    line = ("build", engine_path("loftr-lite"), "--backend", "tensorrt_rtx", "--target", "sm80,sm8.9", "--workspace",
            "64", "--store", tmp_path, "--accept-accuracy-loss")  # fmt: skip
    ran = cli(*line)
    assert ran.code == 0, ran.err
    assert "runs on   compute capability 8.0, 8.9 and later" in ran.out and "time      build" in ran.out
    assert f"tensorrt_rtx {machine.version}" in ran.out and "targets 8.0, 8.9" in ran.out
    assert machine.script.arguments("set_memory_pool_limit")[0][1] == 64 * 2**20
    again = cli(*line, "--json").json
    assert again["cached"] and again["manifest"]["portability"]["compute_capabilities"] == ["8.0", "8.9"]


def test_the_engine_that_is_read_is_never_replaced(machine: Machine, cli: CommandLine, tmp_path: Path) -> None:
    source = tmp_path / "lite.onnx"
    source.write_bytes(engine_path("loftr-lite").read_bytes())
    before = source.read_bytes()
    cli.fails("output-is-input", "build", source, "--backend", "tensorrt_rtx", "--output", source)
    assert source.read_bytes() == before and machine.script.calls == []
