"""Where an engine's time goes on the GPU: TensorRT's own profiler, grouped by the parts of the network.

    python bench/layer_times.py ENGINE [--runs 20] [--top 25] [--json FILE]

The profiler measures every layer by itself, which adds to each: shares mean more than sums.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from matchrt.bench.scene import engine_inputs
from matchrt.runtime.engine_file import read_engine
from matchrt.runtime.gpu.layout import lay_out
from matchrt.runtime.gpu.loaded import LoadedEngine
from matchrt.runtime.gpu.memory import DeviceMemory, Staging
from matchrt.runtime.gpu.shape_runner import ShapeRunner
from matchrt.runtime.gpu.stream import Stream, copy_to_device

DEPTH = 2


def make_profiler(trt: Any) -> Any:
    """Collects milliseconds by layer."""

    class Profiler(trt.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.layers: dict[str, list[float]] = defaultdict(list)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.layers[layer_name].append(ms)

    return Profiler()


def layer_times(engine: LoadedEngine, inputs: dict[str, Any], runs: int) -> dict[str, float]:
    """Median milliseconds of every layer."""
    runner = ShapeRunner(engine, {name: tuple(array.shape) for name, array in inputs.items()})
    specs = engine.manifest.inputs
    block = Staging(lay_out(specs, {name: tuple(array.shape) for name, array in inputs.items()}).size)
    outputs, scratch, stream = DeviceMemory(runner.outputs.size), DeviceMemory(runner.scratch_bytes), Stream()
    for place in runner.inputs.places:
        place.view(block.host.bytes)[...] = inputs[place.name]
    runner.place(scratch, block.device.pointer, outputs.pointer)
    copy_to_device(block.device.pointer, block.host.pointer, runner.inputs.size, stream.handle)
    for _ in range(3):
        runner.enqueue(stream.handle)
        stream.wait()
    profiler = make_profiler(engine.dialect.trt)
    runner.context.profiler = profiler
    for _ in range(runs):
        runner.enqueue(stream.handle)
        stream.wait()
    # A layer may be reported several times a run (once a kernel).
    return {name: sum(times) / runs for name, times in profiler.layers.items()}


def part(name: str) -> str:
    """The module that a layer belongs to: `loftr_coarse.layers.3/MatMul_0` -> `loftr_coarse.layers`."""
    found = re.findall(r"[A-Za-z_][\w.]*(?=/)", name)
    path = found[0] if found else name.split("/", 1)[0]
    return ".".join(path.split(".")[:DEPTH])


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--top", type=int, default=25)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    engine = LoadedEngine(read_engine(arguments.engine))
    inputs = engine_inputs(engine.manifest)
    times = layer_times(engine, inputs, arguments.runs)
    parts: dict[str, float] = defaultdict(float)
    for name, value in times.items():
        parts[part(name)] += value
    total = float(np.sum(list(times.values())))
    print(f"{arguments.engine}: {len(times)} layers, {total:.3f} ms in all on {engine.gpu.name}")
    for name, value in sorted(parts.items(), key=lambda item: -item[1]):
        print(f"  {value:8.3f} ms {value / total:6.1%}  {name}")
    print("largest layers:")
    for name, value in sorted(times.items(), key=lambda item: -item[1])[: arguments.top]:
        print(f"  {value:8.4f} ms  {name[:150]}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(times, indent=1) + "\n")


if __name__ == "__main__":
    main()
