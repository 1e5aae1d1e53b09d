"""The graph of an engine in another precision: one function a precision, and the verdict on those that lose digits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from matchrt.bench.pairs import JudgedPair
from matchrt.building.calibration.calibrate import calibrate
from matchrt.building.calibration.options import CalibrationOptions
from matchrt.building.calibration.pairs import CalibrationPairs, fp16_pairs
from matchrt.building.calibration.style import style_for
from matchrt.building.judge import judge
from matchrt.building.request import Progress
from matchrt.errors import missing_package
from matchrt.manifest import PassRecord
from matchrt.runtime.backend import Builder
from matchrt.runtime.engine_file import EngineFile
from matchrt.store import EngineStore

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Graph:
    """ONNX bytes, what was done to them, and the figures of the verdict, for the manifest."""

    data: bytes
    records: tuple[PassRecord, ...] = ()
    checks: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class GraphRequest:
    """What to write. file: the fp32 ONNX engine. accept_loss: keep a graph that loses too many matches.

    calibration, pairs: of int8 and fp8; pairs is None for others.
    """

    file: EngineFile
    precision: str
    backend: Builder
    accept_loss: bool
    calibration: CalibrationOptions
    pairs: CalibrationPairs | None


def write_graph(request: GraphRequest, store: EngineStore, tell: Progress) -> Graph:
    """The graph in the precision that was asked for, judged where it may lose matches.

    Errors: precision-*, keep-unused, calibration-*, package-missing, image-*.
    """
    precision = request.precision
    what = f"Building {precision} engines"
    if precision == "fp32":
        what += " that multiply in fp32 (others: --tf32)"
    try:
        if precision == "fp32":
            return _fp32_graph(request)
        if request.pairs is None:
            return _fp16_graph(request, tell)
        return _quantized_graph(request, request.pairs, store, tell)
    except ModuleNotFoundError as error:
        raise missing_package(str(error.name), "export", what) from error


def _fp32_graph(request: GraphRequest) -> Graph:
    """The engine's own graph; its products are split where the backend would round them."""
    if not request.backend.rounds_products:
        return Graph(request.file.data)
    import onnx

    from matchrt.export.precision.exact_products import write_exact_products

    model, records = write_exact_products(onnx.load_model_from_string(request.file.data))
    return Graph(model.SerializeToString(deterministic=True), records)


def _fp16_graph(request: GraphRequest, tell: Progress) -> Graph:
    """The family's rules written into the graph; judged on textures."""
    import onnx

    from matchrt.export.precision import apply

    tell(f"writing {request.precision} into the graph", 0.0)
    manifest = request.file.manifest
    model, records = apply(onnx.load_model_from_string(request.file.data), request.precision, manifest.family)
    return _judged(request, model, records, fp16_pairs(manifest), tell, 0.05)


def _quantized_graph(request: GraphRequest, pairs: CalibrationPairs, store: EngineStore, tell: Progress) -> Graph:
    """Q/DQ with measured ranges; judged on pairs that did not calibrate, where there are enough."""
    options, backend = request.calibration, request.backend
    style = style_for(request.precision, backend.name, backend.version)
    done = calibrate(request.file, style, options, pairs, store, lambda what, share: tell(what, 0.1 * share))
    records = (_calibration_record(options, pairs), *done.records)
    return _judged(request, done.model, records, pairs.judging, tell, 0.1)


def _judged(
    request: GraphRequest,
    model: onnx.ModelProto,
    records: tuple[PassRecord, ...],
    pairs: Sequence[JudgedPair],
    tell: Progress,
    begun: float,
) -> Graph:
    """The graph with its verdict. Errors, unless the loss is accepted: precision-gate, precision-gate-empty."""
    precision = request.precision
    comparing = f"comparing the matches of {precision} with those of fp32"
    tell(comparing, begun)
    verdict = judge(request.file, model, precision, pairs, lambda share: tell(comparing, begun + (0.2 - begun) * share))
    if not request.accept_loss:
        verdict.require(precision)
    return Graph(model.SerializeToString(deterministic=True), records, verdict.checks())


def _calibration_record(options: CalibrationOptions, pairs: CalibrationPairs) -> PassRecord:
    return PassRecord(
        "calibration",
        True,
        f"{options.method} over {len(pairs.calibrating)} {'drawn' if options.source is None else 'given'} pairs, seed "
        f"{options.seed}; judged on {len(pairs.judging)} {'others' if pairs.apart else 'of the same'}",
    )
