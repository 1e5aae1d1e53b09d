"""An fp32 ONNX engine to one of another precision or backend. Needs no torch: this part runs on the robot too."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from matchrt._util.digest import sha256_json
from matchrt._version import __version__
from matchrt.bench.pairs import CalibrationPairs, choose_pairs
from matchrt.building.calibration.cache import pairs_digest
from matchrt.building.calibration.calibrate import calibrate
from matchrt.building.calibration.options import CalibrationOptions
from matchrt.building.judge import judge
from matchrt.building.request import Progress, file_name
from matchrt.engines.backend import Backend
from matchrt.engines.build import GraphFacts, build_engine
from matchrt.errors import MatchRTError, missing_package
from matchrt.export.precision import QUANTIZED
from matchrt.export.quantization.styles import style_for
from matchrt.families.registry import find_family
from matchrt.manifest import EngineManifest, PassRecord
from matchrt.runtime.engine_file import EngineFile
from matchrt.store import EngineStore, StoredEngine

if TYPE_CHECKING:
    import onnx


def require_source(file: EngineFile) -> None:
    """Raises `build-source` where other engines cannot be made from this one."""
    manifest = file.manifest
    if manifest.backend != "onnxruntime" or manifest.precision != "fp32":
        raise MatchRTError(
            "build-source",
            f"'{file.path}' is a {manifest.precision} engine for backend {manifest.backend}; engines are made from "
            "fp32 ones for backend onnxruntime.",
            f"Build that first: matchrt build {manifest.model}.",
        )


def convert_engine(
    file: EngineFile,
    precision: str,
    backend: Backend,
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
    _refuse_tf32(file.manifest, backend)
    quantizing = _quantizing(file, precision, calibration or CalibrationOptions())
    key = _convert_key(file.manifest, precision, backend, accept_loss, quantizing)
    cached = None if rebuild else store.find(file.manifest.model, key)
    if cached is not None:
        return cached, True
    facts = _facts(file.manifest, precision, key)
    if precision == "fp32":
        model, facts = _exact(file, facts) if backend.rounds_products else (file.data, facts)
    elif quantizing is not None:
        model, facts = _quantized(file, facts, backend, quantizing, store, tell, accept_loss)
    else:
        model, facts = _lowered(file, facts, tell, accept_loss)
    building = f"building for {backend.name}"
    tell(building, 0.2)
    engine = build_engine(model, facts, backend, lambda what, done: tell(f"{building}: {what}", 0.2 + 0.75 * done))
    tell("writing", 0.95)
    return store.put(engine.data, engine.manifest, file_name(engine.manifest, backend.suffix)), False


def _refuse_tf32(manifest: EngineManifest, backend: Backend) -> None:
    """Raises `build-option` where TF32 is asked for and the network does not stand it."""
    options, family = getattr(backend, "options", None), find_family(manifest.family)
    if family is not None and not family.tf32 and options is not None and options.tf32:
        raise MatchRTError(
            "build-option",
            f"{manifest.model} {family.float32_because}.",
            "Leave --tf32 out.",
        )


def backend_version(backend: Backend) -> str | None:
    """Of the installed module; None where the backend is ONNX Runtime."""
    dialect = getattr(backend, "dialect", None)
    return None if dialect is None else str(dialect.version)


def _facts(manifest: EngineManifest, precision: str, key: str) -> GraphFacts:
    return GraphFacts(
        model=manifest.model,
        family=manifest.family,
        precision=precision,
        source=manifest.source,
        input=manifest.input,
        matching=manifest.matching,
        passes=manifest.passes,
        build_key=key,
        checks=manifest.checks,
    )


def _exact(file: EngineFile, facts: GraphFacts) -> tuple[bytes, GraphFacts]:
    """The graph with its products split, and what the manifest says of it."""
    try:
        import onnx

        from matchrt.export.precision.exact_products import write_exact_products

        model, records = write_exact_products(onnx.load_model_from_string(file.data))
    except ModuleNotFoundError as error:
        what = "Building fp32 engines that multiply in fp32 (others: --tf32)"
        raise missing_package(str(error.name), "export", what) from error
    return model.SerializeToString(deterministic=True), replace(facts, passes=(*facts.passes, *records))


def _lowered(file: EngineFile, facts: GraphFacts, tell: Progress, accept_loss: bool) -> tuple[bytes, GraphFacts]:
    """The graph in fp16, gated on matches, and what the manifest says of it."""
    tell(f"writing {facts.precision} into the graph", 0.0)
    try:
        import onnx

        from matchrt.export.precision import apply

        reference = onnx.load_model_from_string(file.data)
        model, records = apply(reference, facts.precision, facts.family)
        tell(f"comparing the matches of {facts.precision} with those of fp32", 0.05)
        checks = {**facts.checks, **_gated(reference, model, facts, accept_loss)}
    except ModuleNotFoundError as error:
        raise missing_package(str(error.name), "export", f"Building {facts.precision} engines") from error
    facts = replace(facts, checks=checks, passes=(*facts.passes, *records))
    return model.SerializeToString(deterministic=True), facts


@dataclass(frozen=True)
class _Quantizing:
    """pairs_sha256: of what the engine gets to see of all pairs, those that judge included."""

    options: CalibrationOptions
    pairs: CalibrationPairs
    pairs_sha256: str


def _quantizing(file: EngineFile, precision: str, options: CalibrationOptions) -> _Quantizing | None:
    """The pairs of a quantised build; None for others."""
    if precision not in QUANTIZED:
        return None
    pairs = choose_pairs(options.source, file.manifest.input, options.seed)
    return _Quantizing(options, pairs, pairs_digest((*pairs.calibrating, *pairs.judging)))


def _quantized(
    file: EngineFile,
    facts: GraphFacts,
    backend: Backend,
    quantizing: _Quantizing,
    store: EngineStore,
    tell: Progress,
    accept_loss: bool,
) -> tuple[bytes, GraphFacts]:
    """The graph with Q/DQ, gated on matches of pairs, and what the manifest says of it."""
    precision, options, pairs = facts.precision, quantizing.options, quantizing.pairs
    try:
        style = style_for(precision, backend.name, backend_version(backend))
        done = calibrate(file, style, options, pairs, store, lambda what, share: tell(what, 0.1 * share))
        tell(f"comparing the matches of {precision} with those of fp32", 0.1)
        verdict = judge(file, done.model, precision, pairs.judging, lambda share: tell("comparing", 0.1 + 0.1 * share))
    except ModuleNotFoundError as error:
        raise missing_package(str(error.name), "export", f"Building {precision} engines") from error
    if not accept_loss:
        verdict.require(precision)
    taken = PassRecord(
        "calibration",
        True,
        f"{options.method} over {len(pairs.calibrating)} {'drawn' if options.source is None else 'given'} pairs, seed "
        f"{options.seed}; judged on {len(pairs.judging)} {'others' if pairs.apart else 'of the same'}",
    )
    checks = {**facts.checks, **verdict.checks()}
    facts = replace(facts, checks=checks, passes=(*facts.passes, taken, *done.records))
    return done.model.SerializeToString(deterministic=True), facts


def _gated(
    reference: onnx.ModelProto, lowered: onnx.ModelProto, facts: GraphFacts, accept_loss: bool
) -> dict[str, float]:
    """The figures of the gate. Errors, unless the loss is accepted: precision-gate, precision-gate-empty."""
    from matchrt.building.fp16_gate import gate, sample_pairs

    matching = facts.matching
    scores = (matching.threshold, matching.default_score)
    result = gate(reference, lowered, sample_pairs(facts.input, matching.coarse_stride), scores, facts.precision)
    return (result if accept_loss else result.require()).checks()


def _convert_key(
    manifest: EngineManifest, precision: str, backend: Backend, accept_loss: bool, quantizing: _Quantizing | None
) -> str:
    how = {} if quantizing is None else {
        "pairs": quantizing.pairs_sha256, "method": quantizing.options.method, "keep": sorted(quantizing.options.keep)
    }  # fmt: skip
    return sha256_json(
        how
        | {
            "matchrt": __version__,
            "onnx": manifest.onnx_sha256,
            "manifest": manifest.build_key,
            "precision": precision,
            # An engine whose loss somebody accepted is not what others get who have not.
            "accepted_loss": accept_loss,
            "backend": backend.name,
            "exact_products": precision == "fp32" and backend.rounds_products,
            "runtime": backend.identity(),
        }
    )
