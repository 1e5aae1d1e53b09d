"""The work of `matchrt verify --per-block`: quantizes one part of a network after another, the rest staying in fp32."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from matchrt._util.packages import packages_for
from matchrt.bench.judging import Expected, reference_matches
from matchrt.bench.pairs import JudgedPair
from matchrt.bench.per_block import Sensitivity, measure_sensitivity
from matchrt.bench.reference import find_reference
from matchrt.bench.variant import open_reference, open_variant
from matchrt.bench.verify_run import verified_pairs
from matchrt.building.calibration.calibrate import equalised_plan, plan_moments, plan_ranges
from matchrt.building.calibration.options import CalibrationOptions
from matchrt.building.calibration.pairs import CalibrationPairs, choose_pairs
from matchrt.building.calibration.refusals import require_quantizable
from matchrt.building.calibration.style import style_for
from matchrt.building.source import require_source
from matchrt.errors import MatchRTError
from matchrt.runtime.backends import DEFAULT_BACKEND
from matchrt.runtime.engine_file import EngineFile, read_engine
from matchrt.runtime.session import Session
from matchrt.store import EngineStore

Tell = Callable[[str, float], None]


@dataclass(frozen=True)
class BlockRequest:
    """Which engine is measured part by part, and how.

    engine: file or name of an engine; the fp32 ONNX engine that it was made from is measured.
    precision: `int8` or `fp8`.
    backend: the backend whose placement of Q/DQ nodes is used.
    reference: file or name of the fp32 engine, if `engine` is not one; `fp32` to find it in the store.
    pairs: list of pairs or folder that the matches are compared on; None for those that calibration leaves.
    first: how many of the pairs are used; None for all.
    calibration: how ranges are measured.
    """

    engine: str
    precision: str = "int8"
    backend: str = DEFAULT_BACKEND
    reference: str = "fp32"
    pairs: Path | None = None
    first: int | None = None
    calibration: CalibrationOptions = field(default_factory=CalibrationOptions)


def run_per_block(request: BlockRequest, store: EngineStore, tell: Tell) -> Sensitivity:
    """Measures what each part costs.

    tell: called with the step that begins and the share (0..1) of the work done.
    Errors: precision-unknown, those of `run_verify` and of a quantized build.
    """
    source = _source(request, store)
    if request.precision not in ("int8", "fp8"):
        raise MatchRTError(
            "precision-unknown", f"--per-block cannot measure {request.precision}.", "Use --precision int8 or fp8."
        )
    require_quantizable(request.precision, request.backend, ("8.9",))
    pairs = _pairs(request, source)
    with packages_for("Quantizing a part of a network"):
        return _measure(request, source, pairs, store, tell)


def _source(request: BlockRequest, store: EngineStore) -> EngineFile:
    """The fp32 ONNX engine: the named engine itself, or the one that it was made from."""
    engine = read_engine(request.engine, store)
    manifest = engine.manifest
    plain = (manifest.backend, manifest.precision) == (DEFAULT_BACKEND, "fp32")
    source = engine if plain else find_reference(manifest, store, request.reference)
    require_source(source)
    return source


def _pairs(request: BlockRequest, source: EngineFile) -> CalibrationPairs:
    chosen = choose_pairs(request.calibration.source, source.manifest.input, request.calibration.seed)
    if request.pairs is None and request.first is None:
        return chosen
    return replace(chosen, judging=tuple(verified_pairs(request.pairs, source, request.first)), apart=True)


def _measure(
    request: BlockRequest, source: EngineFile, pairs: CalibrationPairs, store: EngineStore, tell: Tell
) -> Sensitivity:
    """Measures the ranges once for all parts, then makes and judges a graph for each part."""
    import onnx

    from matchrt.export.quantization.quantize import plan_quantization, quantize
    from matchrt.export.quantization.ranges import check_method

    model, keep = onnx.load_model_from_string(source.data), request.calibration.keep
    family, style = source.manifest.family, style_for(request.precision, request.backend)
    method = check_method(request.calibration.method)
    name = source.manifest.model
    plan = plan_quantization(model, family, style, keep, name=name)
    plan = equalised_plan(source, plan, pairs.calibrating, lambda what, share: tell(what, 0.2 * share))
    ranges, _ = plan_ranges(source, plan, pairs.calibrating, method, store, lambda what, share: tell(what, 0.2 * share))

    moments = plan_moments(source, plan, pairs.calibrating, lambda what, share: tell(what, 0.2 * share))

    def open_block(nodes: tuple[str, ...]) -> Session:
        # A part quantizes only tensors that the whole network quantizes too, so the same ranges serve.
        part = plan_quantization(model, family, style, keep, nodes, name)
        graph, _ = quantize(replace(part, model=plan.model), ranges, moments)
        return open_variant(source, graph).session

    tell("matching in fp32", 0.2)
    expected = _expected(source, pairs.judging)
    products = tuple(plan.selection.products)
    return measure_sensitivity(
        request.precision,
        request.backend,
        products,
        pairs.judging,
        expected,
        open_block,
        lambda what, share: tell(what, 0.25 + 0.75 * share),
    )


def _expected(source: EngineFile, pairs: tuple[JudgedPair, ...]) -> Expected:
    with closing(open_reference(source)) as session:
        return reference_matches(session, pairs, lambda: None)
