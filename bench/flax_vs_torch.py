"""The same network on the same machine: LoFTR in jitted Flax, in torch.compile and, where one is given, as an engine.

    python bench/flax_vs_torch.py MODEL [--checkpoint FILE] [--engine FILE] [--size 480x640] [--runs 50] [--json FILE]

All in turn in one process, A B C A B C. A run is from images on the device to matches on the host, on the host's
clock; an engine's run is the whole session, images in host memory to matches in host memory. fp32 is `highest` matmul
precision, tf32 is JAX's default and torch's `high`; fp16 and bf16 are autocast in torch, and the compute type of all
features in Flax. With random weights (`--random`) no checkpoint is needed: times do not depend on values. Needs the
extras `export` and `flax`.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# JAX would take three quarters of the memory at once, and leave torch and the engine too little.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from rich.console import Console
from rich.table import Table

from matchrt.bench.scene import engine_inputs, image_pair
from matchrt.export.weights.network import load_network
from matchrt.export.weights.read import Checkpoint
from matchrt.flax.conversion import convert
from matchrt.flax.models import flax_spec
from matchrt.flax.weights import create_abstract, fill
from matchrt.runtime.engine_file import read_engine
from matchrt.runtime.image import as_image
from matchrt.runtime.session import SessionOptions, open_session

Run = Callable[[], int]
WARM_UP = 5
FLAX = {"fp32": (None, "highest"), "tf32": (None, "default"), "bf16": (jnp.bfloat16, "default"),
        "fp16": (jnp.float16, "default")}  # fmt: skip
TORCH = {"fp32": (None, "highest"), "tf32": (None, "high"), "bf16": (torch.bfloat16, "high"),
         "fp16": (torch.float16, "high")}  # fmt: skip


def flax_run(spec: Any, checkpoint: Checkpoint, images: list[Any], kind: str, max_matches: int) -> Run:
    """Jitted Flax in one precision; a call runs it once and gives the number of matches."""
    dtype, precision = FLAX[kind]
    network = create_abstract(spec.family.config, dtype)
    fill(network, convert(checkpoint, spec.name).arrays, spec.name)
    graph, state = nnx.split(network)
    inputs = [jax.device_put(image[None, :, :, None]) for image in images]

    def forward(state: Any, image0: Any, image1: Any) -> Any:
        planes = (image.astype(jnp.float32) / 255.0 for image in (image0, image1))
        return nnx.merge(graph, state)(*planes, max_matches=max_matches)

    with jax.default_matmul_precision(precision):
        compiled = jax.jit(forward).lower(state, *inputs).compile()

    def run() -> int:
        return int(jax.device_get(compiled(state, *inputs)).num_matches[0])

    return run


def torch_run(network: Any, images: list[Any], kind: str, max_matches: int, device: str, compiled: bool) -> Run:
    """torch in one precision, compiled or eager; as `flax_run`."""
    dtype, precision = TORCH[kind]
    network = network.to(device).eval()
    inputs = [torch.from_numpy(image)[None, None].to(device) for image in images]

    def forward(image0: Any, image1: Any) -> Any:
        out = network(image0.float() / 255.0, image1.float() / 255.0, max_matches=max_matches)
        return out.keypoints0, out.keypoints1, out.scores, out.num_matches

    call = torch.compile(forward, dynamic=False) if compiled else forward

    def run() -> int:
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.allow_tf32 = kind != "fp32"
        with torch.inference_mode(), torch.autocast(device, dtype, enabled=dtype is not None):
            found = [value.cpu() for value in call(*inputs)]
        return int(found[3][0])

    return run


def engine_run(path: str) -> tuple[str, Run]:
    """An engine's session; name and call."""
    session = open_session(read_engine(path), SessionOptions())
    inputs, manifest = engine_inputs(session.manifest), session.manifest
    return f"{manifest.backend} {manifest.precision}", lambda: int(session.run(inputs)["num_matches"][0])


def measure(subjects: dict[str, Run], runs: int) -> dict[str, dict[str, float]]:
    """Milliseconds by subject, in turn, after a warm-up."""
    samples: dict[str, list[float]] = {name: [] for name in subjects}
    matches = {}
    for turn in range(WARM_UP + runs):
        for name, run in subjects.items():
            begin = time.perf_counter()
            matches[name] = run()
            if turn >= WARM_UP:
                samples[name].append((time.perf_counter() - begin) * 1e3)
    return {
        name: {
            "median_ms": round(float(np.median(values)), 3),
            "p90_ms": round(float(np.quantile(values, 0.9)), 3),
            "matches": matches[name],
        }
        for name, values in samples.items()
    }


def arguments_of() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--random", action="store_true", help="random weights instead of a checkpoint")
    parser.add_argument("--engine", action="append", default=[], help="engine file, or a model's name; may be repeated")
    parser.add_argument("--size", default="480x640")
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--max-matches", type=int, default=2048)
    parser.add_argument("--precision", action="append", choices=list(FLAX), help="default: all; may be repeated")
    parser.add_argument("--eager", action="store_true", help="torch without torch.compile too")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def load(arguments: argparse.Namespace, spec: Any) -> tuple[Any, Checkpoint]:
    """The torch network and the checkpoint that the Flax network is filled from."""
    if not arguments.random:
        loaded = load_network(spec, arguments.checkpoint)
        return loaded.network, loaded.checkpoint
    torch.manual_seed(0)
    network = spec.family.create().eval()
    return network, Checkpoint(Path("random"), "torch", dict(network.state_dict()), None, (), {}, "random")


def main() -> None:
    """Measures and prints."""
    arguments = arguments_of()
    spec = flax_spec(arguments.model)
    network, checkpoint = load(arguments, spec)
    height, width = map(int, arguments.size.split("x"))
    images = [as_image(pixels).grey() for pixels in image_pair(height, width)[:2]]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    subjects: dict[str, Run] = {}
    failed: dict[str, str] = {}
    jobs: dict[str, Callable[[], Run]] = {}
    for kind in arguments.precision or list(FLAX):
        options = (images, kind, arguments.max_matches)
        jobs[f"Flax jit {kind}"] = lambda options=options: flax_run(spec, checkpoint, *options)
        jobs[f"torch.compile {kind}"] = lambda options=options: torch_run(network, *options, device, True)
        if arguments.eager:
            jobs[f"torch eager {kind}"] = lambda options=options: torch_run(network, *options, device, False)
    compile_seconds = {}
    for name, make in jobs.items():
        begin = time.perf_counter()
        try:
            run = make()
            run()
        except Exception as error:  # a precision that one side cannot run must not end the others' measurement
            failed[name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            print(f"{name}: {failed[name]}", flush=True)
            continue
        subjects[name] = run
        compile_seconds[name] = round(time.perf_counter() - begin, 1)
        print(f"{name}: ready after {compile_seconds[name]} s", flush=True)
    for path in arguments.engine:
        name, run = engine_run(path)
        subjects[name] = run
    gc.collect()
    document = {
        "model": spec.name,
        "size": [height, width],
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "jax_device": str(jax.devices()[0].device_kind),
        "versions": {"torch": torch.__version__, "jax": jax.__version__},
        "runs": arguments.runs,
        "first_call_seconds": compile_seconds,
        "failed": failed,
        "results": measure(subjects, arguments.runs),
    }
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")
    show(document)


def show(document: dict[str, Any]) -> None:
    """The table."""
    console = Console(width=100)
    console.print(f"{document['model']} at {document['size']} on {document['device']}, JAX on {document['jax_device']}")
    table = Table("", "median ms", "p90 ms", "matches", "first call s")
    for name, row in document["results"].items():
        first = document["first_call_seconds"].get(name, "")
        table.add_row(name, f"{row['median_ms']:.2f}", f"{row['p90_ms']:.2f}", str(row["matches"]), str(first))
    console.print(table)


if __name__ == "__main__":
    main()
