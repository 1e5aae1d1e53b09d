"""The same network on the same GPU: a matchrt engine against torch, eager and compiled, in half precision.

    python bench/gpu_vs_torch.py MODEL ENGINE [--checkpoint FILE] [--runs 100] [--json FILE]

torch runs under autocast(float16), as the official code does, on images that are on the GPU already, and is timed with
CUDA events; the engine is timed the same way, by its session. All in turn in one process. Needs the extra `export`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from matchrt.bench.scene import engine_inputs
from matchrt.export.weights.network import load_network, published_graph
from matchrt.families.registry import get_spec
from matchrt.runtime.engine_file import read_engine
from matchrt.runtime.session import SessionOptions, open_session


def timed(call: Callable[[], Any]) -> float:
    """Milliseconds on the GPU's clock."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    call()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end))


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("engine")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    session = open_session(read_engine(arguments.engine), SessionOptions())
    inputs, matching = engine_inputs(session.manifest), session.manifest.matching
    size = (inputs["image0"].shape[1], inputs["image0"].shape[2])
    spec = get_spec(arguments.model)
    loaded = load_network(spec, arguments.checkpoint, threshold=matching.threshold, mutual=matching.mutual, size=size)
    graph = published_graph(loaded, matching.max_matches).cuda()
    tensors = [torch.from_numpy(inputs[entry.name]).cuda() for entry in session.manifest.inputs]
    compiled = torch.compile(graph)

    def run(module: Callable[..., Any]) -> Callable[[], Any]:
        def call() -> Any:
            with torch.inference_mode(), torch.autocast("cuda", torch.float16):
                return module(*tensors)

        return call

    def engine() -> float:
        pending = session.start(inputs)
        pending.result()
        return pending.timings()["gpu"]

    subjects: dict[str, Callable[[], float]] = {
        "torch eager fp16": lambda: timed(run(graph)),
        "torch.compile fp16": lambda: timed(run(compiled)),
        f"{session.manifest.backend} {session.manifest.precision}": engine,
    }
    samples: dict[str, list[float]] = {name: [] for name in subjects}
    for turn in range(10 + arguments.runs):
        for name, call in subjects.items():
            value = call()
            if turn >= 10:
                samples[name].append(value)
    medians = {name: float(np.median(values)) for name, values in samples.items()}
    ours = medians[list(subjects)[-1]]
    document = {
        "model": arguments.model,
        "size": size,
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "median_gpu_ms": {name: round(value, 4) for name, value in medians.items()},
        "times_ours": {name: round(value / ours, 2) for name, value in medians.items()},
    }
    text = json.dumps(document, indent=1)
    print(text)
    if arguments.json is not None:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
