"""What matchrt and the tests' stubs call, against what real versions have (tests/data/tensorrt_api)."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import json
import re
import sys
from collections.abc import Iterator
from enum import EnumMeta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support.cuda_stub import CudaStub, cudaError_t
from support.tensorrt_stub import Script, make_tensorrt, make_tensorrt_rtx

import matchrt

DATA = Path(__file__).parents[1] / "data" / "tensorrt_api"
PACKAGE = Path(matchrt.__file__).parent
OLDEST = "tensorrt-10.1.0"
FULL = (OLDEST, "tensorrt-10.3.0", "tensorrt-10.9.0.34", "tensorrt-10.16.1.11", "tensorrt-11.0.0.114",
        "tensorrt-11.4.0.106")  # fmt: skip
RTX = ("tensorrt_rtx-1.4.0.76", "tensorrt_rtx-1.7.1.116")

# Which speak to TensorRT.
ROOMS = ("nvidia", "engines", "runtime/gpu", "inspecting")
# Class -> members that matchrt uses: of every module, and of TensorRT-RTX only. What is looked for where it may be
# missing (`SAME_COMPUTE_CAPABILITY` before 10.9, GPUs by name) is not among them.
USES = {
    "Builder": ["__init__", "build_serialized_network", "create_builder_config", "create_network",
                "create_optimization_profile"],
    "IBuilderConfig": ["add_optimization_profile", "builder_optimization_level", "clear_flag", "create_timing_cache",
                       "get_timing_cache", "hardware_compatibility_level", "profiling_verbosity", "progress_monitor",
                       "set_flag", "set_memory_pool_limit", "set_timing_cache"],
    "BuilderFlag": ["TF32", "VERSION_COMPATIBLE", "EXCLUDE_LEAN_RUNTIME"],
    "HardwareCompatibilityLevel": ["AMPERE_PLUS"],
    "NetworkDefinitionCreationFlag": ["STRONGLY_TYPED"],
    "MemoryPoolType": ["WORKSPACE"],
    "ProfilingVerbosity": ["DETAILED"],
    "ExecutionContextAllocationStrategy": ["USER_MANAGED"],
    "ILogger": ["ERROR", "Severity", "log"],
    "IProgressMonitor": ["phase_start", "step_complete", "phase_finish"],
    "TensorIOMode": ["INPUT"],
    "INetworkDefinition": ["get_input", "get_output", "num_inputs", "num_outputs"],
    "ITensor": ["dtype", "name", "shape"],
    "IOptimizationProfile": ["set_shape"],
    "ITimingCache": ["serialize"],
    "OnnxParser": ["__init__", "get_error", "num_errors", "parse"],
    "ParserError": ["desc", "node_name", "node_operator"],
    "Runtime": ["load_runtime", "__init__", "deserialize_cuda_engine", "engine_host_code_allowed"],
    "ICudaEngine": ["create_engine_inspector", "create_execution_context", "device_memory_size_v2",
                    "get_tensor_dtype",
                    "get_tensor_mode", "get_tensor_name", "get_tensor_profile_shape", "get_tensor_shape",
                    "num_aux_streams", "num_io_tensors", "num_optimization_profiles"],
    "EngineInspector": ["get_engine_information"],
    "LayerInformationFormat": ["JSON"],
    "IExecutionContext": ["execute_async_v3", "get_tensor_shape", "infer_shapes", "set_device_memory",
                          "set_input_shape", "set_tensor_address", "update_device_memory_size_for_shapes"],
}  # fmt: skip
USES_OF_RTX = {
    "IBuilderConfig": ["num_compute_capabilities", "set_compute_capability"],
    "ComputeCapability": ["SM80", "SM89", "SM120"],
    "Runtime": ["get_engine_validity"],
    "EngineValidity": ["INVALID"],
    "EngineInvalidityDiagnostics": ["VERSION_MISMATCH", "UNSUPPORTED_CC"],
    "ICudaEngine": ["create_runtime_config"],
    "IRuntimeConfig": ["create_runtime_cache", "cuda_graph_strategy", "dynamic_shapes_kernel_specialization_strategy",
                       "set_execution_context_allocation_strategy", "set_runtime_cache"],
    "IRuntimeCache": ["serialize", "deserialize"],
    "CudaGraphStrategy": ["DISABLED"],
    "DynamicShapesKernelSpecializationStrategy": ["EAGER"],
    "IExecutionContext": ["is_stream_capturable"],
}  # fmt: skip
# Names that TensorRT has too, in classes that matchrt does not use, or that are Python's or matchrt's own there.
# Looked for before it is used.
OPTIONAL = {"get_engine_stat"}
OTHER_MEANING = {"value", "reset", "profiler", "builder", "engine", "logger", "flags", "code", "nbytes", "itemsize"}

# Gone from TensorRT 11, or on the way out.
REMOVED = {"FP16", "INT8", "BF16", "FP8", "INT4", "OBEY_PRECISION_CONSTRAINTS", "PREFER_PRECISION_CONSTRAINTS",
           "EXPLICIT_BATCH", "execute_v2", "execute_async", "execute_async_v2", "int8_calibrator",
           "set_calibration_profile", "IInt8Calibrator", "IInt8EntropyCalibrator2", "IInt8MinMaxCalibrator",
           "num_bindings", "binding_is_input", "get_binding_name", "get_binding_shape", "get_binding_dtype",
           "get_binding_index", "set_binding_shape", "max_workspace_size", "set_dynamic_range", "dynamic_range",
           "platform_has_fast_fp16", "platform_has_fast_int8", "create_execution_context_without_device_memory",
           "device_memory_size", "algorithm_selector", "has_implicit_batch_dimension"}  # fmt: skip


def read_api(name: str) -> dict[str, Any]:
    classes = json.loads((DATA / f"{name}.json").read_text())["classes"]
    assert isinstance(classes, dict)
    return classes


def describe_live(module: ModuleType) -> dict[str, Any]:
    tool = Path(__file__).parents[2] / "tools" / "tensorrt_api" / "describe.py"
    spec = importlib.util.spec_from_file_location("describe", tool)
    assert spec is not None and spec.loader is not None
    describe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(describe)
    classes = describe.describe(module)["classes"]
    assert isinstance(classes, dict)
    return classes


@pytest.fixture(scope="module")
def live_rtx() -> dict[str, Any]:
    module = pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed (extra: rtx)")
    return describe_live(module)


def missing(uses: dict[str, list[str]], api: dict[str, Any]) -> list[str]:
    return [f"{kind}.{name}" for kind, names in uses.items() for name in names if name not in api.get(kind, {})]


@pytest.mark.parametrize("version", [*FULL, *RTX])
def test_what_is_used_exists(version: str) -> None:
    api = read_api(version)
    assert missing(USES, api) == []
    if version in RTX:
        assert missing(USES_OF_RTX, api) == []


def test_what_is_used_exists_in_the_installed_rtx(live_rtx: dict[str, Any]) -> None:
    assert missing(USES, live_rtx) == missing(USES_OF_RTX, live_rtx) == []


def test_the_oldest_version_claimed_is_the_oldest_that_works() -> None:
    assert "IExecutionContext.set_device_memory" in missing(USES, read_api("tensorrt-10.0.1"))
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert '"tensorrt>=10.1,<12"' in project and '"tensorrt-rtx-cu13>=1.4"' in project


def uses_in_code() -> set[str]:
    """Every attribute that the rooms which speak to TensorRT read, set or call."""
    files = [file for room in ROOMS for file in (PACKAGE / room).glob("*.py")]
    trees = [ast.parse(file.read_text()) for file in files]
    nodes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    return {node.attr for node in nodes if not (isinstance(node.value, ast.Name) and node.value.id == "logging")}


def test_the_list_of_uses_is_complete() -> None:
    """A name of TensorRT's in the code that is not listed above is a use that nobody checks."""
    known = {name for version in (*FULL, *RTX) for members in read_api(version).values() for name in members}
    listed = {name for uses in (USES, USES_OF_RTX) for names in uses.values() for name in names}
    assert (uses_in_code() & known) - listed - OPTIONAL - OTHER_MEANING == set()
    assert len(uses_in_code() & listed) > 40  # and the code is where it is looked for


def test_nothing_removed_is_used() -> None:
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        if path.relative_to(PACKAGE).parts[0] in ("nvidia", "engines", "runtime"):
            assert not (attributes | names) & REMOVED, path
        flags = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)
                 and isinstance(node.value, ast.Attribute) and node.value.attr == "BuilderFlag"}  # fmt: skip
        allowed = USES["BuilderFlag"]
        assert flags <= set(allowed), path


def stub_members(kind: type) -> Iterator[tuple[str, Any]]:
    """What the stub itself gives a class; annotated names are attributes that are set."""
    for base in kind.__mro__:
        if base.__module__.startswith("support.") and base.__name__ != "Recorded":
            for name, value in vars(base).items():
                if not name.startswith("_") or (name == "__init__" and kind.__name__ in ("Builder", "Runtime")):
                    yield name, value
            yield from ((name, None) for name in inspect.get_annotations(base) if not name.startswith("_"))


def check_stub(module: ModuleType, api: dict[str, Any]) -> int:
    checked = 0
    for kind_name, kind in vars(module).items():
        if kind_name.startswith("_"):
            continue
        assert kind_name in api, kind_name
        if isinstance(kind, EnumMeta):
            assert set(kind.__members__) <= set(api[kind_name]), kind_name
            continue
        for name, value in stub_members(kind):
            where = f"{module.__name__}.{kind_name}.{name}"
            assert name in api[kind_name], where
            checked += 1
            if isinstance(value, EnumMeta):
                assert set(value.__members__) <= set(api[kind_name][name]), where
            elif callable(value):
                check_arguments(value, api[kind_name][name], where)
    return checked


def check_arguments(function: Any, real: list[list[str]], where: str) -> None:
    """The stub takes the first of the real arguments, by their names, and all that may not be left out."""
    stub = list(inspect.signature(function).parameters)[1:]
    for signature in real:
        names = [argument.removesuffix("=") for argument in signature]
        required = [argument for argument in signature if not argument.endswith("=")]
        if names[: len(stub)] == stub and len(required) <= len(stub):
            return
    raise AssertionError(f"{where}{stub} is none of {real}")


@pytest.mark.parametrize("version", FULL)
def test_stub_of_tensorrt_is_like_the_real_one(version: str) -> None:
    module = make_tensorrt(Script(), version.removeprefix("tensorrt-"))
    assert check_stub(module, read_api(version)) > 40


@pytest.mark.parametrize("version", RTX)
def test_stub_of_rtx_is_like_the_real_one(version: str) -> None:
    assert check_stub(make_tensorrt_rtx(Script()), read_api(version)) > 50


def test_stub_of_rtx_is_like_the_installed_one(live_rtx: dict[str, Any]) -> None:
    assert check_stub(make_tensorrt_rtx(Script()), live_rtx) > 50


def test_a_wrong_stub_would_be_found() -> None:
    module = make_tensorrt(Script(), "11.4.0.106")
    api = read_api("tensorrt-11.4.0.106")
    api["IExecutionContext"]["execute_async_v3"] = [["stream_handle", "event"]]
    with pytest.raises(AssertionError, match="execute_async_v3"):
        check_stub(module, api)
    del api["IExecutionContext"]["execute_async_v3"]
    with pytest.raises(AssertionError, match="execute_async_v3"):
        check_stub(module, api)


def test_methods_that_matchrt_gives_tensorrt_have_the_real_arguments() -> None:
    from matchrt.engines.progress import BuildProgress, make_monitor
    from matchrt.nvidia.log import make_log

    module, api = make_tensorrt_rtx(Script()), read_api(RTX[-1])
    monitor = type(make_monitor(module, BuildProgress(lambda what, done: None)))
    for name in ("phase_start", "step_complete", "phase_finish"):
        check_arguments(vars(monitor)[name], api["IProgressMonitor"][name], name)
    assert len(inspect.signature(vars(type(make_log(module)))["log"]).parameters) == 3


def cuda_uses() -> set[str]:
    """Names of the CUDA runtime in the code."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr.startswith("cuda") and node.attr[4:5].isupper():
                found.add(node.attr)
    return found


def test_stub_of_cuda_has_what_is_used_as_the_real_one_has() -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime", reason="cuda-python is not installed (extra: rtx)")
    stub = CudaStub().module
    uses = cuda_uses()
    assert len(uses) > 25
    members = {"cudaMemcpyHostToDevice", "cudaMemcpyDeviceToHost", "cudaMemcpyDeviceToDevice",
               "cudaStreamCaptureModeThreadLocal", "cudaMemoryTypeHost"}  # fmt: skip
    for name in uses - members:
        assert hasattr(runtime, name) and hasattr(stub, name), name
    for name, value in vars(stub).items():
        if hasattr(value, "stub"):
            assert list(inspect.signature(value.stub).parameters) == real_arguments(getattr(runtime, name)), name
        elif isinstance(value, int):
            assert value == getattr(runtime, name), name
        else:
            real = getattr(runtime, name)
            assert {m.name: m.value for m in value} == {m: int(getattr(real, m)) for m in value.__members__}
    assert cudaError_t.cudaSuccess == 0


def test_stub_of_the_driver_has_what_is_used_as_the_real_one_has() -> None:
    driver = pytest.importorskip("cuda.bindings.driver", reason="cuda-python is not installed (extra: rtx)")
    stub = CudaStub().driver
    attributes = {node.attr for path in PACKAGE.rglob("*.py") for node in ast.walk(ast.parse(path.read_text()))
                  if isinstance(node, ast.Attribute)}  # fmt: skip
    uses = {name for name in attributes if re.match("cu[A-Z]", name)}
    assert uses == set(vars(stub))
    for name, value in vars(stub).items():
        found, real = list(inspect.signature(value.stub).parameters), real_arguments(getattr(driver, name))
        assert len(found) == len(real) and found[0] == real[0], name


def real_arguments(function: Any) -> list[str]:
    """From a docstring's first line, such as `cudaMemcpy(dst, src, size_t count, kind: cudaMemcpyKind)`."""
    inside = function.__doc__.splitlines()[0].split("(", 1)[1].rsplit(")", 1)[0]
    return [part.split(":")[0].split()[-1].lstrip("*") for part in inside.split(",") if part.strip()]


def test_error_names_that_matchrt_knows_are_real() -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime", reason="cuda-python is not installed (extra: rtx)")
    from matchrt.nvidia.cuda import _NO_DEVICE

    for name in (*_NO_DEVICE, "cudaErrorMemoryAllocation"):
        assert hasattr(runtime.cudaError_t, name)


def test_the_tool_reads_a_module() -> None:
    """On a module of our own: what pybind11 writes, read back."""
    module = ModuleType("imagined")
    module.__version__ = "1.2"  # type: ignore[attr-defined]

    class Builder:
        def create_network(self) -> None:
            """create_network(self: imagined.Builder, flags: int = <Flag.A: 1>, sizes: dict[int, str] = {}) -> None"""

        def build(self) -> None:
            """build(*args, **kwargs)
            Overloaded function.

            1. build(self: imagined.Builder, config: imagined.Config) -> bytes

            2. build(self: imagined.Builder) -> bytes
            """

        level = property(lambda self: 0)

    Builder.build.__doc__ = inspect.cleandoc(Builder.build.__doc__ or "")
    module.Builder = Builder  # type: ignore[attr-defined]
    found = describe_live(module)["Builder"]
    assert found["create_network"] == [["flags=", "sizes="]]
    assert found["build"] == [["config"], []] and found["level"] == "property"
    assert sys.modules.get("imagined") is None
