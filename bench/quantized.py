"""What lower precisions of an fp32 ONNX engine keep on an evaluation folder, their size, and their speed on this CPU.

fp16, and the graphs for TensorRT, are emulated (docs/precision.md); the int8 graph for ONNX Runtime runs on its 8-bit
kernels. Times are of runs in turn, on one pair; the ratio is the median over the turns.
"""

from __future__ import annotations

import argparse
import json
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import onnx

from matchrt.bench.gate import LIMITS
from matchrt.bench.judging import judge_engine, reference_matches
from matchrt.bench.pairs import user_pairs
from matchrt.bench.variant import open_variant
from matchrt.bench.verify_report import verdict_line, verification_table
from matchrt.building.calibration.calibrate import calibrate
from matchrt.building.calibration.options import CalibrationOptions
from matchrt.building.calibration.pairs import choose_pairs
from matchrt.export.precision import apply
from matchrt.export.quantization.styles import ONNXRUNTIME, TENSORRT, TENSORRT_FP8, TENSORRT_MATRICES
from matchrt.runtime.engine_file import EngineFile, read_engine
from matchrt.runtime.opening import open_session
from matchrt.runtime.session import SessionOptions
from matchrt.store import open_store

STYLES = {"int8": ONNXRUNTIME, "int8-trt": TENSORRT, "int8-rtx14": TENSORRT_MATRICES, "fp8": TENSORRT_FP8}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", help="fp32 ONNX engine or bundled model")
    parser.add_argument("eval", type=Path)
    parser.add_argument("--variants", default="fp16,int8,int8-trt,fp8")
    parser.add_argument("--calibration", type=Path)
    parser.add_argument("--method", default="percentile")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", action="append", default=[])
    parser.add_argument("--every", type=int, default=1, help="only every N-th pair")
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--save", type=Path, help="folder for the graphs")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    file = read_engine(arguments.engine)
    models = {name: variant(file, name, arguments) for name in arguments.variants.split(",")}
    found = {"accuracy": accuracy(file, models, arguments), "time": times(file, models, arguments)}
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


def variant(file: EngineFile, name: str, arguments: argparse.Namespace) -> onnx.ModelProto:
    """The graph of that name, quantised or lowered as a build does it."""
    if name == "fp16":
        model, _ = apply(onnx.load_model_from_string(file.data), "fp16", file.manifest.family)
    else:
        options = CalibrationOptions(arguments.calibration, arguments.method, tuple(arguments.keep), arguments.seed)
        pairs = choose_pairs(options.source, file.manifest.input, options.seed)
        begun = time.perf_counter()
        model = calibrate(file, STYLES[name], options, pairs, open_store(), lambda what, share: None).model
        print(f"{name}: quantised in {time.perf_counter() - begun:.1f} s")
    data = model.SerializeToString(deterministic=True)
    print(f"{name}: {len(data) / 1e6:.2f} MB, fp32 {len(file.data) / 1e6:.2f} MB", flush=True)
    if arguments.save is not None:
        arguments.save.mkdir(parents=True, exist_ok=True)
        (arguments.save / f"{name}.onnx").write_bytes(data)
    return model


def accuracy(file: EngineFile, models: dict[str, onnx.ModelProto], arguments: argparse.Namespace) -> dict[str, object]:
    """Prints a table a variant; its figures as JSON values."""
    pairs = user_pairs(arguments.eval)[:: arguments.every]
    with closing(open_session(file, SessionOptions(threads=arguments.threads))) as session:
        expected = reference_matches(session, pairs, lambda: None)
    found = {}
    for name, model in models.items():
        with closing(open_variant(file, model).session) as session:
            limits = LIMITS[name.split("-")[0]]
            verdict = judge_engine(expected, session, pairs, limits, ("fp32", name), lambda: None)
        print(verification_table(verdict).markdown(), verdict_line(verdict), flush=True)
        found[name] = verdict.verification.to_json()
    return found


def times(file: EngineFile, models: dict[str, onnx.ModelProto], arguments: argparse.Namespace) -> dict[str, object]:
    """Times of fp32 and int8 in turn."""
    if "int8" not in models or not arguments.turns:
        return {}
    from dataclasses import replace

    from matchrt._util.digest import sha256_bytes
    from matchrt.bench.scene import engine_inputs

    data = models["int8"].SerializeToString()
    manifest = replace(file.manifest, engine_sha256=sha256_bytes(data), engine_bytes=len(data))
    threads = SessionOptions(threads=arguments.threads)
    sessions = {
        "fp32": open_session(file, threads),
        "int8": open_session(EngineFile(file.path, data, manifest), threads),
    }
    inputs = engine_inputs(file.manifest)
    taken: dict[str, list[float]] = {name: [] for name in sessions}
    for turn in range(arguments.turns + 2):
        for name, session in sessions.items():
            begun = time.perf_counter()
            session.run(inputs)
            if turn >= 2:
                taken[name].append(time.perf_counter() - begun)
            time.sleep(0.02)
    ratios = np.array(taken["fp32"]) / np.array(taken["int8"])
    medians = {name: float(np.median(values)) * 1e3 for name, values in taken.items()}
    print(f"median of {arguments.turns} turns, {arguments.threads} threads: {medians}, ratio {np.median(ratios):.3f} "
          f"(quartiles {np.quantile(ratios, 0.25):.3f} to {np.quantile(ratios, 0.75):.3f})", flush=True)  # fmt: skip
    return {"ms": medians, "ratio": float(np.median(ratios)), "samples": taken}


if __name__ == "__main__":
    main()
