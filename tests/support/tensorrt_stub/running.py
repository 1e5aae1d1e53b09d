"""The half of the modules that runs: plans in JSON, and one kernel that makes matches of the images' bytes."""

from __future__ import annotations

import ctypes
import json
import math
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from support.tensorrt_stub.building import IHostMemory
from support.tensorrt_stub.script import Recorded

_NUMPY = {"FLOAT": "float32", "HALF": "float16", "INT32": "int32", "INT64": "int64", "UINT8": "uint8"}
Array = npt.NDArray[Any]


def kernel(inputs: dict[str, Array], outputs: dict[str, Array]) -> None:
    """Matches that depend on every byte of both images and on their sizes, so that a swapped buffer shows.

    A part of an engine that gives no matches gives maps, which depend on every byte too.
    """
    if "scores" not in outputs:
        total = sum(int(array.astype(np.int64).sum()) for array in inputs.values())
        for index, array in enumerate(outputs.values()):
            array[...] = (np.arange(array.size).reshape(array.shape) + total * (index + 1)) % 101
        return
    of_each = [[array for name, array in inputs.items() if _of_image(name) == digit] for digit in "01"]
    sums = [sum(int(array.astype(np.int64).sum()) for array in arrays) for arrays in of_each]
    slots = outputs["scores"].shape[1]
    count = max(3, slots - 16) + sums[0] % 5
    for array in outputs.values():
        array[...] = 0
    rows = np.arange(count, dtype=np.float32)
    outputs["num_matches"][0] = count
    outputs["scores"][0, :count] = 0.9 - 0.01 * rows
    outputs["keypoints0"][0, :count] = np.stack([rows + sums[0] % 13, rows], axis=1)
    outputs["keypoints1"][0, :count] = np.stack([rows + sums[1] % 17, rows + 1], axis=1)


def _of_image(name: str) -> str:
    """The digit of the image that an input is of: `size0`, and `image0_map3` of an engine's second part."""
    return name.removeprefix("image")[0] if "_map" in name else name[-1]


class IRuntimeCache(Recorded):
    """Kernels compiled on this machine."""

    def __init__(self) -> None:
        self._data = b""

    def deserialize(self, blob: bytes) -> bool:
        self._script.kernels_known.append(bytes(blob))
        self._data = bytes(blob)
        return True

    def serialize(self) -> IHostMemory:
        return IHostMemory(self._data)


class IRuntimeConfig(Recorded):
    """How a context is made."""

    cuda_graph_strategy: Any
    dynamic_shapes_kernel_specialization_strategy: Any

    def __init__(self) -> None:
        self._strategy: Any = None
        self._cache: IRuntimeCache | None = None

    def create_runtime_cache(self) -> IRuntimeCache:
        return self._script.module.IRuntimeCache()

    def set_runtime_cache(self, cache: IRuntimeCache) -> bool:
        self._cache = cache
        return True

    def set_execution_context_allocation_strategy(self, strategy: Any) -> None:
        self._strategy = strategy


class IExecutionContext(Recorded):
    """Runs an engine on memory that the caller provides."""

    def __init__(self, engine: ICudaEngine, cache: IRuntimeCache | None) -> None:
        self._engine, self._cache = engine, cache
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._scratch = (0, 0)
        self._raced = 0
        self._raced_in_a_graph = False

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        known = self._engine._tensors[name][1]
        fits = len(known) == len(shape) and all(k in (-1, s) for k, s in zip(known, shape, strict=True))
        if self._script.shape_refused or not fits:
            self._script.complain(f"set_input_shape: {name} is out of the profile")
            return False
        self._shapes[name] = tuple(shape)
        return True

    def infer_shapes(self) -> list[str]:
        assert set(self._shapes) == set(self._engine._inputs)
        return list(self._script.unresolved)

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        """Outputs have as many rows as inputs; their other dimensions are fixed."""
        known = self._engine._tensors[name][1]
        rows = next(iter(self._shapes.values()), (-1,))[0]
        return self._shapes.get(name, (rows, *known[1:]) if known[0] < 0 else known)

    def update_device_memory_size_for_shapes(self) -> int:
        return sum(math.prod(shape) for shape in self._shapes.values())

    def set_device_memory(self, memory: int, size: int) -> None:
        assert size >= self.update_device_memory_size_for_shapes()
        self._scratch = (memory, size)

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if self._script.address_refused:
            self._script.complain("set_tensor_address: misaligned")
            return False
        assert memory % 256 == 0 and name in self._engine._tensors
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        assert set(self._addresses) == set(self._engine._tensors)
        cuda = self._script.cuda
        if self._script.execute_fails or (self._script.breaks_capture and cuda.capturing(stream_handle)):
            self._script.complain("execute_async_v3: illegal memory access")
            return False
        if self._cache is not None:
            shapes_text = ";".join(str(shape) for shape in self._shapes.values())
            self._cache._data = self._cache._data or f"{self._script.compiler} of {shapes_text}".encode()
        addresses, shapes = dict(self._addresses), {name: self.get_tensor_shape(name) for name in self._addresses}
        # As measured on a GPU: a context that was captured once goes on racing, outside graphs too.
        self._raced_in_a_graph |= self._script.races_in_graphs and cuda.capturing(stream_handle)
        races = self._raced_in_a_graph
        cuda.put(stream_handle, lambda: self._run(addresses, shapes, races))
        return True

    def _run(self, addresses: dict[str, int], shapes: dict[str, tuple[int, ...]], races: bool) -> None:
        memory, size = self._scratch
        self._script.cuda.require_memory(memory, size)
        arrays = {}
        for name, address in addresses.items():
            arrays[name] = self._view(address, np.dtype(self._engine._tensors[name][0]), shapes[name])
        ctypes.memset(memory, 0x5A, size)  # scratch is scratch
        outputs = {name: arrays.pop(name) for name in list(arrays) if name not in self._engine._inputs}
        kernel(arrays, outputs)
        stale = self._cache is not None and not self._cache._data.startswith(self._script.compiler.encode())
        if "keypoints1" not in outputs:  # a part of an engine
            return
        outputs["keypoints1"][...] += self._script.wrong_by + 50 * stale
        self._raced += races
        if races and self._raced % 3 == 0:
            outputs["keypoints1"][0, 0] += 0.25

    def _view(self, address: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
        size = math.prod(shape) * dtype.itemsize
        self._script.cuda.require_memory(address, size)
        block = (ctypes.c_uint8 * size).from_address(address)
        return np.frombuffer(block, dtype).reshape(shape)


class RtxExecutionContext(IExecutionContext):
    """What only TensorRT-RTX has."""

    def is_stream_capturable(self, stream: int) -> bool:
        assert stream in self._script.cuda.streams
        return not self._script.not_capturable


class ICudaEngine(Recorded):
    """A plan that was loaded."""

    def __init__(self, plan: bytes) -> None:
        read = json.loads(plan)
        self._inputs = [name for name, _, _ in read["inputs"]]
        tensors = (*read["inputs"], *read["outputs"])
        self._tensors = {name: (_NUMPY[dtype], tuple(shape)) for name, dtype, shape in tensors}
        self._types = {name: dtype for name, dtype, _ in tensors}

    @property
    def device_memory_size_v2(self) -> int:
        """Of static plans; of dynamic ones, far more than any shape in the tests needs."""
        sides = [side for name in self._inputs for side in self._tensors[name][1]]
        sizes = [math.prod(self._tensors[name][1]) for name in self._inputs]
        return 2**30 if min(sides) < 0 else sum(sizes)

    @property
    def num_io_tensors(self) -> int:
        return len(self._tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self._tensors)[index]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._tensors[name][1]

    def get_tensor_dtype(self, name: str) -> Any:
        return self._script.module.DataType[self._types[name]]

    def get_tensor_mode(self, name: str) -> Any:
        modes = self._script.module.TensorIOMode
        return modes.INPUT if name in self._inputs else modes.OUTPUT

    def create_execution_context(self, strategy: Any) -> IExecutionContext | None:
        return self._context(strategy, None)

    def _context(self, strategy: Any, cache: IRuntimeCache | None) -> IExecutionContext | None:
        # Scratch memory of its own would be memory that a session does not account for.
        assert strategy is self._script.module.ExecutionContextAllocationStrategy.USER_MANAGED
        if self._script.no_context:
            self._script.complain("create_execution_context: out of memory")
            return None
        made: IExecutionContext = self._script.module.IExecutionContext(self, cache)
        return made


class RtxCudaEngine(ICudaEngine):
    """A context is made from a configuration."""

    def create_runtime_config(self) -> IRuntimeConfig:
        return self._script.module.IRuntimeConfig()

    def create_execution_context(self, runtime_config: IRuntimeConfig) -> IExecutionContext | None:
        return self._context(runtime_config._strategy, runtime_config._cache)


class Runtime(Recorded):
    """Loads plans."""

    engine_host_code_allowed: bool

    def __init__(self, logger: Any) -> None:
        self._script.logger = logger
        self._host_code = True
        if self._script.no_runtime:
            self._script.complain("CUDA initialization failure with error: 999")
            raise TypeError("pybind11::init(): factory function returned nullptr")

    def load_runtime(self, path: str) -> Runtime:
        return self

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        assert self.engine_host_code_allowed is False
        if self._script.deserialize_fails:
            self._script.complain("deserialize_cuda_engine: magic tag does not match")
            return None
        made: ICudaEngine = self._script.module.ICudaEngine(serialized_engine)
        return made


class RtxRuntime(Runtime):
    """What only TensorRT-RTX has."""

    def get_engine_validity(self, buffer: bytes) -> tuple[Any, int]:
        del buffer
        name, diagnostics = self._script.validity
        return self._script.module.EngineValidity[name], diagnostics


def running_enums(rtx: bool) -> SimpleNamespace:
    """Enumerations that running uses."""
    strategies = {"STATIC": 0, "ON_PROFILE_CHANGE": 1, "USER_MANAGED": 2}
    made = SimpleNamespace(
        ExecutionContextAllocationStrategy=IntEnum("ExecutionContextAllocationStrategy", strategies),
        TensorIOMode=IntEnum("TensorIOMode", {"NONE": 0, "INPUT": 1, "OUTPUT": 2}),
    )
    if rtx:
        made.CudaGraphStrategy = IntEnum("CudaGraphStrategy", {"DISABLED": 0, "WHOLE_GRAPH_CAPTURE": 1})
        made.DynamicShapesKernelSpecializationStrategy = IntEnum(
            "DynamicShapesKernelSpecializationStrategy", {"LAZY": 0, "EAGER": 1, "NONE": 2}
        )
        made.EngineValidity = IntEnum("EngineValidity", {"VALID": 0, "SUBOPTIMAL": 1, "INVALID": 2})
        bits = {"VERSION_MISMATCH": 1, "UNSUPPORTED_CC": 2, "OLD_CUDA_DRIVER": 4}
        made.EngineInvalidityDiagnostics = IntEnum("EngineInvalidityDiagnostics", bits)
    return made
