"""Makes an engine of another precision or backend from an fp32 ONNX engine.

It does not need the torch network, so it can also run on the machine that will use the engine.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from matchrt._util.digest import sha256_json
from matchrt._version import __version__
from matchrt.bench.pairs import JudgedPair
from matchrt.building.calibration.cache import pairs_digest
from matchrt.building.calibration.options import CalibrationOptions
from matchrt.building.calibration.pairs import CalibrationPairs, choose_pairs
from matchrt.building.graphs import Graph, GraphRequest, write_graph
from matchrt.building.judge import Gate, judged_manifest
from matchrt.building.judging_pairs import judging_pairs
from matchrt.building.refusals import require_fp32_products
from matchrt.building.request import Progress, file_name
from matchrt.building.self_test import self_test_of, with_limits
from matchrt.building.speed import gpu_milliseconds
from matchrt.engines.build import GraphFacts, build_engine
from matchrt.errors import MatchRTError
from matchrt.export.precision import QUANTIZED
from matchrt.manifest import EngineManifest, SelfTest, manifest_path
from matchrt.runtime.backend import Builder
from matchrt.runtime.engine_file import EngineFile, read_engine
from matchrt.store import EngineStore, StoredEngine


def convert_engine(
    file: EngineFile,
    precision: str,
    builder: Builder,
    store: EngineStore,
    tell: Progress,
    *,
    rebuild: bool = False,
    accept_loss: bool = False,
    calibration: CalibrationOptions | None = None,
    judged_on: Path | None = None,
    first: Callable[[], None] = lambda: None,
    written: Callable[[bytes], None] = lambda graph: None,
) -> tuple[StoredEngine, bool]:
    """Makes the engine, or finds it in the store. Returns it and whether the store had it already.

    file: the fp32 ONNX engine. builder: of the backend that the engine is for.
    tell: called with the step that begins and the share (0..1) of the work done.
    rebuild: build even if the store has the engine. accept_loss: build even if the precision loses too many matches.
    calibration: how int8 and fp8 get their ranges; None for the defaults.
    judged_on: the user's pairs to judge on, besides the made ones and the package's photographs; None for none.
    first: called before any work if the store lacks the engine; what it raises ends the build.
    written: called with the ONNX graph of a new engine, once it is in the store.
    Errors: build-option, precision-*, calibration-*, image-*, onnx-rejected, engine-rejected, device-missing,
    store-unwritable.
    """
    require_fp32_products(file.manifest.model, file.manifest.family, builder)
    options = calibration or CalibrationOptions()
    pairs = choose_pairs(options.source, file.manifest.input, options.seed) if precision in QUANTIZED else None
    request = GraphRequest(file, precision, builder, options, pairs)
    judging = judging_pairs(file.manifest, pairs, judged_on)
    key = _convert_key(request, judging, accept_loss)
    cached = None if rebuild else store.find(file.manifest.model, key)
    if cached is not None:
        return cached, True
    first()
    graph = write_graph(request, store, tell)
    gate = Gate(file, precision, judging, accept_loss, tell)
    here = builder.runs_here()
    test = self_test_of(file)
    verdict = None if here else gate.judge_graph(graph, test)
    building = f"building for {builder.name}"
    tell(building, 0.2)
    facts = _facts(file.manifest, precision, graph, key, test)
    engine = build_engine(graph.data, facts, builder, lambda what, done: tell(f"{building}: {what}", 0.2 + 0.6 * done))
    if here:
        verdict = gate.judge_engine(engine) or gate.judge_graph(graph, test)
    manifest = judged_manifest(engine.manifest, verdict)
    stored = store.put(engine.data, manifest, file_name(manifest, builder.suffix))
    if here and verdict is not None and precision in QUANTIZED:
        with contextlib.suppress(MatchRTError):  # the engine is good, whether or not fp16 can be built beside it
            stored = _timed(stored, file, builder, store, tell)
    written(graph.data)
    tell("writing", 0.99)
    return stored, False


def _timed(
    stored: StoredEngine, file: EngineFile, builder: Builder, store: EngineStore, tell: Progress
) -> StoredEngine:
    """The engine with its time on this GPU and that of the fp16 engine in its manifest: 8 bits may be slower.

    The fp16 engine is built for it if the store has none.
    """
    tell("comparing the speed with fp16", 0.95)
    half = _half_engine(file, builder, store)
    ours, halves = (gpu_milliseconds(read_engine(engine.path)) for engine in (stored, half))
    checks = {"gpu_ms": ours, "gpu_ms_fp16": halves}
    manifest = replace(stored.manifest, checks=stored.manifest.checks | checks)
    manifest.write(manifest_path(stored.path))
    return StoredEngine(stored.path, manifest)


def _half_engine(file: EngineFile, builder: Builder, store: EngineStore) -> StoredEngine:
    """The fp16 engine of the store, or a new one, whether or not it passes the gate."""
    request = GraphRequest(file, "fp16", builder, CalibrationOptions(), None)
    found = store.find(file.manifest.model, _convert_key(request, judging_pairs(file.manifest, None, None), False))
    if found is not None:
        return found
    return convert_engine(file, "fp16", builder, store, lambda what, done: None, accept_loss=True)[0]


def _facts(manifest: EngineManifest, precision: str, graph: Graph, key: str, test: SelfTest | None) -> GraphFacts:
    """The facts for the new manifest: those of the fp32 engine, and what was done to its graph."""
    return GraphFacts(
        model=manifest.model,
        family=manifest.family,
        precision=precision,
        source=manifest.source,
        input=manifest.input,
        matching=manifest.matching,
        passes=(*manifest.passes, *graph.records),
        build_key=key,
        checks=manifest.checks,
        self_test=None if test is None else with_limits(test, precision, None),
    )


def _convert_key(request: GraphRequest, judging: Sequence[JudgedPair], accept_loss: bool) -> str:
    """Digest of everything that decides the engine and its verdict."""
    manifest, builder, precision = request.file.manifest, request.builder, request.precision
    return sha256_json(
        _calibration_key(request.calibration, request.pairs)
        | {
            "judged_on": pairs_digest(judging),
            "matchrt": __version__,
            "onnx": manifest.onnx_sha256,
            "manifest": manifest.build_key,
            "precision": precision,
            # Users who did not accept a loss must not get an engine whose loss somebody else accepted.
            "accepted_loss": accept_loss,
            "backend": builder.name,
            "exact_products": precision == "fp32" and builder.rounds_products,
            "fuses_reductions": builder.fuses_reductions,
            "runtime": builder.identity(),
            # An engine that was judged by emulation elsewhere is judged itself where it can run.
            "runs_here": builder.runs_here(),
        }
    )


def _calibration_key(options: CalibrationOptions, pairs: CalibrationPairs | None) -> dict[str, object]:
    """What decides the ranges and the verdict: all pairs, method and patterns; empty for fp32 and fp16."""
    if pairs is None:
        return {}
    return {
        "pairs": pairs_digest((*pairs.calibrating, *pairs.judging)),
        "method": options.method,
        "only_faster": options.only_faster,
        "keep": sorted(options.keep),
    }
