"""What each part of a network costs in matches when it alone is lowered to 8 bits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matchrt._util import atomic
from matchrt.bench.pairs import CalibrationPairs
from matchrt.bench.plots import check_plot
from matchrt.bench.verify import compare_with, reference_matches
from matchrt.building.calibration.calibrate import plan_ranges
from matchrt.building.calibration.options import CalibrationOptions
from matchrt.building.calibration.style import style_for
from matchrt.building.judge import open_graph
from matchrt.runtime.engine_file import EngineFile
from matchrt.runtime.matcher import Matcher
from matchrt.runtime.opening import open_session
from matchrt.runtime.options import MatcherOptions
from matchrt.store import EngineStore

Tell = Callable[[str, float], None]


@dataclass(frozen=True)
class BlockCost:
    """One part lowered alone. products: layers in it; lost: share of the reference's matches not within 1 px."""

    block: str
    products: int
    lost: float
    count_ratio: float

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Sensitivity:
    """All parts, the costliest first, and all of them together (`whole`)."""

    precision: str
    backend: str
    pairs: int
    expected: int
    whole: BlockCost
    blocks: tuple[BlockCost, ...]

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def block_of(node: str) -> str:
    """`backbone.layer1.0.bn1/Conv_0` -> `backbone.layer1.0`: up to the first number, else two parts."""
    parts = node.rpartition("/")[0].split(".")
    number = next((index for index, part in enumerate(parts) if part.isdigit()), 1)
    return ".".join(parts[: number + 1])


def measure_sensitivity(
    file: EngineFile,
    precision: str,
    backend: str,
    options: CalibrationOptions,
    pairs: CalibrationPairs,
    store: EngineStore,
    tell: Tell,
) -> Sensitivity:
    """Lowers one block after another of an fp32 ONNX engine and counts matches on the judging pairs.

    Errors: those of `calibrate`.
    """
    import onnx

    from matchrt.export.quantization.quantize import plan_quantization
    from matchrt.export.quantization.ranges import check_method

    model = onnx.load_model_from_string(file.data)
    style, method = style_for(precision, backend), check_method(options.method)
    plan = plan_quantization(model, file.manifest.family, style, options.keep)
    ranges, _ = plan_ranges(file, plan, pairs.calibrating, method, store, lambda what, share: tell(what, 0.2 * share))
    matching = MatcherOptions(apply_exif=False)
    tell("matching in fp32", 0.2)
    with Matcher(open_session(file), matching) as matcher:
        expected = reference_matches(matcher, pairs.judging, lambda: None)
    blocks = _blocks(plan.selection.products)
    costs = []
    for index, (block, nodes) in enumerate({"(all)": (), **blocks}.items()):
        tell(f"{block} alone", 0.25 + 0.75 * index / (len(blocks) + 1))
        alone = plan_quantization(model, file.manifest.family, style, options.keep, nodes)
        # A part alone quantises results that the whole does too, and nothing else.
        costs.append(_cost(file, alone, ranges, block, expected, pairs, matching))
    whole, rest = costs[0], sorted(costs[1:], key=lambda cost: -cost.lost)
    matches = sum(len(found.scores) for found in expected)
    return Sensitivity(precision, backend, len(pairs.judging), matches, whole, tuple(rest))


def _blocks(products: Sequence[str] | dict[str, str]) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for name in products:
        found.setdefault(block_of(name), []).append(name)
    return {block: tuple(names) for block, names in found.items()}


def _cost(
    file: EngineFile,
    plan: Any,
    ranges: Any,
    block: str,
    expected: Any,
    pairs: CalibrationPairs,
    matching: MatcherOptions,
) -> BlockCost:
    from matchrt.export.quantization.quantize import quantize

    graph, _ = quantize(plan, ranges)
    with open_graph(file, graph, matching) as matcher:
        found = compare_with(expected, matcher.match, pairs.judging, ("fp32", block), lambda: None, accuracy=False)
    agreement = found.agreement
    return BlockCost(block, len(plan.selection.products), 1 - agreement.share(1.0), agreement.count_ratio)


def save_sensitivity_plot(sensitivity: Sensitivity, path: Path) -> None:
    """Bars, the costliest part on top: .png, .svg or .pdf. Errors: output-format, package-missing."""
    from matchrt.bench.plots import figure_class

    check_plot(path)
    blocks = sensitivity.blocks[::-1]
    figure = figure_class()(figsize=(8, 0.26 * len(blocks) + 1.5), layout="constrained")
    axes = figure.subplots()
    axes.barh([cost.block for cost in blocks], [100 * cost.lost for cost in blocks])
    axes.set(xlabel="matches of fp32 lost within 1 px, %", title=f"{sensitivity.precision}: each part lowered alone "
             f"(all: {100 * sensitivity.whole.lost:.2f} %)")  # fmt: skip
    axes.tick_params(axis="y", labelsize="small")
    axes.grid(axis="x", alpha=0.3)
    with atomic.atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130)
