"""Makes a quantized graph from an fp32 ONNX engine: measures ranges on pairs, then inserts Q/DQ nodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from matchrt._util.digest import sha256_bytes
from matchrt.bench.pairs import JudgedPair
from matchrt.building.calibration.cache import Ranges, pixels_digest, ranges_key, read_ranges, write_ranges
from matchrt.building.calibration.options import CalibrationOptions
from matchrt.building.calibration.pairs import CalibrationPairs
from matchrt.runtime.adapter import PairAdapter
from matchrt.runtime.engine_file import EngineFile
from matchrt.runtime.options import MatcherOptions
from matchrt.store import EngineStore

if TYPE_CHECKING:
    import onnx

    from matchrt.export.quantization.moments import Moments
    from matchrt.export.quantization.quantize import QuantPlan
    from matchrt.export.quantization.ranges import Method
    from matchrt.export.quantization.styles import QuantStyle
    from matchrt.manifest import PassRecord


# Names of the products to quantize, of a plan and a pair of images that shows the shapes.
Choose = Callable[["QuantPlan", JudgedPair], tuple[str, ...]]


@dataclass(frozen=True)
class Calibrated:
    """A quantized graph.

    model: the graph.
    records: what was done to it, for the manifest.
    cached: whether its ranges came from the cache.
    """

    model: onnx.ModelProto
    records: tuple[PassRecord, ...]
    cached: bool


def calibrate(
    file: EngineFile,
    style: QuantStyle,
    options: CalibrationOptions,
    pairs: CalibrationPairs,
    store: EngineStore,
    tell: Callable[[str, float], None],
    choose: Choose | None = None,
) -> Calibrated:
    """Quantizes an fp32 ONNX engine in a style.

    style: where Q/DQ nodes are placed. pairs: the calibrating ones are used. store: keeps the measured ranges.
    tell: called with the step and the share (0..1) of the calibration done.
    choose: picks the products to quantize of those that the rules allow; None for all of them.
    Errors: those of `choose`, precision-*, keep-unused, calibration-*, image-*.
    """
    import onnx

    from matchrt.export.quantization.quantize import plan_quantization, quantize
    from matchrt.export.quantization.ranges import check_method

    method = check_method(options.method)
    model = onnx.load_model_from_string(file.data)
    family, name = file.manifest.family, file.manifest.model
    plan = plan_quantization(model, family, style, options.keep, name=name)
    plan = equalised_plan(file, plan, pairs.calibrating, tell)
    ranges, cached = plan_ranges(file, plan, pairs.calibrating, method, store, tell)
    if choose is not None:
        names = choose(plan, pairs.calibrating[0])
        chosen = plan_quantization(model, family, style, options.keep, names, name)
        plan = replace(chosen, model=plan.model, folded=plan.folded)
    graph, records = quantize(plan, ranges, plan_moments(file, plan, pairs.calibrating, tell))
    return Calibrated(graph, records, cached)


def plan_ranges(
    file: EngineFile,
    plan: QuantPlan,
    pairs: Sequence[JudgedPair],
    method: Method,
    store: EngineStore,
    tell: Callable[[str, float], None],
) -> tuple[Ranges, bool]:
    """The (lowest, highest) values of the tensors in a plan, and whether they came from the cache.

    Errors: image-*, size-memory.
    """
    from matchrt.export.quantization.ranges import measure_ranges

    tell("reading calibration pairs", 0.0)
    inputs = _inputs(file, pairs)
    tensors = plan.placement.tensors
    graph = file.manifest.onnx_sha256
    if plan.compensated:  # its graph is another one
        graph = sha256_bytes(plan.model.SerializeToString(deterministic=True))
    key = ranges_key(graph, pixels_digest(inputs), method, tensors)
    found = read_ranges(store, key, tensors)
    if found is not None:
        return found, True
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        tell(f"calibrating ({method}), pair {done} of {len(inputs)}", done / len(inputs))

    tell(f"calibrating ({method}), {len(inputs)} pairs", 0.0)
    measured = measure_ranges(plan.model, tensors, inputs, method, advance)
    write_ranges(store, key, measured)
    return measured, False


def equalised_plan(
    file: EngineFile, plan: QuantPlan, pairs: Sequence[JudgedPair], tell: Callable[[str, float], None]
) -> QuantPlan:
    """A compensated plan for the equalised graph; any other plan as it is. Errors: image-*, size-memory."""
    if not plan.compensated:
        return plan
    from matchrt.export.quantization.equalising import measure_peaks

    tell("looking at the ranges of channels", 0.0)
    return plan.equalised(measure_peaks(plan.model, plan.equalisable, _inputs(file, pairs), lambda: None))


def plan_moments(
    file: EngineFile, plan: QuantPlan, pairs: Sequence[JudgedPair], tell: Callable[[str, float], None]
) -> Moments | None:
    """The moments that a compensated plan needs; None for another plan. Errors: image-*, size-memory."""
    if not plan.compensated:
        return None
    from matchrt.export.quantization.moments import measure_moments

    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        tell(f"looking at what convolutions read, pair {done} of {len(pairs)}", 1.0)

    return measure_moments(plan.model, plan.selection.products, _inputs(file, pairs), advance)


def _inputs(file: EngineFile, pairs: Sequence[JudgedPair]) -> list[dict[str, Any]]:
    """What the engine reads of each pair, by name of the input."""
    # Images are not turned as EXIF says. The truth of evaluation pairs is for the stored pixels, and ranges are alike.
    adapter = PairAdapter(file.manifest, MatcherOptions(apply_exif=False, fit_frames=True))
    return [adapter.inputs(pair.image0, pair.image1) for pair in pairs]
