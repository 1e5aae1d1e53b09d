"""Lower precisions of one network as TensorRT engines, side by side: what builds, how fast it is, what it keeps.

    python bench/gpu_variants.py FOLDER [--backend tensorrt_rtx] [--target sm80] [--turns 200] [--json FILE]

FOLDER holds `fp32.onnx` with its manifest, and other graphs of the same network (`bench/quantized.py --save` writes
them); neither torch nor onnx is needed. Without a GPU, `--build-only` says what builds. Matches are compared with those
of the fp32 engine on drawn pairs, and with their truth; times are the GPU's own, of calls in turn.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from matchrt.bench.gate import LIMITS
from matchrt.bench.judging import Expected, judge_engine, reference_matches
from matchrt.bench.pairs import drawn_pairs
from matchrt.bench.verify_report import verification_table
from matchrt.cli.builder_options import parse_targets
from matchrt.engines.build import GraphFacts, build_engine
from matchrt.engines.tensorrt_builder import TensorRTBuilder
from matchrt.errors import MatchRTError
from matchrt.manifest import EngineManifest, Portability, manifest_path, read_manifest
from matchrt.nvidia.dialect import BuilderOptions
from matchrt.nvidia.modules import open_dialect
from matchrt.nvidia.rtx import TensorRTRTX
from matchrt.runtime.backend import Builder, get_backend
from matchrt.runtime.engine_file import read_engine
from matchrt.runtime.matcher import Matcher
from matchrt.runtime.opening import open_session


@dataclass(frozen=True)
class ThisGpu(TensorRTRTX):
    """TensorRT-RTX for the very GPU that is here, listed by the vendor or not; `matchrt build` has no such target."""

    def configure(self, config: Any, options: BuilderOptions) -> None:
        """One target: CURRENT."""
        super().configure(config, options)
        config.num_compute_capabilities = 1
        config.set_compute_capability(self.trt.ComputeCapability.CURRENT, 0)

    def portability(self, options: BuilderOptions, here: str | None) -> Portability:
        """This GPU and this version."""
        del options
        return Portability((here,) if here else (), False, "exact")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--backend", default="tensorrt_rtx")
    parser.add_argument("--target", help="as `matchrt build --target`, or current: the GPU that is here")
    parser.add_argument("--turns", type=int, default=200)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--build-only", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    manifest = read_manifest(manifest_path(arguments.folder / "fp32.onnx"))
    with tempfile.TemporaryDirectory() as folder:
        found = {"built": built(arguments, manifest, Path(folder))}
        engines = {name: Path(folder) / f"{name}.engine" for name, said in found["built"].items() if "bytes" in said}
        if not arguments.build_only:
            found |= measured(engines, manifest, arguments)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


def built(arguments: argparse.Namespace, manifest: EngineManifest, folder: Path) -> dict[str, dict[str, Any]]:
    """Builds every graph; what fails is told and left out."""
    if arguments.target == "current":
        builder: Builder = TensorRTBuilder(ThisGpu(open_dialect("tensorrt_rtx").trt), BuilderOptions())
    else:
        targets = parse_targets(arguments.target) if arguments.target else ()
        builder = get_backend(arguments.backend).builder(BuilderOptions(targets=targets))
    found: dict[str, dict[str, Any]] = {}
    names = sorted((path.stem for path in arguments.folder.glob("*.onnx")), key=lambda name: (name != "fp32", name))
    for name in names:
        begun = time.perf_counter()
        facts = GraphFacts(model=manifest.model, family=manifest.family, precision=name.split("-")[0],
                           source=manifest.source, input=manifest.input, matching=manifest.matching,
                           passes=(), build_key="0" * 64)  # fmt: skip
        try:
            engine = build_engine((arguments.folder / f"{name}.onnx").read_bytes(), facts, builder)
        except MatchRTError as error:
            found[name] = {"error": str(error)}
            print(f"{name}: does not build: {error}", flush=True)
            continue
        (folder / f"{name}.engine").write_bytes(engine.data)
        engine.manifest.write(manifest_path(folder / f"{name}.engine"))
        found[name] = {"bytes": len(engine.data), "seconds": round(time.perf_counter() - begun, 1)}
        print(f"{name}: {found[name]}", flush=True)
    return found


def measured(engines: dict[str, Path], manifest: EngineManifest, arguments: argparse.Namespace) -> dict[str, Any]:
    """Matches and times of all that run; one engine that does not leaves the others alone."""
    pairs = drawn_pairs(manifest.input, range(500, 500 + arguments.pairs))
    matchers: dict[str, Matcher] = {}
    expected = Expected((), manifest.matching)
    found: dict[str, Any] = {"matches": {}, "gpu_ms": {}, "failed": {}}
    for name, path in engines.items():
        try:
            session = open_session(read_engine(path))
            if name == "fp32":
                expected = reference_matches(session, pairs, lambda: None)
            limits = LIMITS[name.split("-")[0]]
            verdict = judge_engine(expected, session, pairs, limits, ("fp32", name), lambda: None)
        except Exception as error:
            found["failed"][name] = str(error)
            print(f"{name}: does not run: {error}", flush=True)
            continue
        matchers[name] = Matcher(session)
        found["matches"][name] = verdict.verification.to_json()
        print(verification_table(verdict).markdown(), flush=True)
    found["gpu_ms"] = times(matchers, pairs[0].image0, pairs[0].image1, arguments.turns)
    return found


def times(matchers: dict[str, Matcher], image0: Any, image1: Any, turns: int) -> dict[str, dict[str, float]]:
    """Median and quartiles of the GPU's time, and of the ratio to fp16 (or the first), turn by turn."""
    taken: dict[str, list[float]] = {name: [] for name in matchers}
    for turn in range(turns + 20):
        for name, matcher in matchers.items():
            milliseconds = matcher.match(image0, image1).timings["gpu"]
            if turn >= 20:
                taken[name].append(milliseconds)
    base = "fp16" if "fp16" in taken else next(iter(taken), "")
    found = {}
    for name, values in taken.items():
        low, middle, high = np.percentile(values, (25, 50, 75))
        ratio = float(np.median(np.array(taken[base]) / np.array(values)))
        launch = matchers[name].session.launch_mode()
        found[name] = {"p25": float(low), "p50": float(middle), "p75": float(high), f"times_as_fast_as_{base}": ratio}
        print(f"{name}: {middle:.3f} ms ({low:.3f} to {high:.3f}), {ratio:.2f} x {base}, {launch}", flush=True)
    return found


if __name__ == "__main__":
    main()
