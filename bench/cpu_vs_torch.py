"""The same network on the same CPU: a matchrt engine on ONNX Runtime against torch eager.

Both get the same uint8 images, give the same matches, use the same number of threads and run in turn in one process.
Between runs there is a pause, because either library's threads spin for a while after their work. Needs the extra
`export`.

    python bench/cpu_vs_torch.py [--model loftr-lite] [--checkpoint FILE] [--threads N] [--runs 20] [--json FILE]

Of a bundled model, the bundled engine is measured; of any other, one that is built for this.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from matchrt._util.cores import usable_cores
from matchrt.bench.latency import LatencyOptions, LatencyReport, measure, session_subject
from matchrt.bench.machine import Machine, this_machine
from matchrt.bench.scene import engine_inputs
from matchrt.building.pipeline import BuildRequest, build
from matchrt.errors import MatchRTError
from matchrt.export.weights.network import load_network, published_graph
from matchrt.families.registry import get_spec
from matchrt.models.parts.engine_graph import EngineGraph
from matchrt.runtime.bundled import BUNDLED
from matchrt.runtime.engine_file import EngineFile, engine_path, read_engine
from matchrt.runtime.opening import open_session
from matchrt.runtime.session import Session, SessionOptions
from matchrt.store import open_store

HEIGHT, WIDTH = 480, 640
Arrays = dict[str, npt.NDArray[Any]]


def engine_for(model: str, checkpoint: Path | None, folder: Path) -> EngineFile:
    """The bundled engine where there is one and no checkpoint is given; else a new 480x640 one in `folder`."""
    if checkpoint is None and model in BUNDLED and engine_path(model).is_file():
        return read_engine(model)
    request = BuildRequest(model, checkpoint, height=HEIGHT, width=WIDTH, output=folder / f"{model}.onnx")
    return read_engine(build(request, open_store(folder / "store")).path)


def torch_subject(model: str, checkpoint: Path | None, session: Session, inputs: Arrays) -> Callable[[], None]:
    """The network in torch, on the engine's weights, threshold and number of match slots."""
    matching = session.manifest.matching
    loaded = load_network(get_spec(model), checkpoint, threshold=matching.threshold, mutual=matching.mutual)
    same_weights = loaded.checkpoint.tensors_sha256 == session.manifest.source.tensors_sha256
    if not same_weights:
        raise SystemExit("The engine was made from another checkpoint: the two would not compute the same thing.")
    graph = published_graph(loaded, matching.max_matches)
    arguments = tuple(torch.from_numpy(inputs[spec.name]) for spec in session.manifest.inputs)

    def call() -> None:
        with torch.inference_mode():
            for value in graph(*arguments):
                value.numpy()

    require_same(graph, arguments, session, inputs)
    return call


def require_same(
    graph: EngineGraph, arguments: tuple[torch.Tensor, ...], session: Session, inputs: Arrays
) -> None:  # fmt: skip
    """Stops if the two do not give the same matches; a speed of something else would mean nothing."""
    with torch.inference_mode():
        points0, points1, _, count = (value.numpy() for value in graph(*arguments))
    outputs = session.run(inputs)
    theirs = _rows(outputs["keypoints0"], outputs["keypoints1"], outputs["num_matches"])
    ours = _rows(points0, points1, count)
    shared = len(ours & theirs) / max(len(ours | theirs), 1)
    print(f"matches: {len(ours)} in torch, {len(theirs)} in ONNX Runtime, {shared:.1%} the same to 0.1 px")
    if not ours or shared < 0.98:
        raise SystemExit("They do not give the same matches (or none); there is nothing to compare.")


def _rows(points0: npt.NDArray[Any], points1: npt.NDArray[Any], count: npt.NDArray[Any]) -> set[tuple[int, ...]]:
    kept = np.concatenate([points0[0, : int(count[0])], points1[0, : int(count[0])]], axis=1)
    return {tuple(row) for row in np.rint(kept * 10).astype(int).tolist()}


def as_document(
    model: str, session: Session, report: LatencyReport, threads: int, machine: Machine
) -> dict[str, Any]:  # fmt: skip
    """Everything as JSON values, with the Markdown line."""
    medians = {subject.name: round(subject.median, 2) for subject in report.subjects}
    ratio = medians["torch"] / medians["onnxruntime"]
    versions = f"ONNX Runtime {session.manifest.backend_version}, torch {torch.__version__}"
    line = (
        f"| {model} | {HEIGHT}x{WIDTH} | {medians['onnxruntime']:.1f} | {medians['torch']:.1f} | {ratio:.2f} | "
        f"{machine.cpu}, {threads} {'thread' if threads == 1 else 'threads'}, {versions} |"
    )
    return {
        "model": model,
        "size": [HEIGHT, WIDTH],
        "threads": threads,
        "precision": session.manifest.precision,
        "torch": torch.__version__,
        "median_ms": medians,
        "torch_over_onnxruntime": round(ratio, 3),
        "markdown": line,
        "machine": machine.to_json(),
        "latency": report.to_json(),
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="loftr-lite")
    parser.add_argument("--checkpoint", type=Path, help="weights of a model that is not bundled")
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--warm-up", type=int, default=3)
    parser.add_argument("--pause", type=float, default=0.1, help="seconds between runs")
    parser.add_argument("--json", type=Path, help="write everything here too")
    arguments = parser.parse_args()
    machine = this_machine()  # before the run, which is load too
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        engine = engine_for(arguments.model, arguments.checkpoint, Path(folder))
        session = open_session(engine, SessionOptions(threads=arguments.threads))
    inputs = engine_inputs(session.manifest)
    subjects = {
        "onnxruntime": session_subject(session, inputs),
        "torch": torch_subject(arguments.model, arguments.checkpoint, session, inputs),
    }
    options = LatencyOptions(arguments.runs, arguments.warm_up, arguments.pause)
    document = as_document(arguments.model, session, measure(subjects, options), arguments.threads, machine)
    print("| model | size | ONNX Runtime, ms | torch eager, ms | torch / ONNX Runtime | machine |")
    print("| --- | --- | ---: | ---: | ---: | --- |")
    print(document["markdown"])
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except MatchRTError as error:
        raise SystemExit(str(error)) from None
