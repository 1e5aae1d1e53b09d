"""Where RoMa's time goes: every stage exported, built and timed alone, with random weights.

    python bench/roma_stages.py [--only gp refiner8] [--forms half-out dense1 | all] [--base OTHER/src] [--json FILE]
    python bench/roma_stages.py --build-only --target sm89 --coarse 112 --fine 168       # without a GPU
    python bench/roma_stages.py --list

Forms of a stage are timed in turn: the network as it is here, as another checkout has it (`--base`, its folder `src`),
and the other forms of `roma_variants.py` that change the stage. Stages that read a flow are timed with a random one,
where every pixel looks somewhere else, and with a smooth one, such as trained networks give.

An engine that is one fused region tells nothing of its parts; these stages do, and their sum over the time of the whole
engine says what fusing them is worth. Timed on the GPU by events around a captured CUDA graph; needs torch with CUDA.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from roma_rtx import Engine, build, interleaved, smooth_flow
from roma_variants import VARIANTS
from torch import Tensor, nn

from matchrt.export.passes.standard import run_standard
from matchrt.export.precision import apply
from matchrt.families.roma import ROMA
from matchrt.models.roma.config import Size
from matchrt.models.roma.decoder import Flow
from matchrt.models.roma.deployed import deployed
from matchrt.models.roma.network import RoMa
from matchrt.models.roma.selection import select_dense

OPSET = 18
MATCHES = 2048
HERE, BASE = "here", "base"


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
    """A stage and example arguments by name; batch 2 is the two images, or the two directions."""

    name: str
    run: Callable[..., Any]
    arguments: dict[str, Tensor]


def plans(network: RoMa, coarse: Size, fine: Size) -> Iterator[Plan]:
    """The stages of both passes, in order."""
    config, grid = network.config, network.patch_grid(coarse)
    position = network.dinov2.position(grid).detach()
    image, large = torch.rand(2, 3, *coarse), torch.rand(2, 3, *fine)
    yield Plan("dinov2", lambda n, x: n.dinov2(x, position), {"image": image})
    yield Plan("vgg-coarse", lambda n, x: tuple(n.encoder.cnn(x).values()), {"image": image})
    tokens = torch.randn(2, grid[0] * grid[1], config.dinov2.dim)
    yield Plan("gp", lambda n, x: _process(n, x, grid), {"tokens": tokens})
    yield Plan("coarse-match", lambda n, x: _coarse(n, x, grid), {"tokens": tokens})
    yield from (_refiner(network, r.scale, _size(coarse, r.scale, grid), "coarse") for r in config.refiners)
    yield Plan("vgg-fine", lambda n, x: tuple(n.encoder.cnn(x).values()), {"image": large})
    yield from (_refiner(network, r.scale, _size(fine, r.scale, grid), "fine") for r in config.refiners[1:])
    yield from (_blocks(network, r.scale, _size(fine, r.scale, grid)) for r in config.refiners[1:])
    flow, logit = torch.rand(2, 2, *fine) * 2 - 1, torch.randn(2, 1, *fine)
    yield Plan("selection", _select, {"flow": flow, "logit": logit, "coarse": torch.randn(2, 1, *grid)})


def _size(size: Size, scale: int, grid: Size) -> Size:
    return grid if scale == 16 else (size[0] // scale, size[1] // scale)


def _both(network: RoMa, scale: int, features: Tensor, grid: Size) -> tuple[Any, Any]:
    """Projected features of the images matched from and to, of tokens `[2,N,C]` or maps `[2,C,h,w]`."""
    try:
        from matchrt.models.roma.feature_map import FeatureMap
    except ImportError:  # a checkout before maps were rows
        planes = features.transpose(1, 2).reshape(2, -1, *grid) if scale == 16 else features
        pyramid: Any = network.decoder.project({scale: planes})  # type: ignore[dict-item]
        first, second = network._pairs(pyramid)  # type: ignore[operator]
    else:
        given = FeatureMap.of_rows(features, grid) if scale == 16 else FeatureMap.of(features)
        first, second = network.pairs(network.decoder.project({scale: given}))
    return first[scale], second[scale]


def _process(network: RoMa, tokens: Tensor, grid: Size) -> Tensor:
    result: Tensor = network.decoder.gps["16"](*_both(network, 16, tokens, grid))
    return result


def _coarse(network: RoMa, tokens: Tensor, grid: Size) -> tuple[Tensor, Tensor]:
    flow = network.decoder.coarse_match(*_both(network, 16, tokens, grid))
    return flow.flow, flow.certainty


def _refiner(network: RoMa, scale: int, size: Size, which: str) -> Plan:
    """The projection of the encoder's features, and the refiner."""
    config = network.config
    channels = {16: config.dinov2.dim, **{2**i: s[-1] for i, s in enumerate(config.vgg)}}[scale]
    shape = (2, size[0] * size[1], channels) if scale == 16 else (2, channels, *size)

    def run(n: RoMa, features: Tensor, flow: Tensor) -> Any:
        return n.decoder.conv_refiner[str(scale)](*_both(n, scale, features, size), flow, 1.0)

    flow = torch.rand(2, 2, *size) * 2 - 1
    return Plan(f"refiner{scale}-{which}", run, {"features": torch.randn(shape), "flow": flow})


def _blocks(network: RoMa, scale: int, size: Size) -> Plan:
    """The hidden blocks alone, which the refiner's stage contains too."""
    channels = network.decoder.conv_refiner[str(scale)].block1[0].out_channels  # type: ignore[index,union-attr]
    x = torch.randn(2, channels, *size)
    return Plan(f"blocks{scale}", lambda n, x: n.decoder.conv_refiner[str(scale)].hidden_blocks(x), {"x": x})


def _select(network: RoMa, flow: Tensor, logit: Tensor, coarse: Tensor) -> tuple[Tensor, ...]:
    out = select_dense(network.finish(Flow(flow, logit), coarse), MATCHES, 0.05, network.config.symmetric)
    return out.keypoints0, out.keypoints1, out.scores, out.num_matches


def export(network: RoMa, plan: Plan, precision: str) -> bytes:
    """The stage as ONNX bytes, through the passes and the precision rules of the whole network."""
    program = torch.onnx.export(
        Stage(network, plan.run).eval(),
        tuple(plan.arguments.values()),
        dynamo=True,
        opset_version=OPSET,
        input_names=list(plan.arguments),
        external_data=False,
        verbose=False,
    )
    assert program is not None
    model, _ = run_standard(program.model_proto)
    return bytes(apply(model, precision, "roma")[0].SerializeToString())


def export_all(arguments: argparse.Namespace, forms: list[str], folder: Path) -> list[str]:
    """Writes STAGE.FORM.onnx of every chosen stage and form into the folder; returns the stages' names."""
    torch.manual_seed(0)
    network = RoMa(ROMA).eval()
    names = []
    for form in forms:
        changed = deployed(network)
        undo = VARIANTS[form].change(changed) if form in VARIANTS else None
        for plan in plans(changed, (arguments.coarse,) * 2, (arguments.fine,) * 2):
            if not _chosen(plan.name, arguments.only) or not (
                form not in VARIANTS or plan.name.startswith(VARIANTS[form].stages)
            ):
                continue
            (folder / f"{plan.name}.{form}.onnx").write_bytes(export(changed, plan, arguments.precision))
            names += [] if form in VARIANTS else [plan.name]
        if undo is not None:
            undo()
    return names


def _chosen(name: str, only: list[str] | None) -> bool:
    return not only or name.startswith(tuple(only))


def _export_base(arguments: argparse.Namespace, folder: Path) -> subprocess.Popen[bytes]:
    """Starts this script with the other checkout's package."""
    path = os.pathsep.join([str(arguments.base.resolve()), os.environ.get("PYTHONPATH", "")])
    line = [sys.executable, __file__, "--export-to", str(folder), "--precision", arguments.precision]
    line += ["--coarse", str(arguments.coarse), "--fine", str(arguments.fine)]
    line += ["--only", *arguments.only] if arguments.only else []
    return subprocess.Popen(line, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.DEVNULL)


def measure(trt: Any, plans_of: dict[str, bytes], size: Size | None, runs: int) -> dict[str, dict[str, float]]:
    """Milliseconds of each form of a stage, in turn; size: of its flow, or None if it reads none."""
    engines = {form: Engine(trt, data, {}) for form, data in plans_of.items()}
    results: dict[str, dict[str, float]] = {form: {"scratch_mb": e.scratch_mb} for form, e in engines.items()}
    flows = {"ms": None} if size is None else {"ms": torch.rand(2, 2, *size) * 2 - 1, "smooth_ms": smooth_flow(*size)}
    for key, flow in flows.items():
        for engine in engines.values():
            engine.set({} if flow is None else {"flow": flow})
        times = interleaved({form: engine.run for form, engine in engines.items()}, runs)
        for form, value in times.items():
            results[form][key] = value
    return results


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--coarse", type=int, default=560)
    parser.add_argument("--fine", type=int, default=864)
    parser.add_argument("--precision", choices=("fp32", "fp16"), default="fp16")
    parser.add_argument("--only", nargs="*", help="beginnings of the names of stages")
    parser.add_argument("--forms", nargs="*", default=[], help="other forms, or 'all'")
    parser.add_argument("--base", type=Path, help="the folder `src` of another checkout, to compare with")
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--target", help="sm89, for instance; default: the GPU here")
    parser.add_argument("--build-only", action="store_true")
    parser.add_argument("--list", action="store_true", help="names the other forms")
    parser.add_argument("--export-to", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def main() -> None:
    """Exports, builds, times and prints."""
    arguments = _parse()
    if arguments.list:
        print("\n".join(f"{name:10s} {v.what} ({', '.join(v.stages)})" for name, v in VARIANTS.items()))
        return
    if arguments.export_to is not None:
        for path in (arguments.export_to / name for name in export_all(arguments, [BASE], arguments.export_to)):
            print(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        _compare(arguments, Path(folder))


def _compare(arguments: argparse.Namespace, folder: Path) -> None:
    import tensorrt_rtx as trt

    base = None if arguments.base is None else _export_base(arguments, folder)
    others = list(VARIANTS) if arguments.forms == ["all"] else arguments.forms
    names = export_all(arguments, [HERE, *others], folder)
    if base is not None and base.wait():
        raise SystemExit(f"the export of {arguments.base} failed")
    results: dict[str, dict[str, dict[str, float]]] = {}
    for name in names:
        built, seconds = {}, {}
        for form in (BASE, HERE, *others):
            path = folder / f"{name}.{form}.onnx"
            if path.exists():
                start = time.perf_counter()
                built[form] = build(trt, path.read_bytes(), arguments.target)
                seconds[form] = {"build_s": time.perf_counter() - start, "plan_mb": len(built[form]) / 1e6}
        results[name] = seconds
        if not arguments.build_only:
            timed = measure(trt, built, _flow_size(name, arguments), arguments.runs)
            results[name] = {form: {**timed[form], **seconds[form]} for form in built}
        for form, values in results[name].items():
            print(f"{name:15s} {form:9s} " + "  ".join(f"{k} {v:.3f}" for k, v in values.items()), flush=True)
        if arguments.json is not None:
            arguments.json.write_text(json.dumps(results, indent=1) + "\n")
    parts = [r for name, r in results.items() if not name.startswith(("gp", "blocks"))]
    for form in (BASE, HERE):
        print(f"sum of {form}: {sum(r.get(form, {}).get('ms', 0.0) for r in parts):.3f} ms")


def _flow_size(name: str, arguments: argparse.Namespace) -> Size | None:
    """The size of the flow that a stage reads."""
    if not name.startswith("refiner"):
        return None
    stem, which = name.split("-")
    scale, side = int(stem.removeprefix("refiner")), getattr(arguments, which)
    length = side // ROMA.dinov2.patch if scale == 16 else side // scale
    return length, length


if __name__ == "__main__":
    main()
