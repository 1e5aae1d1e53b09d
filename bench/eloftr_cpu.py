"""EfficientLoFTR on the CPU: ONNX Runtime, torch eager and OpenVINO, in turn, on one graph's weights.

    python bench/eloftr_cpu.py ENGINE.onnx CHECKPOINT [--threads 2] [--runs 10] [--memory]

ENGINE is what `matchrt build eloftr` (or matchanything-eloftr) wrote; CHECKPOINT what it was built from. OpenVINO is
left out where it is not installed (pip install openvino). --memory measures peak memory instead, each in a process of
its own. Needs the extra `export`.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy.typing as npt

from matchrt.manifest import EngineManifest, manifest_path, read_manifest

Call = Callable[[], list[npt.NDArray[Any]]]
Arrays = dict[str, npt.NDArray[Any]]


def pair_of(manifest: EngineManifest) -> Arrays:
    """The pair that builds are proven on, without padding."""
    from matchrt.building.parity import sample_inputs

    inputs = sample_inputs(manifest.input, manifest.matching.coarse_stride)[0]
    inputs["size1"] = inputs["size0"]
    return inputs


def onnxruntime_call(engine: Path, inputs: Arrays, threads: int) -> Call:
    """The engine as `Matcher` runs it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(engine), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, inputs)


def openvino_call(engine: Path, inputs: Arrays, threads: int) -> Call:
    """The same graph in OpenVINO, in float32."""
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(core.read_model(str(engine)), "CPU", settings).create_infer_request()

    def call() -> list[npt.NDArray[Any]]:
        results = request.infer(inputs)
        return [results[index] for index in range(4)]

    return call


def torch_call(manifest: EngineManifest, checkpoint: Path, inputs: Arrays, threads: int) -> Call:
    """The network in torch eager, on the same weights."""
    import torch

    from matchrt.export.weights.network import load_network, published_graph
    from matchrt.families.registry import get_spec

    torch.set_num_threads(threads)
    matching, size = manifest.matching, (manifest.input.height or 0, manifest.input.width or 0)
    loaded = load_network(
        get_spec(manifest.model), checkpoint, threshold=matching.threshold, mutual=matching.mutual, size=size
    )
    graph = published_graph(loaded, matching.max_matches)
    arguments = [torch.from_numpy(inputs[spec.name]) for spec in manifest.inputs]

    def call() -> list[npt.NDArray[Any]]:
        with torch.inference_mode():
            return [value.numpy() for value in graph(*arguments)]

    return call


def subject(name: str, engine: Path, checkpoint: Path, threads: int) -> Call:
    """The call of that name; raises ModuleNotFoundError where its package is missing."""
    manifest = read_manifest(manifest_path(engine))
    inputs = pair_of(manifest)
    if name == "torch":
        return torch_call(manifest, checkpoint, inputs, threads)
    return (onnxruntime_call if name == "onnxruntime" else openvino_call)(engine, inputs, threads)


def compare_times(engine: Path, checkpoint: Path, threads: int, runs: int) -> dict[str, Any]:
    """Medians of interleaved runs, and the number of matches of each."""
    calls: dict[str, Call] = {}
    for name in ("onnxruntime", "torch", "openvino"):
        try:
            calls[name] = subject(name, engine, checkpoint, threads)
        except ModuleNotFoundError as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
    times: dict[str, list[float]] = {name: [] for name in calls}
    matches = {name: int(call()[3][0]) for name, call in calls.items()}
    for _ in range(runs):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append((time.perf_counter() - start) * 1e3)
    return {
        name: {"median_ms": statistics.median(t), "min_ms": min(t), "matches": matches[name]}
        for name, t in times.items()
    }


def peak_memory(name: str, engine: Path, checkpoint: Path, threads: int) -> dict[str, float]:
    """Peak resident memory of loading and two runs, and what loading alone took, in MB."""
    call = subject(name, engine, checkpoint, threads)
    loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    call()
    start = time.perf_counter()
    call()
    elapsed = (time.perf_counter() - start) * 1e3
    return {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "loaded_mb": loaded, "ms": elapsed}


def main() -> None:
    """Measures and prints JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only:
        print(json.dumps(peak_memory(given.only, given.engine, given.checkpoint, given.threads)))
    elif given.memory:
        for name in ("onnxruntime", "torch"):
            command = [sys.executable, __file__, *sys.argv[1:], "--only", name]
            print(name, subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())
    else:
        print(json.dumps(compare_times(given.engine, given.checkpoint, given.threads, given.runs), indent=2))


if __name__ == "__main__":
    main()
