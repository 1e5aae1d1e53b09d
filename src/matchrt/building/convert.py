"""An fp32 ONNX engine to one of another precision or backend. Needs no network: this part runs on the robot too."""

from __future__ import annotations

from matchrt._util.digest import sha256_json
from matchrt._version import __version__
from matchrt.building.calibration.cache import pairs_digest
from matchrt.building.calibration.options import CalibrationOptions
from matchrt.building.calibration.pairs import CalibrationPairs, choose_pairs
from matchrt.building.graphs import Graph, GraphRequest, write_graph
from matchrt.building.request import Progress, file_name
from matchrt.engines.build import GraphFacts, build_engine
from matchrt.errors import MatchRTError
from matchrt.export.precision import QUANTIZED
from matchrt.manifest import EngineManifest
from matchrt.runtime.backend import Builder
from matchrt.runtime.engine_file import EngineFile
from matchrt.store import EngineStore, StoredEngine


def convert_engine(
    file: EngineFile,
    precision: str,
    backend: Builder,
    store: EngineStore,
    tell: Progress,
    *,
    rebuild: bool = False,
    accept_loss: bool = False,
    calibration: CalibrationOptions | None = None,
) -> tuple[StoredEngine, bool]:
    """The engine in that precision for that backend, and whether the store had it already.

    accept_loss: build even where the precision loses too many matches. Errors: precision-*, onnx-rejected,
    engine-rejected, device-missing, store-unwritable.
    """
    _require_fp32_products(file.manifest, backend)
    options = calibration or CalibrationOptions()
    pairs = choose_pairs(options.source, file.manifest.input, options.seed) if precision in QUANTIZED else None
    request = GraphRequest(file, precision, backend, accept_loss, options, pairs)
    key = _convert_key(request)
    cached = None if rebuild else store.find(file.manifest.model, key)
    if cached is not None:
        return cached, True
    graph = write_graph(request, store, tell)
    building = f"building for {backend.name}"
    tell(building, 0.2)
    facts = _facts(file.manifest, precision, graph, key)
    engine = build_engine(graph.data, facts, backend, lambda what, done: tell(f"{building}: {what}", 0.2 + 0.75 * done))
    tell("writing", 0.95)
    return store.put(engine.data, engine.manifest, file_name(engine.manifest, backend.suffix)), False


def _require_fp32_products(manifest: EngineManifest, backend: Builder) -> None:
    """RoMa solves a system of condition 1e4: with TF32's 11 bits nothing of the solution is left."""
    if manifest.family == "roma" and backend.tf32:
        raise MatchRTError(
            "build-option",
            f"{manifest.model} solves a linear system that needs float32 products; TF32 leaves no digit of it.",
            "Leave --tf32 out.",
        )


def _facts(manifest: EngineManifest, precision: str, graph: Graph, key: str) -> GraphFacts:
    """What the new manifest says: that of the fp32 engine, and what was done to its graph."""
    return GraphFacts(
        model=manifest.model,
        family=manifest.family,
        precision=precision,
        source=manifest.source,
        input=manifest.input,
        matching=manifest.matching,
        passes=(*manifest.passes, *graph.records),
        build_key=key,
        checks={**manifest.checks, **graph.checks},
    )


def _convert_key(request: GraphRequest) -> str:
    """Digest of everything that decides the engine."""
    manifest, backend, precision = request.file.manifest, request.backend, request.precision
    return sha256_json(
        _calibration_key(request.calibration, request.pairs)
        | {
            "matchrt": __version__,
            "onnx": manifest.onnx_sha256,
            "manifest": manifest.build_key,
            "precision": precision,
            # An engine whose loss somebody accepted is not what others get who have not.
            "accepted_loss": request.accept_loss,
            "backend": backend.name,
            "exact_products": precision == "fp32" and backend.rounds_products,
            "runtime": backend.identity(),
        }
    )


def _calibration_key(options: CalibrationOptions, pairs: CalibrationPairs | None) -> dict[str, object]:
    """Of what the engine gets to see of all pairs, those that judge included; nothing for fp32 and fp16."""
    if pairs is None:
        return {}
    return {
        "pairs": pairs_digest((*pairs.calibrating, *pairs.judging)),
        "method": options.method,
        "keep": sorted(options.keep),
    }
