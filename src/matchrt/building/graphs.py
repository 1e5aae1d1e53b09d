"""Writes the graph of an engine in another precision, with one function for each, and judges it if it loses digits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from matchrt._util.packages import packages_for
from matchrt.bench.pairs import JudgedPair
from matchrt.building.calibration.calibrate import calibrate
from matchrt.building.calibration.options import CalibrationOptions
from matchrt.building.calibration.pairs import CalibrationPairs, fp16_pairs
from matchrt.building.calibration.style import style_for
from matchrt.building.judge import judge
from matchrt.building.request import Progress
from matchrt.manifest import PassRecord
from matchrt.runtime.backend import Builder
from matchrt.runtime.engine_file import EngineFile
from matchrt.store import EngineStore

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Graph:
    """A graph and what the manifest will say about it.

    data: the ONNX graph as bytes.
    records: what was done to the graph.
    checks: the figures of the gate's verdict, by name; empty if the graph was not judged.
    """

    data: bytes
    records: tuple[PassRecord, ...] = ()
    checks: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class GraphRequest:
    """Which graph to write.

    file: the fp32 ONNX engine.
    precision: `fp32`, `fp16`, `int8` or `fp8`.
    builder: of the backend that the graph is for.
    accept_loss: whether to keep a graph that loses too many matches.
    calibration: how int8 and fp8 get their ranges; unused for other precisions.
    pairs: the pairs that calibrate and judge int8 and fp8; None for other precisions.
    """

    file: EngineFile
    precision: str
    builder: Builder
    accept_loss: bool
    calibration: CalibrationOptions
    pairs: CalibrationPairs | None


def write_graph(request: GraphRequest, store: EngineStore, tell: Progress) -> Graph:
    """Writes the graph in the requested precision, and judges it if it may lose matches.

    tell: called with the step that begins and the share (0..1) of the work done.
    Errors: precision-*, keep-unused, calibration-*, package-missing, image-*.
    """
    precision = request.precision
    what = f"Building {precision} engines"
    if precision == "fp32":
        what += " that multiply in fp32 (--tf32 multiplies in TF32)"
    with packages_for(what):
        if precision == "fp32":
            return _fp32_graph(request)
        if request.pairs is None:
            return _fp16_graph(request, tell)
        return _quantized_graph(request, request.pairs, store, tell)


def _fp32_graph(request: GraphRequest) -> Graph:
    """The engine's own graph, whose products are split if the backend would round them."""
    if not request.builder.rounds_products:
        return Graph(request.file.data)
    import onnx

    from matchrt.export.precision.exact_products import write_exact_products

    model, records = write_exact_products(onnx.load_model_from_string(request.file.data))
    return Graph(model.SerializeToString(deterministic=True), records)


def _fp16_graph(request: GraphRequest, tell: Progress) -> Graph:
    """The graph with the types that the family's rules give; it is judged on textures."""
    import onnx

    from matchrt.export.precision import apply

    tell(f"writing {request.precision} into the graph", 0.0)
    manifest = request.file.manifest
    model, records = apply(onnx.load_model_from_string(request.file.data), request.precision, manifest.family)
    return _judged(request, model, records, fp16_pairs(manifest), tell, 0.05)


def _quantized_graph(request: GraphRequest, pairs: CalibrationPairs, store: EngineStore, tell: Progress) -> Graph:
    """The graph with Q/DQ nodes and measured ranges; it is judged on other pairs than it was calibrated on, if any."""
    options, builder = request.calibration, request.builder
    style = style_for(request.precision, builder.name, builder.version)
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
    """The graph with its verdict. Errors: precision-gate, precision-gate-empty, unless a loss is accepted."""
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
