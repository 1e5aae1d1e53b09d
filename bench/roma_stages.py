"""Where RoMa's time goes: every stage exported, built and timed alone, with random weights.

    python bench/roma_stages.py [--coarse 560] [--fine 864] [--precision fp16] [--only gp refiner8-fine] [--json FILE]
    python bench/roma_stages.py --build-only --target sm89 --coarse 112 --fine 168       # without a GPU

An engine that is one fused region tells nothing of its parts; these stages do, and their sum over the time of the whole
engine says what fusing them is worth. Timed on the GPU by events around a captured CUDA graph; needs torch with CUDA.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from matchrt.cli.builder_options import parse_targets
from matchrt.export.passes.standard import run_standard
from matchrt.export.precision import apply
from matchrt.families.roma import ROMA
from matchrt.models.roma.config import Size
from matchrt.models.roma.decoder import Flow
from matchrt.models.roma.deployed import deployed
from matchrt.models.roma.match_decoder import anchors_to_flow
from matchrt.models.roma.network import RoMa
from matchrt.models.roma.selection import select_dense

OPSET = 18
MATCHES = 2048


class Stage(nn.Module):
    """A function of the network as a module; the attribute's name keeps the paths of the whole graph."""

    def __init__(self, network: RoMa, run: Callable[..., Any]) -> None:
        super().__init__()
        self.network = network
        self.run = run

    def forward(self, *arguments: Tensor) -> Any:
        """The stage's results."""
        return self.run(self.network, *arguments)


@dataclass(frozen=True)
class Plan:
    """A stage and example arguments; batch 2 is the two images, or the two directions."""

    name: str
    run: Callable[..., Any]
    arguments: tuple[Tensor, ...]


def plans(network: RoMa, coarse: Size, fine: Size) -> Iterator[Plan]:
    """The stages of both passes, in order."""
    config, grid = network.config, network.patch_grid(coarse)
    position = network.dinov2.position(grid).detach()
    image, large = torch.rand(2, 3, *coarse), torch.rand(2, 3, *fine)
    yield Plan("dinov2", lambda n, x: n.dinov2(x, position), (image,))
    yield Plan("vgg-coarse", lambda n, x: tuple(n.encoder.cnn(x).values()), (image,))
    features, other = (torch.randn(2, config.refiners[0].features, *grid) for _ in range(2))
    yield Plan("gp", lambda n, a, b: n.decoder.gps["16"](a, b), (features, other))
    posterior = torch.randn(2, config.gp.dim, *grid)
    yield Plan("match-decoder", _decode, (posterior, features))
    yield from (_refiner(network, r.scale, _size(coarse, r.scale, grid), "coarse") for r in config.refiners)
    yield Plan("vgg-fine", lambda n, x: tuple(n.encoder.cnn(x).values()), (large,))
    yield from (_refiner(network, r.scale, _size(fine, r.scale, grid), "fine") for r in config.refiners[1:])
    flow, logit = torch.rand(2, 2, *fine) * 2 - 1, torch.randn(2, 1, *fine)
    yield Plan("selection", _select, (flow, logit, torch.randn(2, 1, *grid)))


def _size(size: Size, scale: int, grid: Size) -> Size:
    return grid if scale == 16 else (size[0] // scale, size[1] // scale)


def _decode(network: RoMa, posterior: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
    logits, certainty = network.decoder.embedding_decoder(posterior, features)
    return anchors_to_flow(logits, *features.shape[2:]), certainty


def _refiner(network: RoMa, scale: int, size: Size, which: str) -> Plan:
    """The projection of the encoder's features, and the refiner."""
    channels = {16: network.config.dinov2.dim, **{2**i: s[-1] for i, s in enumerate(network.config.vgg)}}[scale]
    features, flow = torch.randn(2, channels, *size), torch.rand(2, 2, *size) * 2 - 1

    def run(n: RoMa, x: Tensor, at: Tensor) -> Any:
        projected = n.decoder.proj[str(scale)](x)
        first, second = projected.chunk(2)
        return n.decoder.conv_refiner[str(scale)](projected, torch.cat([second, first]), at, 1.0)

    return Plan(f"refiner{scale}-{which}", run, (features, flow))


def _select(network: RoMa, flow: Tensor, logit: Tensor, coarse: Tensor) -> tuple[Tensor, ...]:
    out = select_dense(network.finish(Flow(flow, logit), coarse), MATCHES, 0.05, network.config.symmetric)
    return out.keypoints0, out.keypoints1, out.scores, out.num_matches


def export(network: RoMa, plan: Plan, precision: str) -> bytes:
    """The stage as ONNX bytes, through the passes and the precision rules of the whole network."""
    stage = Stage(network, plan.run).eval()
    program = torch.onnx.export(
        stage, plan.arguments, dynamo=True, opset_version=OPSET, external_data=False, verbose=False
    )
    assert program is not None
    model, _ = run_standard(program.model_proto)
    return bytes(apply(model, precision, "roma")[0].SerializeToString())


def build(trt: Any, model: bytes, target: str | None) -> bytes:
    """A TensorRT-RTX plan."""
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


def time_plan(trt: Any, data: bytes, runs: int) -> tuple[float, float]:
    """Median milliseconds of a run, and megabytes of scratch memory."""
    engine = trt.Runtime(trt.Logger(trt.Logger.ERROR)).deserialize_cuda_engine(data)
    context = engine.create_execution_context()
    kinds = {trt.DataType.FLOAT: torch.float32, trt.DataType.INT32: torch.int32, trt.DataType.INT64: torch.int64}
    tensors = []
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        kind = kinds[engine.get_tensor_dtype(name)]
        tensors.append(torch.rand(tuple(engine.get_tensor_shape(name)), device="cuda").to(kind))
        context.set_tensor_address(name, tensors[-1].data_ptr())
    stream = torch.cuda.Stream()
    for _ in range(3):
        context.execute_async_v3(stream.cuda_stream)
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        context.execute_async_v3(stream.cuda_stream)
    times = []
    for _ in range(runs):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return median(times), engine.device_memory_size_v2 / 1e6


def main() -> None:
    """Exports, builds, times and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--coarse", type=int, default=560)
    parser.add_argument("--fine", type=int, default=864)
    parser.add_argument("--precision", choices=("fp32", "fp16"), default="fp16")
    parser.add_argument("--only", nargs="*", help="names of stages")
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--target", help="sm89, for instance; default: the GPU here")
    parser.add_argument("--build-only", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    import tensorrt_rtx as trt

    torch.manual_seed(0)
    network = deployed(RoMa(ROMA).eval())
    results: dict[str, dict[str, float]] = {}
    coarse, fine = (arguments.coarse,) * 2, (arguments.fine,) * 2
    for plan in plans(network, coarse, fine):
        if arguments.only and plan.name not in arguments.only:
            continue
        start = time.perf_counter()
        data = build(trt, export(network, plan, arguments.precision), arguments.target)
        results[plan.name] = {"build_s": time.perf_counter() - start, "plan_mb": len(data) / 1e6}
        if not arguments.build_only:
            milliseconds, scratch = time_plan(trt, data, arguments.runs)
            results[plan.name] |= {"ms": milliseconds, "scratch_mb": scratch}
        print(f"{plan.name:18s} " + "  ".join(f"{k} {v:.3f}" for k, v in results[plan.name].items()), flush=True)
    print(f"sum of ms: {sum(r.get('ms', 0.0) for r in results.values()):.3f}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
