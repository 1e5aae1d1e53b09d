"""RoMa v2 on one GPU: torch eager, torch.compile and a TensorRT-RTX fp16 engine of the same network, in one process.

    python bench/romav2_vs_torch.py prepare base.onnx [--size 640] [--both-ways] [--flow smooth]    # no GPU: minutes
    python bench/romav2_vs_torch.py run base.onnx [--runs 30] [--no-compile] [--json FILE]          # on the GPU

`prepare` exports the network with random weights, writes fp16 into the graph, and takes the weights out of the file,
which leaves a few megabytes. `run` makes the same weights from the same seed, puts them back, builds an engine for the
GPU that is there, and times all three on the GPU's clock; the engine's warp is compared with that of torch in float32.
So a borrowed GPU waits for no export. Building takes about two minutes there, and torch.compile another two or three.
`run` needs torch, onnx and tensorrt_rtx, and matchrt's source.

With random weights the first warp jumps from pixel to pixel, which is the worst case for gathers. A trained network's
is smooth. `--flow smooth` replaces it by the identity and a twentieth of it, in all three alike; `--flow random` leaves
it. Random weights change no time otherwise.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from roma_rtx import Engine, build, interleaved
from torch import Tensor

from matchrt.models.roma.config import Size
from matchrt.models.roma.grid import pixel_grid
from matchrt.models.romav2.config import RoMaV2Config
from matchrt.models.romav2.engine_graph import RoMaV2Graph
from matchrt.models.romav2.network import RoMaV2, Tables
from matchrt.models.romav2.refiner import Estimate

MATCHES = 2048
# Weights of fewer bytes stay in the file.
SMALL = 1 << 14


class TimedGraph(RoMaV2Graph):
    """Without the precision, which engines have on request: neither they nor torch compute it here."""

    def __init__(self, network: RoMaV2, size: Size, published: bool = False) -> None:
        super().__init__(network, MATCHES, size, None, published)
        self.outputs = self.outputs[:-1]

    def forward(
        self, image0: Tensor, image1: Tensor, coarse0: Tensor | None = None, coarse1: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """See `RoMaV2Graph`."""
        return super().forward(image0, image1, coarse0, coarse1)[:-1]


class SmoothStart(RoMaV2):
    """The network with the first warp near the identity."""

    def coarse_match(self, images: Tensor, tables: Tables, probe: Any = None) -> Estimate:
        """See `RoMaV2`."""
        found = super().coarse_match(images, tables, probe)
        here = pixel_grid(found.warp.shape[2], found.warp.shape[3], found.warp.device)
        return Estimate(here + 0.05 * found.warp.tanh(), found.logit)


def random_network(both_ways: bool, flow: str) -> RoMaV2:
    """The network in evaluation mode, with the same random weights on every machine."""
    with torch.device("meta"):
        network = (SmoothStart if flow == "smooth" else RoMaV2)(RoMaV2Config(symmetric=both_ways))
    generator = torch.Generator().manual_seed(0)
    state = {}
    for key, tensor in network.state_dict().items():
        values = 2 * torch.rand(tensor.shape, generator=generator) - 1
        if not tensor.is_floating_point():
            values = torch.zeros(tensor.shape, dtype=tensor.dtype)
        elif key.endswith("running_var") or (tensor.ndim == 1 and key.endswith("weight")):
            values = 1 + 0.1 * values
        elif key.endswith("gamma"):
            values = 0.25 + 0.05 * values
        elif key == "matcher.omega":
            values *= 10
        elif tensor.ndim < 2 or key.endswith(("cls_token", "storage_tokens")):
            values *= 0.05
        else:
            gain = 0.25 if "output_conv2.2" in key else 1.0 if tensor.ndim == 2 or "depthwise" in key else 1.4
            values *= gain * (3 / tensor[0].numel()) ** 0.5
        state[key] = values
    network.load_state_dict(state, strict=True, assign=True)
    return network.eval()


def forms(graph: RoMaV2Graph) -> Iterator[tuple[str, bool, np.ndarray]]:
    """Every large tensor of the graph as it may stand in the file: its name, whether it is transposed, its values."""
    for name, tensor in (*graph.named_parameters(), *graph.named_buffers()):
        values = tensor.detach().numpy()
        yield name, False, values
        if values.ndim == 2:
            yield name, True, np.ascontiguousarray(values.T)


def _digest(values: np.ndarray) -> str:
    return hashlib.sha256(
        str((values.dtype, values.shape)).encode() + np.ascontiguousarray(values).tobytes()
    ).hexdigest()


def strip(model: onnx.ModelProto, graph: RoMaV2Graph) -> int:
    """Takes the weights out of the model that the graph has too, and notes where they come from. Returns the rest."""
    found: dict[str, dict[str, Any]] = {}
    for name, turned, values in forms(graph):
        for kind in ("float16", "float32"):
            found[_digest(values.astype(kind))] = {"from": name, "transposed": turned}
    sources = {}
    for weight in model.graph.initializer:
        if len(weight.raw_data) < SMALL:
            continue
        source = found.get(_digest(numpy_helper.to_array(weight)))
        if source is not None:
            sources[weight.name] = source
            weight.ClearField("raw_data")
    model.metadata_props.add(key="weights", value=json.dumps(sources))
    return model.ByteSize()


def refill(model: onnx.ModelProto, graph: RoMaV2Graph) -> None:
    """Puts the weights back."""
    sources = json.loads(next(entry.value for entry in model.metadata_props if entry.key == "weights"))
    tensors = {name: tensor.detach() for name, tensor in (*graph.named_parameters(), *graph.named_buffers())}
    for weight in model.graph.initializer:
        if (source := sources.get(weight.name)) is not None:
            values = tensors[source["from"]].numpy()
            values = values.T if source["transposed"] else values
            kind = np.float16 if weight.data_type == onnx.TensorProto.FLOAT16 else np.float32
            weight.raw_data = np.ascontiguousarray(values.astype(kind)).tobytes()


def prepare(arguments: argparse.Namespace) -> None:
    """Writes the graph without its weights."""
    from matchrt.export.passes.standard import run_standard
    from matchrt.export.precision import apply

    size = (arguments.size, arguments.size)
    graph = TimedGraph(random_network(arguments.both_ways, arguments.flow), size).eval()
    images = tuple(torch.zeros(1, *size, 3, dtype=torch.uint8) for _ in range(2))
    program = torch.onnx.export(
        graph,
        images,
        dynamo=True,
        opset_version=18,
        input_names=list(graph.inputs),
        output_names=list(graph.outputs),
        external_data=False,
        verbose=False,
    )
    assert program is not None
    model, _ = run_standard(program.model_proto)
    del program
    lowered, _ = apply(model, arguments.precision, "romav2")
    del model
    for key in ("size", "both_ways", "flow", "precision"):
        lowered.metadata_props.add(key=key, value=json.dumps(getattr(arguments, key)))
    left = strip(lowered, graph)
    arguments.graph.write_bytes(lowered.SerializeToString())
    print(f"{arguments.graph}: {left / 1e6:.1f} MB without the weights")


def textures(size: int) -> list[Tensor]:
    """Two uint8 images `[1,size,size,3]`, the second one shifted."""
    generator = torch.Generator().manual_seed(1)
    noise = torch.zeros(1, 3, size, size)
    for cell in (4, 16, 64):
        coarse = torch.rand(1, 3, size // cell + 1, size // cell + 1, generator=generator)
        noise += torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic") / 3
    first = (noise.clamp(0, 1) * 255).byte().permute(0, 2, 3, 1)
    return [first.contiguous(), first.roll((7, 12), (1, 2)).contiguous()]


def run(arguments: argparse.Namespace) -> None:
    """Builds, measures and prints."""
    import tensorrt_rtx as trt

    started = time.perf_counter()

    def tell(what: str) -> None:
        print(f"{time.perf_counter() - started:6.1f} s  {what}", flush=True)

    model = onnx.load_model_from_string(arguments.graph.read_bytes())
    facts = {e.key: json.loads(e.value) for e in model.metadata_props if e.key != "weights"}
    size, both_ways = facts["size"], facts["both_ways"]
    network = random_network(both_ways, facts["flow"])
    graph = TimedGraph(network, (size, size)).eval()
    refill(model, graph)
    tell("weights in the graph")
    data = model.SerializeToString()
    del model
    plan = build(trt, data, arguments.target)
    del data
    tell(f"plan of {len(plan) / 1e6:.0f} MB")
    document: dict[str, Any] = {**facts, "plan_mb": len(plan) / 1e6, "torch": torch.__version__, "rtx": trt.__version__}
    if not arguments.build_only:
        document |= measure(trt, plan, network, arguments, size, tell)
    print(json.dumps(document, indent=1))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")


def measure(
    trt: Any,
    plan: bytes,
    network: RoMaV2,
    arguments: argparse.Namespace,
    size: int,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """Times and memory of all three, and how far the engine's warp is from torch's in float32."""
    images = [image.cuda() for image in textures(size)]
    engine = Engine(trt, plan, {f"image{index}": image for index, image in enumerate(images)})
    engine.run()
    tell(f"the engine alone: {interleaved({'engine': engine.run}, arguments.runs)['engine']:.2f} ms")
    memory = {"engine": engine.scratch_mb + len(plan) / 1e6}
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    published = TimedGraph(network, (size, size), published=True).eval().cuda()
    with torch.inference_mode():
        expected = published.tensors(*images)
    off = (engine.tensors["warp"] - expected["warp"]).abs().amax(dim=3) * size / 2
    sure = off[expected["certainty"] > 0.5]
    certainty = (engine.tensors["certainty"] - expected["certainty"]).abs()
    warp = {f"p{p}": float(sure.float().quantile(p / 100)) if len(sure) else None for p in (50, 90)}
    document: dict[str, Any] = {"warp_px_where_sure": warp, "certainty_mean": float(certainty.mean())}
    tell(f"torch in float32; the engine's warp is off by {warp}")
    del expected, off, certainty
    subjects: dict[str, Callable[..., Any]] = {"torch eager": published}
    if not arguments.no_compile:
        subjects["torch.compile"] = torch.compile(published)

    def half(module: Callable[..., Any]) -> Callable[[], Any]:
        def call() -> Any:
            with torch.inference_mode(), torch.autocast("cuda", torch.float16):
                return module(*images)

        return call

    calls: dict[str, Callable[[], Any]] = {"engine": engine.run}
    for name, module in subjects.items():
        calls[name] = half(module)
        calls[name]()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        calls[name]()
        memory[name] = torch.cuda.max_memory_allocated() / 1e6
        tell(f"{name}: first runs done")
    milliseconds = interleaved(calls, arguments.runs)
    return document | {"gpu": torch.cuda.get_device_name(), "gpu_ms": milliseconds, "memory_mb": memory}


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    first = commands.add_parser("prepare", help="export a graph without weights")
    first.add_argument("graph", type=Path)
    first.add_argument("--size", type=int, default=640)
    first.add_argument("--both-ways", action="store_true")
    first.add_argument("--flow", choices=("smooth", "random"), default="smooth")
    first.add_argument("--precision", choices=("fp32", "fp16"), default="fp16")
    first.set_defaults(do=prepare)
    second = commands.add_parser("run", help="build it here and time it")
    second.add_argument("graph", type=Path)
    second.add_argument("--runs", type=int, default=30)
    second.add_argument("--no-compile", action="store_true", help="leave torch.compile out, which takes minutes")
    second.add_argument("--target", help="sm89, for instance; default: the GPU here")
    second.add_argument("--build-only", action="store_true", help="without a GPU, with --target")
    second.add_argument("--json", type=Path)
    second.set_defaults(do=run)
    arguments = parser.parse_args()
    arguments.do(arguments)


if __name__ == "__main__":
    main()
