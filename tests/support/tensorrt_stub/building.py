"""The half of the modules that builds: an ONNX graph's inputs and outputs become a plan in JSON."""

from __future__ import annotations

import json
import time
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

from support.tensorrt_stub.script import Recorded, Script

# ONNX's numbers of types.
_TYPES = {1: "FLOAT", 2: "UINT8", 6: "INT32", 7: "INT64", 10: "HALF"}


class ILogger:
    """Base class of loggers."""

    Severity = IntEnum("Severity", {"INTERNAL_ERROR": 0, "ERROR": 1, "WARNING": 2, "INFO": 3, "VERBOSE": 4})

    def log(self, severity: Any, msg: str) -> None:
        raise NotImplementedError


class IProgressMonitor:
    """Base class of progress monitors."""

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        raise NotImplementedError

    def step_complete(self, phase_name: str, step: int) -> bool:
        raise NotImplementedError

    def phase_finish(self, phase_name: str) -> None:
        raise NotImplementedError


class IHostMemory(bytes):
    """Bytes that a builder or a cache gives out."""

    @property
    def nbytes(self) -> int:
        return len(self)


class ITensor:
    """A network's input or output."""

    def __init__(self, name: str, dtype: Any, shape: tuple[int, ...]) -> None:
        self.name, self.dtype, self.shape = name, dtype, shape

    name: str
    dtype: Any
    shape: tuple[int, ...]


class INetworkDefinition:
    """What the parser fills."""

    def __init__(self, flags: int) -> None:
        self._flags, self._inputs, self._outputs = flags, list[ITensor](), list[ITensor]()

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    @property
    def num_outputs(self) -> int:
        return len(self._outputs)

    def get_input(self, index: int) -> ITensor:
        return self._inputs[index]

    def get_output(self, index: int) -> ITensor:
        return self._outputs[index]


class ParserError:
    """One thing that the parser does not take."""

    def __init__(self, operator: str, name: str, what: str) -> None:
        self._operator, self._name, self._what = operator, name, what

    def desc(self) -> str:
        return self._what

    def node_name(self) -> str:
        return self._name

    def node_operator(self) -> str:
        return self._operator


class OnnxParser(Recorded):
    """Reads names, types and shapes of inputs and outputs."""

    def __init__(self, network: INetworkDefinition, logger: Any) -> None:
        self._network = network
        assert logger is self._script.logger

    @property
    def num_errors(self) -> int:
        return len(self._script.parse_errors)

    def get_error(self, index: int) -> ParserError:
        return ParserError(*self._script.parse_errors[index])

    def parse(self, model: bytes, path: str | None = None) -> bool:
        assert path is None
        if self._script.parse_errors or self._script.parse_fails:
            self._script.complain("the parser said this")
            return False
        import onnx

        graph = onnx.load_model_from_string(model).graph
        self._network._inputs = [self._tensor(value) for value in graph.input]
        self._network._outputs = [self._tensor(value) for value in graph.output]
        return True

    def _tensor(self, value: Any) -> ITensor:
        kind = value.type.tensor_type
        shape = tuple(side.dim_value if side.HasField("dim_value") else -1 for side in kind.shape.dim)
        return ITensor(value.name, self._script.module.DataType[_TYPES[kind.elem_type]], shape)


class IOptimizationProfile(Recorded):
    """Shapes that a dynamic engine takes."""

    def __init__(self) -> None:
        self._shapes: dict[str, list[tuple[int, ...]]] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        self._shapes[input] = [min, opt, max]


class ITimingCache(Recorded):
    """Timings of kernels."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def serialize(self) -> IHostMemory:
        return IHostMemory(self._data + b"+timed")


class IBuilderConfig(Recorded):
    """How to build."""

    builder_optimization_level: int
    hardware_compatibility_level: Any
    profiling_verbosity: Any
    progress_monitor: Any

    def __init__(self) -> None:
        self._profiles: list[IOptimizationProfile] = []
        self._cache: ITimingCache | None = None
        self._flags: set[str] = {"TF32"}  # as TensorRT has it unless told otherwise
        self._limits: dict[str, int] = {}

    def set_flag(self, flag: Any) -> None:
        self._flags.add(flag.name)

    def clear_flag(self, flag: Any) -> None:
        self._flags.discard(flag.name)

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        self._limits[pool.name] = pool_size

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
        return self._script.module.ITimingCache(serialized_timing_cache)

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        assert ignore_mismatch is False
        self._cache = cache
        return self._script.timing_cache_fits

    def get_timing_cache(self) -> ITimingCache | None:
        return self._cache


class RtxBuilderConfig(IBuilderConfig):
    """What only TensorRT-RTX has."""

    num_compute_capabilities: int = 1

    def set_compute_capability(self, compute_capability: Any, index: int) -> bool:
        assert 0 <= index < self.num_compute_capabilities
        return not self._script.targets_refused


class Builder(Recorded):
    """Builds plans."""

    def __init__(self, logger: Any) -> None:
        self._script.calls.append(("Builder",))
        self._script.logger = logger
        if self._script.no_builder:
            self._script.complain("CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        return INetworkDefinition(flags)

    def create_builder_config(self) -> IBuilderConfig:
        return self._script.module.IBuilderConfig()

    def create_optimization_profile(self) -> IOptimizationProfile:
        return self._script.module.IOptimizationProfile()

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> IHostMemory | None:
        if self._script.build_fails:
            self._script.complain("no implementation for node {ForeignNode}")
            return None
        if not self._steps(config.progress_monitor):
            return None
        return IHostMemory(_plan(network, self._script))

    def _steps(self, monitor: IProgressMonitor) -> bool:
        """Phases within phases, as TensorRT reports them; False when the monitor stops the build."""
        monitor.phase_start("Building Engine", None, 2)
        monitor.phase_start("Timing", "Building Engine", 3)
        for step in range(3):
            if step == 1 and self._script.while_building is not None:
                self._script.while_building()
                self._script.stopped = _hears_a_stop(monitor)
            if not monitor.step_complete("Timing", step):
                return False
        monitor.phase_finish("Timing")
        if not monitor.step_complete("Building Engine", 0):
            return False
        monitor.phase_start("Writing", "Building Engine", 1)
        monitor.phase_finish("Writing")
        monitor.phase_finish("Building Engine")
        return True


def _hears_a_stop(monitor: IProgressMonitor) -> bool:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if not monitor.step_complete("Timing", 0):
            return True
        time.sleep(0.01)
    return False


def _plan(network: INetworkDefinition, script: Script) -> bytes:
    sides = {"inputs": network._inputs, "outputs": network._outputs}
    plan: dict[str, Any] = {
        side: [[tensor.name, tensor.dtype.name, list(tensor.shape)] for tensor in tensors]
        for side, tensors in sides.items()
    }
    return json.dumps(plan | {"version": script.module.__version__}).encode()


def building_enums(rtx: bool, same_compute_capability: bool) -> SimpleNamespace:
    """Enumerations that building uses."""
    levels = ["NONE", "AMPERE_PLUS", *(["SAME_COMPUTE_CAPABILITY"] if same_compute_capability else [])]
    made = SimpleNamespace(
        BuilderFlag=_enum(
            "BuilderFlag",
            "TF32",
            "VERSION_COMPATIBLE",
            "EXCLUDE_LEAN_RUNTIME",
        ),
        DataType=_enum("DataType", "FLOAT", "HALF", "INT32", "INT64", "UINT8"),
        HardwareCompatibilityLevel=_enum("HardwareCompatibilityLevel", *levels),
        MemoryPoolType=_enum("MemoryPoolType", "WORKSPACE"),
        NetworkDefinitionCreationFlag=IntEnum("NetworkDefinitionCreationFlag", {"STRONGLY_TYPED": 1}),
        ProfilingVerbosity=_enum("ProfilingVerbosity", "LAYER_NAMES_ONLY", "NONE", "DETAILED"),
    )
    if rtx:
        names = ("NONE", "CURRENT", "SM75", "SM80", "SM86", "SM89", "SM120")
        made.ComputeCapability = _enum("ComputeCapability", *names)
    return made


def _enum(name: str, *members: str) -> Any:
    return IntEnum(name, {member: index for index, member in enumerate(members)})
