"""Writes the graph of an engine in another precision, with one function for each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from matchrt._util.packages import packages_for
from matchrt.bench.pairs import JudgedPair
from matchrt.building.calibration.calibrate import calibrate
from matchrt.building.calibration.options import CalibrationOptions
from matchrt.building.calibration.pairs import CalibrationPairs
from matchrt.building.calibration.style import style_for
from matchrt.building.request import Progress
from matchrt.building.speed import faster_products, time_products
from matchrt.manifest import PassRecord
from matchrt.runtime.adapter import PairAdapter
from matchrt.runtime.backend import Builder
from matchrt.runtime.engine_file import EngineFile
from matchrt.runtime.options import MatcherOptions
from matchrt.store import EngineStore

if TYPE_CHECKING:
    import onnx

    from matchrt.export.quantization.quantize import QuantPlan


@dataclass(frozen=True)
class Graph:
    """A graph and what the manifest will say about it.

    data: the ONNX graph as bytes.
    records: what was done to the graph.
    rounded: whether it computes with fewer digits than the fp32 graph, so that it must be judged.
    """

    data: bytes
    records: tuple[PassRecord, ...] = ()
    rounded: bool = False


@dataclass(frozen=True)
class GraphRequest:
    """Which graph to write.

    file: the fp32 ONNX engine.
    precision: `fp32`, `fp16`, `int8` or `fp8`.
    builder: of the backend that the graph is for.
    calibration: how int8 and fp8 get their ranges; unused for other precisions.
    pairs: the pairs that calibrate and judge int8 and fp8; None for other precisions.
    """

    file: EngineFile
    precision: str
    builder: Builder
    calibration: CalibrationOptions
    pairs: CalibrationPairs | None


def write_graph(request: GraphRequest, store: EngineStore, tell: Progress) -> Graph:
    """Writes the graph in the requested precision.

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
    """The engine's own graph, changed as the backend needs it."""
    builder = request.builder
    if not (builder.rounds_products or builder.fuses_reductions):
        return Graph(request.file.data)
    import onnx

    model = onnx.load_model_from_string(request.file.data)
    records: tuple[PassRecord, ...] = ()
    if builder.rounds_products:
        from matchrt.export.precision.exact_products import write_exact_products

        model, records = write_exact_products(model)
    return _finished(request, model, records)


def _finished(
    request: GraphRequest, model: onnx.ModelProto, records: tuple[PassRecord, ...], rounded: bool = False
) -> Graph:
    """The graph with what its backend needs, whatever the precision."""
    records = (*records, *_split_frames(request, model))
    if request.builder.fuses_reductions:
        from matchrt.export.precision.fused_argmax import fuse_argmax

        model, fused = fuse_argmax(model)
        records = (*records, *fused)
    return Graph(model.SerializeToString(deterministic=True), records, rounded)


def _split_frames(request: GraphRequest, model: onnx.ModelProto) -> tuple[PassRecord, ...]:
    """Splits the products that resize frames, in place, if the backend would round their weights."""
    from matchrt.export.precision.frame_products import split_frame_products

    return split_frame_products(model) if request.builder.rounds_products else ()


def _fp16_graph(request: GraphRequest, tell: Progress) -> Graph:
    """The graph with the types that the family's rules give."""
    import onnx

    from matchrt.export.precision import apply

    tell(f"writing {request.precision} into the graph", 0.0)
    manifest = request.file.manifest
    model, records = apply(onnx.load_model_from_string(request.file.data), request.precision, manifest.family)
    return _finished(request, model, records, rounded=True)


def _quantized_graph(request: GraphRequest, pairs: CalibrationPairs, store: EngineStore, tell: Progress) -> Graph:
    """The graph with Q/DQ nodes and measured ranges."""
    options, builder = request.calibration, request.builder
    style = style_for(request.precision, builder.name, builder.version)
    timed: list[PassRecord] = []
    done = calibrate(
        request.file,
        style,
        options,
        pairs,
        store,
        lambda what, share: tell(what, 0.05 * share),
        partial(_choose_faster, request, timed, tell) if options.only_faster else None,
    )
    return _finished(request, done.model, (_calibration_record(options, pairs), *timed, *done.records), rounded=True)


def _choose_faster(
    request: GraphRequest, records: list[PassRecord], tell: Progress, plan: QuantPlan, pair: JudgedPair
) -> tuple[str, ...]:
    """The products that 8 bits make faster on this GPU; `records` gets a line about them. Error: precision-slower."""
    from matchrt.export.quantization.ranges import tensor_shapes

    manifest = request.file.manifest
    inputs = PairAdapter(manifest, MatcherOptions(apply_exif=False, fit_frames=True)).inputs(pair.image0, pair.image1)
    shapes = tensor_shapes(plan.model, plan.placement.tensors, inputs)
    times = time_products(plan, shapes, request.builder, manifest, lambda what, share: tell(what, 0.05 + 0.05 * share))
    chosen = faster_products(times, request.precision)
    saved = sum((entry.fp16 - entry.eighth) * len(entry.nodes) for entry in times if entry.faster)
    total = sum(len(entry.nodes) for entry in times)
    records.append(
        PassRecord(
            "only-faster",
            True,
            f"{len(chosen)} of {total} products are faster in {request.precision} on this GPU, by {saved:.3f} ms in "
            "all as timed alone; the others stay in fp16",
        )
    )
    return chosen


def _calibration_record(options: CalibrationOptions, pairs: CalibrationPairs) -> PassRecord:
    return PassRecord(
        "calibration",
        True,
        f"{options.method} over {len(pairs.calibrating)} {'drawn' if options.source is None else 'given'} pairs, seed "
        f"{options.seed}; judged on {'others' if pairs.apart else 'the same'}",
    )
