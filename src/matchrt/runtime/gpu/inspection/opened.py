"""Opens a TensorRT engine on this machine's GPU and asks TensorRT what it is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from matchrt.errors import MatchRTError
from matchrt.nvidia.modules import BACKENDS as TENSORRT_MODULES
from matchrt.runtime.backend import get_backend
from matchrt.runtime.engine_file import EngineFile
from matchrt.runtime.gpu.inspection.layers import Layer, parse_layers
from matchrt.runtime.gpu.inspection.summary import tensor_bytes


@dataclass(frozen=True)
class EngineMemory:
    """What an engine takes on the GPU, in bytes.

    weights: of the engine; None if this TensorRT does not say.
    scratch: the working memory of one context.
    tensors: inputs and outputs.
    """

    weights: int | None
    scratch: int
    tensors: int


@dataclass(frozen=True)
class TensorShapes:
    """The shapes of an input that a profile allows, in elements.

    name: of the input.
    minimum: the smallest shape.
    optimum: the shape that kernels were chosen for.
    maximum: the largest shape.
    """

    name: str
    minimum: tuple[int, ...]
    optimum: tuple[int, ...]
    maximum: tuple[int, ...]


@dataclass(frozen=True)
class OpenedEngine:
    """A TensorRT engine, as its vendor describes it.

    gpu: name of the GPU that it was opened on.
    layers: in the order of execution.
    memory: what it takes on the GPU.
    profiles: for each optimisation profile, the shapes of the inputs.
    aux_streams: streams that it uses besides the caller's.
    """

    gpu: str
    layers: tuple[Layer, ...]
    memory: EngineMemory
    profiles: tuple[tuple[TensorShapes, ...], ...]
    aux_streams: int


def open_engine(file: EngineFile) -> OpenedEngine:
    """Loads the engine and asks TensorRT what it is made of.

    Errors: engine-layers (not TensorRT), inspector-format, and those of `LoadedEngine`.
    """
    backend = file.manifest.backend
    if backend not in TENSORRT_MODULES:
        raise MatchRTError(
            "engine-layers",
            f"'{file.path}' is for backend {backend}: {get_backend(backend).title} makes layers of its nodes when it "
            "loads them.",
            "Leave --layers out; the graph's nodes are shown if the export extra is installed.",
        )
    from matchrt.runtime.gpu.loaded import LoadedEngine

    loaded = LoadedEngine(file)
    engine, trt = loaded.engine, loaded.dialect.trt
    text = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    return OpenedEngine(
        gpu=loaded.gpu.name,
        layers=parse_layers(text),
        memory=EngineMemory(_weights(trt, engine), int(engine.device_memory_size_v2), tensor_bytes(file.manifest)),
        profiles=_profiles(engine, file),
        aux_streams=int(engine.num_aux_streams),
    )


def _weights(trt: Any, engine: Any) -> int | None:
    kinds = getattr(trt, "EngineStat", None)
    if kinds is None or not hasattr(engine, "get_engine_stat"):
        return None
    found = int(engine.get_engine_stat(kinds.TOTAL_WEIGHTS_SIZE))
    return found if found >= 0 else None


def _profiles(engine: Any, file: EngineFile) -> tuple[tuple[TensorShapes, ...], ...]:
    profiles = []
    for index in range(engine.num_optimization_profiles):
        shapes = []
        for spec in file.manifest.inputs:
            found = engine.get_tensor_profile_shape(spec.name, index)
            minimum, optimum, maximum = (tuple(int(side) for side in shape) for shape in found)
            shapes.append(TensorShapes(spec.name, minimum, optimum, maximum))
        profiles.append(tuple(shapes))
    return tuple(profiles)
