"""The whole RoMa engine, 560 and 864 both ways, from skeletons: graphs whose large weights are drawn from a seed.

    python bench/roma_whole.py export FILE [--base OTHER/src] [--forms half-out ...] [--coarse 560] [--fine 864]
    python bench/roma_whole.py time NAME=FILE [NAME=FILE ...] [--torch] [--runs 30] [--json FILE]

`export` writes the engine's graph in half precision without its large weights: of each, the mean and the deviation are
kept. The file has a few megabytes and goes where no weights can be carried. `time` fills the weights in, builds the
engines in processes beside each other, and times them in turn, with smooth flows and with random ones; with `--torch`
also the same network under `torch.compile` and autocast(float16).

Random weights give flows of which no two neighbours agree. So the graph has one more input, `mix`: the coarse flow is
`mix` times the network's plus 1 - mix times a smooth one, close to the identity.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from roma_rtx import Engine, build, interleaved
from roma_variants import VARIANTS
from torch import Tensor

from matchrt.export.passes.standard import run_standard
from matchrt.export.precision import apply
from matchrt.export.precision.fused_argmax import fuse_argmax
from matchrt.export.to_onnx import drop_dense
from matchrt.families.roma import ROMA
from matchrt.models.roma.config import Size
from matchrt.models.roma.decoder import Flow, RoMaDecoder
from matchrt.models.roma.engine_graph import RoMaGraph
from matchrt.models.roma.grid import pixel_grid
from matchrt.models.roma.network import RoMa

OPSET, MATCHES = 18, 2048
SMOOTH, RANDOM = 0.001, 1.0
# Constants of more bytes are weights, unless they compress to a small part of themselves, as pixel grids do.
LARGE, COMPRESSIBLE = 16384, 0.2
# Values of a weight that are looked at.
SAMPLE = 65536


class MixedDecoder(RoMaDecoder):
    """The decoder with a coarse flow that is mixed with a smooth one."""

    def coarse_match(self, *arguments: Any) -> Flow:  # type: ignore[override]
        """As in `RoMaDecoder`."""
        flow, mix = super().coarse_match(*arguments), self.share[0]
        height, width = flow.flow.shape[2:]
        smooth = 0.9 * pixel_grid(height, width, mix.device) + 0.03
        return Flow(mix * flow.flow + (1 - mix) * smooth, flow.certainty)


class Mixed(RoMaGraph):
    """The engine's graph with the input `mix`."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        # A list, because exporters refuse tensors that become attributes of modules.
        self.network.decoder.share = [None]
        self.network.decoder.__class__ = MixedDecoder

    def forward(  # type: ignore[override]
        self, image0: Tensor, image1: Tensor, coarse0: Tensor, coarse1: Tensor, mix: Tensor
    ) -> Any:
        """The engine's outputs."""
        share = self.network.decoder.share
        share[0] = mix
        result = super().forward(image0, image1, coarse0, coarse1)
        share[0] = None
        return result


def graph_of(forms: list[str], coarse: Size, fine: Size) -> Mixed:
    """The engine's graph with random weights, changed to other forms."""
    torch.manual_seed(0)
    graph = Mixed(RoMa(ROMA).eval(), MATCHES, fine, coarse).eval()
    assert isinstance(graph.network, RoMa)
    for form in forms:
        VARIANTS[form].change(graph.network)
    return graph


def example(coarse: Size, fine: Size, device: str = "cpu") -> tuple[Tensor, ...]:
    """Arguments of `Mixed`."""
    generator = torch.Generator().manual_seed(1)
    shapes = [(1, *size, 3) for size in (fine, fine, coarse, coarse)]
    images = [torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator) for shape in shapes]
    return tuple(x.to(device) for x in (*images, torch.full((1,), SMOOTH)))


def export(arguments: argparse.Namespace) -> None:
    """Writes a skeleton."""
    if arguments.base is not None:
        path = os.pathsep.join([str(arguments.base.resolve()), os.environ.get("PYTHONPATH", "")])
        line = [sys.executable, __file__, "export", str(arguments.file), "--coarse", str(arguments.coarse)]
        subprocess.run([*line, "--fine", str(arguments.fine)], env={**os.environ, "PYTHONPATH": path}, check=True)
        return
    coarse, fine = (arguments.coarse,) * 2, (arguments.fine,) * 2
    graph = graph_of(arguments.forms, coarse, fine)
    inputs, outputs = graph.inputs, graph.outputs
    program = torch.onnx.export(
        graph,
        example(coarse, fine),
        dynamo=True,
        opset_version=OPSET,
        input_names=[*inputs, "mix"],
        output_names=list(outputs),
        external_data=False,
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    del program, graph
    drop_dense(model)
    model, _ = run_standard(model)
    model, _ = apply(model, "fp16", "roma")
    model, _ = fuse_argmax(model)
    arguments.file.write_bytes(skeleton(model))
    print(f"{arguments.file}: {arguments.file.stat().st_size / 1e6:.2f} MB")


def skeleton(model: Any) -> bytes:
    """The model without large weights, compressed; each leaves its mean and deviation behind."""
    from onnx import TensorProto, numpy_helper

    for weight in model.graph.initializer:
        if weight.data_type not in (TensorProto.FLOAT, TensorProto.FLOAT16):
            continue
        values = numpy_helper.to_array(weight)
        sample = values.ravel()[:SAMPLE]
        if values.nbytes <= LARGE or len(zlib.compress(sample.tobytes(), 1)) < COMPRESSIBLE * sample.nbytes:
            continue
        wide = sample.astype(np.float64)
        weight.ClearField("raw_data")
        weight.doc_string = json.dumps({"mean": float(wide.mean()), "deviation": float(wide.std())})
    return zlib.compress(model.SerializeToString(), 6)


def filled(data: bytes) -> bytes:
    """ONNX bytes of a skeleton: weights of the same means and deviations, from one seed."""
    import onnx

    model = onnx.ModelProto.FromString(zlib.decompress(data))
    generator = np.random.default_rng(0)
    for weight in model.graph.initializer:
        if weight.doc_string:
            drawn = json.loads(weight.doc_string)
            values = generator.standard_normal(tuple(weight.dims), dtype=np.float32)
            kind = np.float16 if weight.data_type == onnx.TensorProto.FLOAT16 else np.float32
            weight.raw_data = (values * drawn["deviation"] + drawn["mean"]).astype(kind).tobytes()
            weight.doc_string = ""
    return bytes(model.SerializeToString())


def _build(source: Path, target: str | None, plan: Path) -> None:
    import tensorrt_rtx as trt

    start = time.perf_counter()
    plan.write_bytes(build(trt, filled(source.read_bytes()), target))
    print(f"built {source.name} in {time.perf_counter() - start:.0f} s, {plan.stat().st_size / 1e6:.0f} MB", flush=True)


def _compiled(arguments: argparse.Namespace) -> Callable[[Tensor], Any]:
    """The network of this checkout under torch.compile; called with `mix`."""
    coarse, fine = (arguments.coarse,) * 2, (arguments.fine,) * 2
    graph = graph_of([], coarse, fine).cuda()
    *images, _ = example(coarse, fine, "cuda")
    compiled = torch.compile(graph)

    def call(mix: Tensor) -> Any:
        with torch.inference_mode(), torch.autocast("cuda", torch.float16):
            return compiled(*images, mix)

    start = time.perf_counter()
    for _ in range(3):
        call(torch.full((1,), SMOOTH, device="cuda"))
    torch.cuda.synchronize()
    print(f"compiled in {time.perf_counter() - start:.0f} s", flush=True)
    return call


def time_all(arguments: argparse.Namespace) -> None:
    """Builds and times."""
    import tempfile

    sources = {name: Path(file) for name, _, file in (text.partition("=") for text in arguments.skeletons)}
    with tempfile.TemporaryDirectory() as folder:
        plans = {name: Path(folder) / f"{index}.engine" for index, name in enumerate(sources)}
        spawn = multiprocessing.get_context("spawn")
        builds = [spawn.Process(target=_build, args=(f, arguments.target, plans[n])) for n, f in sources.items()]
        for process in builds:
            process.start()
        compiled = _compiled(arguments) if arguments.torch else None
        for process in builds:
            process.join()
        if any(process.exitcode for process in builds):
            raise SystemExit("a build failed")
        if arguments.build_only:
            return
        _time(arguments, plans, compiled)


def _time(arguments: argparse.Namespace, plans: dict[str, Path], compiled: Callable[[Tensor], Any] | None) -> None:
    import tensorrt_rtx as trt

    *images, _ = example((arguments.coarse,) * 2, (arguments.fine,) * 2, "cuda")
    inputs = dict(zip(("image0", "image1", "coarse0", "coarse1"), images, strict=True))
    engines = {name: Engine(trt, plan.read_bytes(), inputs) for name, plan in plans.items()}
    document: dict[str, Any] = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "rtx": trt.__version__}
    for kind, share in (("smooth", SMOOTH), ("random", RANDOM)):
        mix = torch.full((1,), share, device="cuda")
        for engine in engines.values():
            engine.set({"mix": mix})
        calls: dict[str, Callable[[], Any]] = {name: engine.run for name, engine in engines.items()}
        if compiled is not None:
            calls["torch.compile"] = lambda mix=mix: compiled(mix)  # type: ignore[misc]
        document[kind] = {name: round(value, 3) for name, value in interleaved(calls, arguments.runs).items()}
    document["scratch_mb"] = {name: round(engine.scratch_mb) for name, engine in engines.items()}
    document["matches"] = {name: int(engine.tensors["num_matches"][0]) for name, engine in engines.items()}
    text = json.dumps(document, indent=1)
    print(text)
    if arguments.json is not None:
        arguments.json.write_text(text + "\n")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    writer = commands.add_parser("export")
    writer.add_argument("file", type=Path)
    writer.add_argument("--base", type=Path)
    writer.add_argument("--forms", nargs="*", default=[])
    writer.set_defaults(run=export)
    timer = commands.add_parser("time")
    timer.add_argument("skeletons", nargs="+")
    timer.add_argument("--torch", action="store_true")
    timer.add_argument("--build-only", action="store_true")
    timer.add_argument("--target")
    timer.add_argument("--runs", type=int, default=30)
    timer.add_argument("--json", type=Path)
    timer.set_defaults(run=time_all)
    for command in (writer, timer):
        command.add_argument("--coarse", type=int, default=560)
        command.add_argument("--fine", type=int, default=864)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
