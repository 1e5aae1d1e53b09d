"""The vendor is asked with small products before the export and the calibration."""

from __future__ import annotations

import time
from pathlib import Path

import onnx
import pytest
from support.commands import CommandLine
from support.machines import Machine
from support.small import small_engine

from matchrt.building.calibration.vendor import require_built_products
from matchrt.building.convert import convert_engine
from matchrt.building.pipeline import BuildRequest, build
from matchrt.errors import MatchRTError
from matchrt.nvidia.dialect import BuilderOptions
from matchrt.runtime.backend import Builder, get_backend
from matchrt.runtime.engine_file import read_engine
from matchrt.store import EngineStore, StoredEngine


def builder(backend: str = "tensorrt_rtx", *targets: str) -> Builder:
    return get_backend(backend).builder(BuilderOptions(targets=targets))


def graphs(machine: Machine) -> list[onnx.GraphProto]:
    """What the parser was given."""
    return [onnx.load_model_from_string(arguments[0]).graph for arguments in machine.script.arguments("parse")]


@pytest.mark.parametrize(
    ("precision", "asked"), [("int8", ["MatMul", "Conv"]), ("fp8", ["MatMul"]), ("fp16", []), ("fp32", [])]
)
@pytest.mark.parametrize("machine", ["rtx", "tensorrt-10", "tensorrt-11"], indirect=True)
def test_what_is_asked(machine: Machine, precision: str, asked: list[str]) -> None:
    require_built_products(precision, builder(machine.backend), ())
    found = graphs(machine)
    operators = [{node.op_type for node in graph.node} & {"MatMul", "Conv"} for graph in found]
    assert operators == [{name} for name in asked]
    kind = onnx.TensorProto.FLOAT8E4M3FN if precision == "fp8" else onnx.TensorProto.INT8
    assert all(kind in {weight.data_type for weight in graph.initializer} for graph in found)


@pytest.mark.parametrize("machine", ["rtx"], indirect=True)
def test_a_refusal_says_what_which_and_where(machine: Machine) -> None:
    machine.script.build_fails = True
    with pytest.raises(MatchRTError) as caught:
        require_built_products("int8", builder("tensorrt_rtx", "8.0", "8.9"), ("8.0", "8.9"))
    assert caught.value.code == "precision-refused"
    for part in ("TensorRT-RTX 1.7.1.116", "MatMul", "int8", "sm80, sm89", "no implementation for node"):
        assert part in caught.value.message
    assert "--precision fp16" in caught.value.remedy and "--target" in caught.value.remedy


@pytest.mark.parametrize("machine", ["tensorrt-11"], indirect=True)
def test_the_parser_may_refuse_too_and_full_tensorrt_has_no_targets(machine: Machine) -> None:
    machine.script.parse_errors = [("QuantizeLinear", "x0:quantize", "no float8")]
    with pytest.raises(MatchRTError) as caught:
        require_built_products("fp8", builder("tensorrt"), ())
    assert caught.value.code == "precision-refused" and "no float8" in caught.value.message
    assert "--target" not in caught.value.remedy


@pytest.mark.parametrize("machine", ["rtx"], indirect=True)
def test_errors_that_are_no_refusal_stay_as_they_are(machine: Machine) -> None:
    machine.script.no_builder = True
    with pytest.raises(MatchRTError) as caught:
        require_built_products("int8", builder(), ())
    assert caught.value.code == "engine-rejected" and "matchrt doctor" in caught.value.remedy


def test_onnx_engines_are_not_compiled_so_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = builder("onnxruntime")
    monkeypatch.setattr(type(asked), "build", lambda *arguments: pytest.fail("asked"))
    require_built_products("int8", asked, ())


@pytest.mark.parametrize("machine", ["rtx"], indirect=True)
@pytest.mark.parametrize(
    ("options", "before"), [({}, []), ({"max_matches": 512}, ["reading the checkpoint"])], ids=["bundled", "exported"]
)
def test_a_build_asks_before_its_work(
    machine: Machine, tmp_path: Path, options: dict[str, int], before: list[str]
) -> None:
    machine.script.build_fails = True
    told: list[str] = []
    request = BuildRequest("loftr-lite", height=480, width=640, backend="tensorrt_rtx", precision="int8", **options)
    with pytest.raises(MatchRTError) as caught:
        build(request, EngineStore(tmp_path), lambda what, done: told.append(what))
    assert caught.value.code == "precision-refused" and told == before
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("machine", ["rtx"], indirect=True)
def test_the_command_asks_before_it_calibrates(machine: Machine, cli: CommandLine, tmp_path: Path) -> None:
    machine.script.build_fails = True
    source = small_engine(tmp_path)
    line = ("build", source.path, "--backend", "tensorrt_rtx", "--precision", "fp8", "--target", "sm89,sm120")
    ran = cli.fails("precision-refused", *line, "--store", tmp_path / "store")
    assert "sm89, sm120" in " ".join(ran.err.split()) and not (tmp_path / "store").exists()


@pytest.mark.parametrize("machine", ["rtx"], indirect=True)
def test_what_the_store_has_is_not_asked_for(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = read_engine(small_engine(tmp_path).path)
    known = StoredEngine(tmp_path, file.manifest)
    monkeypatch.setattr(EngineStore, "find", lambda *arguments: known)
    found = convert_engine(
        file, "int8", builder(), EngineStore(tmp_path), lambda what, done: None, first=lambda: pytest.fail("asked")
    )
    assert found == (known, True) and not graphs(machine)


def test_the_real_builder() -> None:
    """It refuses fp8 for Ampere and takes int8 for three generations, both within seconds."""
    pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed (extra: rtx)")
    begun = time.perf_counter()
    targets = ("8.0", "8.9", "12.0")
    require_built_products("int8", builder("tensorrt_rtx", *targets), targets)
    require_built_products("fp8", builder("tensorrt_rtx", *targets[1:]), targets[1:])
    with pytest.raises(MatchRTError) as caught:
        require_built_products("fp8", builder("tensorrt_rtx", *targets), targets)
    assert caught.value.code == "precision-refused" and "sm80" in caught.value.message
    assert time.perf_counter() - begun < 30  # about one second on a quiet machine
