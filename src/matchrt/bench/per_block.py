"""How many matches each part of a network costs if it alone is quantized."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matchrt._util import atomic
from matchrt.bench.gate import INT8
from matchrt.bench.judging import Expected, judge_engine
from matchrt.bench.pairs import JudgedPair
from matchrt.bench.plots import check_plot
from matchrt.runtime.session import Session

Tell = Callable[[str, float], None]


@dataclass(frozen=True)
class BlockCost:
    """The cost of quantizing one part alone.

    block: the part's module path; `(all)` for all parts together.
    products: number of quantized layers in it.
    lost: share (0..1) of the reference's matches that are not kept within 1 px.
    count_ratio: number of matches divided by the reference's.
    """

    block: str
    products: int
    lost: float
    count_ratio: float

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Sensitivity:
    """The cost of quantizing each part of a network.

    precision: `int8` or `fp8`.
    backend: the backend whose placement of Q/DQ nodes was used.
    pairs: number of pairs that were matched.
    expected: number of matches that fp32 finds in all pairs.
    whole: the cost of all parts together.
    blocks: the cost of each part, the costliest first.
    """

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
    """The block of a node: its module path up to the first number, else the first two parts.

    For example, `backbone.layer1.0.conv1/Conv_0` belongs to `backbone.layer1.0`.
    """
    parts = node.rpartition("/")[0].split(".")
    number = next((index for index, part in enumerate(parts) if part.isdigit()), 1)
    return ".".join(parts[: number + 1])


def measure_sensitivity(
    precision: str,
    backend: str,
    products: Sequence[str],
    pairs: Sequence[JudgedPair],
    expected: Expected,
    open_variant: Callable[[tuple[str, ...]], Session],
    tell: Tell,
) -> Sensitivity:
    """Quantizes one block after another and counts how many of fp32's matches are kept.

    products: names of the nodes that the precision quantizes. expected: what fp32 finds in `pairs`.
    open_variant: opens the network with only the given nodes quantized, or all of them if none is given.
    tell: called with the step that begins and the share (0..1) of the work done.
    Errors: those of `judge_engine` and of `open_variant`.
    """
    blocks = blocks_of(products)
    costs = []
    for index, (block, nodes) in enumerate({"(all)": (), **blocks}.items()):
        tell(f"{block} alone", index / (len(blocks) + 1))
        with closing(open_variant(nodes)) as session:
            costs.append(_cost(block, len(nodes or products), session, pairs, expected))
    whole, rest = costs[0], sorted(costs[1:], key=lambda cost: -cost.lost)
    return Sensitivity(precision, backend, len(pairs), expected.count(), whole, tuple(rest))


def blocks_of(products: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The node names of every block, in the order of the network."""
    found: dict[str, list[str]] = {}
    for name in products:
        found.setdefault(block_of(name), []).append(name)
    return {block: tuple(names) for block, names in found.items()}


def _cost(block: str, products: int, session: Session, pairs: Sequence[JudgedPair], expected: Expected) -> BlockCost:
    # Only the figures from the default score on are used, and these are the same for all limits.
    verdict = judge_engine(expected, session, pairs, INT8, ("fp32", block), lambda: None, accuracy=False)
    agreement = verdict.verification.agreement
    return BlockCost(block, products, 1 - agreement.share(1.0), agreement.count_ratio)


def save_sensitivity_plot(sensitivity: Sensitivity, path: Path) -> None:
    """Draws the costs as bars, the costliest part on top, into a .png, .svg or .pdf file.

    Errors: output-format, output-unwritable, package-missing.
    """
    from matchrt.bench.plots import figure_class

    check_plot(path)
    blocks = sensitivity.blocks[::-1]
    figure = figure_class()(figsize=(8, 0.26 * len(blocks) + 1.5), layout="constrained")
    axes = figure.subplots()
    axes.barh([cost.block for cost in blocks], [100 * cost.lost for cost in blocks])
    axes.set(xlabel="matches of fp32 lost within 1 px, %", title=f"{sensitivity.precision}: each part quantized alone "
             f"(all: {100 * sensitivity.whole.lost:.2f} %)")  # fmt: skip
    axes.tick_params(axis="y", labelsize="small")
    axes.grid(axis="x", alpha=0.3)
    with atomic.atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130)
