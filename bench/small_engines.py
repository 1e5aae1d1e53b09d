"""Several fp16 graphs of small networks as TensorRT-RTX engines, timed in turn: a change of a graph against before.

    python bench/small_engines.py prepare OUT NAME=ENGINE.onnx ...     # anywhere: fp16 graphs of fp32 ONNX engines
    python bench/small_engines.py time OUT [--turns 300] [--layers 15] [--json FILE]     # on the GPU
    python bench/small_engines.py count OUT                            # anywhere: how many kernels each engine has

`prepare` needs onnx and the engines' manifests, and writes NAME.onnx with its manifest into OUT. `time` needs neither
torch nor onnx: it builds every graph for the GPU that is here, runs all of them in turn as CUDA graphs on one drawn
pair, and prints the GPU's time of each and its share of the first one's, turn by turn. Graphs of several networks may
lie in one folder: a share is of the first graph, by name, of the same model. The matches of each are compared with
those of that graph.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from gpu_variants import ThisGpu

from matchrt.bench.scene import engine_inputs
from matchrt.engines.build import GraphFacts, build_engine
from matchrt.engines.tensorrt_builder import TensorRTBuilder
from matchrt.manifest import EngineManifest, manifest_path, read_manifest
from matchrt.nvidia.dialect import BuilderOptions
from matchrt.nvidia.modules import open_dialect
from matchrt.runtime.engine_file import read_engine
from matchrt.runtime.opening import open_session
from matchrt.runtime.session import Arrays, Session

WARM_UP = 30
CLOSE = 0.5  # pixels
# A GPU for which the vendor builds without one, for counting.
COUNTED_FOR = "SM89"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    prepare = commands.add_parser("prepare", help="write fp16 graphs of fp32 ONNX engines")
    prepare.add_argument("folder", type=Path)
    prepare.add_argument("engines", nargs="+", metavar="NAME=ENGINE.onnx")
    timed = commands.add_parser("time", help="build and time all graphs of a folder")
    timed.add_argument("folder", type=Path)
    timed.add_argument("--turns", type=int, default=300)
    timed.add_argument("--layers", type=int, default=0, help="also print so many of each engine's slowest layers")
    timed.add_argument("--json", type=Path)
    commands.add_parser("count", help="count the kernels of all graphs of a folder").add_argument("folder", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "prepare":
        write_graphs(arguments.folder, [named.partition("=")[::2] for named in arguments.engines])
    elif arguments.command == "count":
        for path in graphs(arguments.folder):
            print(f"{path.stem}: {count_layers(path)}", flush=True)
    else:
        found = time_graphs(arguments.folder, arguments.turns, arguments.layers)
        if arguments.json is not None:
            arguments.json.write_text(json.dumps(found, indent=2) + "\n")


def graphs(folder: Path) -> list[Path]:
    """The folder's graphs, by name."""
    return sorted(folder.glob("*.onnx"))


def write_graphs(folder: Path, engines: list[tuple[str, str]]) -> None:
    """The fp16 graphs of fp32 engines, under new names."""
    import onnx

    from matchrt.export.precision import apply
    from matchrt.export.precision.fused_argmax import fuse_argmax

    folder.mkdir(parents=True, exist_ok=True)
    for name, path in engines:
        manifest = read_manifest(manifest_path(Path(path)))
        model, _ = apply(onnx.load(path), "fp16", manifest.family)
        model, _ = fuse_argmax(model)
        (folder / f"{name}.onnx").write_bytes(model.SerializeToString(deterministic=True))
        replace(manifest, precision="fp16").write(manifest_path(folder / f"{name}.onnx"))
        print(f"{name}: {len(model.graph.node)} nodes")


def count_layers(path: Path) -> str:
    """The number of kernels of the engine and their kinds, from the builder's log: without a GPU nothing can be asked.

    Works for TensorRT-RTX.
    """
    trt = open_dialect("tensorrt_rtx").trt
    lines: list[str] = []

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            del severity
            lines.append(message)

    log = Log()
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    if not trt.OnnxParser(network, log).parse(path.read_bytes()):
        return f"does not parse: {lines[-1]}"
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, COUNTED_FOR), 0)
    if builder.build_serialized_network(network, config) is None:
        return f"does not build: {lines[-1]}"
    text = next(line for line in reversed(lines) if line.startswith("Layers:"))
    kinds = Counter(re.findall(r"^Name: .*?, LayerType: (\w+),", text, re.MULTILINE))
    return f"{sum(kinds.values())} kernels ({', '.join(f'{count} {kind}' for kind, count in kinds.most_common())})"


def time_graphs(folder: Path, turns: int, layers: int) -> dict[str, Any]:
    """Builds, compares and times all graphs of the folder."""
    with tempfile.TemporaryDirectory() as place:
        sessions: dict[str, Session] = {}
        for path in graphs(folder):
            manifest = read_manifest(manifest_path(path))
            engine = Path(place) / f"{path.stem}.engine"
            try:
                build_here(path, manifest, engine)
                sessions[path.stem] = open_session(read_engine(engine))
            except Exception as error:  # one graph that does not build or run leaves the others alone
                print(f"{path.stem}: does not build or run: {error}", flush=True)
                continue
            print(f"{path.stem}: {engine.stat().st_size / 1e6:.1f} MB", flush=True)
        inputs = {name: engine_inputs(session.manifest) for name, session in sessions.items()}
        bases = {name: _base(name, sessions) for name in sessions}
        kept = {name: agreement(sessions, inputs, bases[name], name) for name in sessions}
        times = run_in_turn(sessions, inputs, turns)
        found = {name: _summary(times, bases[name], name) | {"kept": kept[name]} for name in sessions}
        for name, said in found.items():
            print(
                f"{name:28s} {said['p50']:7.3f} ms ({said['p25']:.3f} to {said['p75']:.3f}), "
                f"{said['share']:.3f} of {bases[name]}, kept {said['kept']:.2%}, {sessions[name].launch_mode()}",
                flush=True,
            )
        if layers:
            for name in sessions:
                print_layers(Path(place) / f"{name}.engine", inputs[name], layers)
        return found


def build_here(path: Path, manifest: EngineManifest, engine: Path) -> None:
    """The graph as an engine for this GPU, with its manifest."""
    facts = GraphFacts(model=manifest.model, family=manifest.family, precision="fp16", source=manifest.source,
                       input=manifest.input, matching=manifest.matching, passes=(), build_key="0" * 64)  # fmt: skip
    builder = TensorRTBuilder(ThisGpu(open_dialect("tensorrt_rtx").trt), BuilderOptions())
    built = build_engine(path.read_bytes(), facts, builder)
    engine.write_bytes(built.data)
    built.manifest.write(manifest_path(engine))


def _base(name: str, sessions: dict[str, Session]) -> str:
    """The first graph of the same model."""
    model = sessions[name].manifest.model
    return next(other for other, session in sessions.items() if session.manifest.model == model)


def agreement(sessions: dict[str, Session], inputs: dict[str, Arrays], base: str, name: str) -> float:
    """The share of the base's matches that the graph has too, within `CLOSE`."""
    first, second = (_points(sessions[key].run(inputs[key])) for key in (base, name))
    same = [np.abs(second[key] - point).max() <= CLOSE for key, point in first.items() if key in second]
    return sum(same) / max(len(first), 1)


def _points(outputs: Arrays) -> dict[tuple[float, ...], Any]:
    count = int(outputs["num_matches"][0])
    pairs = zip(outputs["keypoints0"][0, :count], outputs["keypoints1"][0, :count], strict=True)
    return {tuple(first.tolist()): second for first, second in pairs}


def run_in_turn(sessions: dict[str, Session], inputs: dict[str, Arrays], turns: int) -> dict[str, Any]:
    """The GPU's milliseconds of each call, by engine."""
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for turn in range(WARM_UP + turns):
        for name, session in sessions.items():
            pending = session.start(inputs[name])
            pending.result()
            if turn >= WARM_UP:
                times[name].append(pending.timings()["gpu"])
    return {name: np.array(values) for name, values in times.items()}


def _summary(times: dict[str, Any], base: str, name: str) -> dict[str, float]:
    low, middle, high = np.percentile(times[name], (25, 50, 75))
    return {"p25": low, "p50": middle, "p75": high, "share": float(np.median(times[name] / times[base]))}


def print_layers(engine: Path, inputs: Arrays, count: int) -> None:
    """The slowest layers, as TensorRT's profiler measures them one by one."""
    from layer_times import layer_times

    from matchrt.runtime.gpu.loaded import LoadedEngine

    times = layer_times(LoadedEngine(read_engine(engine)), dict(inputs), 20)
    print(f"{engine.stem}: {len(times)} layers, {sum(times.values()):.3f} ms one by one")
    for name, milliseconds in sorted(times.items(), key=lambda item: -item[1])[:count]:
        print(f"  {milliseconds:8.4f} ms  {name[:150]}")


if __name__ == "__main__":
    main()
