"""Plans of TensorRT-RTX, built and timed side by side, for the bench scripts of RoMa. Needs torch with CUDA to time."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

import torch
from torch import Tensor

from matchrt.cli.builder_options import parse_targets

WARM_UP = 3


def build(trt: Any, model: bytes, target: str | None) -> bytes:
    """A plan of ONNX bytes, with TF32 forbidden; target: `sm89`, for instance, or None for the GPU here."""
    log = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(log)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, log)
    if not parser.parse(model):
        raise SystemExit("; ".join(parser.get_error(i).desc() for i in range(parser.num_errors)))
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    if target is not None:
        config.num_compute_capabilities = 1
        name = "SM" + parse_targets(target)[0].replace(".", "")
        config.set_compute_capability(getattr(trt.ComputeCapability, name), 0)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise SystemExit("the builder gave no plan")
    return bytes(plan)


class Engine:
    """A plan that is loaded, with its tensors, and captured in a CUDA graph.

    inputs: the values of inputs by name; the others are uniform in 0..1, or bytes.
    """

    def __init__(self, trt: Any, data: bytes, inputs: Mapping[str, Tensor]) -> None:
        self._runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
        self._engine = self._runtime.deserialize_cuda_engine(data)
        self._context = self._engine.create_execution_context()
        self.tensors: dict[str, Tensor] = {}
        for index in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(index)
            self.tensors[name] = _tensor(trt, self._engine, name)
            if name in inputs:
                self.tensors[name].copy_(inputs[name])
            self._context.set_tensor_address(name, self.tensors[name].data_ptr())
        stream = torch.cuda.Stream()
        for _ in range(WARM_UP):
            self._context.execute_async_v3(stream.cuda_stream)
        stream.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, stream=stream):
            self._context.execute_async_v3(stream.cuda_stream)

    @property
    def scratch_mb(self) -> float:
        """Scratch memory."""
        return float(self._engine.device_memory_size_v2) / 1e6

    def set(self, inputs: Mapping[str, Tensor]) -> None:
        """Overwrites inputs that the engine has."""
        for name, value in inputs.items():
            if name in self.tensors:
                self.tensors[name].copy_(value)

    def run(self) -> None:
        """Replays the graph."""
        self._graph.replay()


def _tensor(trt: Any, engine: Any, name: str) -> Tensor:
    kinds = {trt.DataType.FLOAT: torch.float32, trt.DataType.INT32: torch.int32, trt.DataType.INT64: torch.int64}
    kinds |= {trt.DataType.HALF: torch.float16, trt.DataType.UINT8: torch.uint8}
    kind, shape = kinds[engine.get_tensor_dtype(name)], tuple(engine.get_tensor_shape(name))
    if kind == torch.uint8:
        return torch.randint(0, 256, shape, dtype=kind, device="cuda")
    return torch.rand(shape, device="cuda").to(kind)


def interleaved(calls: Mapping[str, Any], runs: int) -> dict[str, float]:
    """Median milliseconds of each call on the GPU's clock, all of them in turn."""
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(WARM_UP + runs):
        for name, call in calls.items():
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            call()
            end.record()
            end.synchronize()
            if turn >= WARM_UP:
                samples[name].append(begin.elapsed_time(end))
    return {name: median(values) for name, values in samples.items()}


def smooth_flow(height: int, width: int) -> Tensor:
    """A flow `[2,2,height,width]` such as trained networks give: neighbours stay neighbours, moved by a few percent."""
    y, x = torch.meshgrid(*((torch.arange(n) * 2 + 1) / n - 1 for n in (height, width)), indexing="ij")
    there = torch.stack([0.9 * x + 0.05 * torch.sin(3 * y) + 0.03, 0.9 * y + 0.05 * torch.cos(2 * x)])
    return torch.stack([there, (there - 0.03) / 0.9])
