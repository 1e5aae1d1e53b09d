"""What each part of a network costs in matches when it alone is lowered to 8 bits."""

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
    precision: str,
    backend: str,
    products: Sequence[str],
    pairs: Sequence[JudgedPair],
    expected: Expected,
    open_variant: Callable[[tuple[str, ...]], Session],
    tell: Tell,
) -> Sensitivity:
    """Lowers one block after another and counts the matches that are left, of those that fp32 finds.

    products: names of the nodes that the precision lowers. open_variant: opens the network with these nodes alone
    lowered, all of them together where none are named. expected: what fp32 finds in `pairs`.
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
    """The nodes of every block, in the order of the network."""
    found: dict[str, list[str]] = {}
    for name in products:
        found.setdefault(block_of(name), []).append(name)
    return {block: tuple(names) for block, names in found.items()}


def _cost(block: str, products: int, session: Session, pairs: Sequence[JudgedPair], expected: Expected) -> BlockCost:
    # Only the figures are wanted here, and of them those from the default score on, which all limits have.
    verdict = judge_engine(expected, session, pairs, INT8, ("fp32", block), lambda: None, accuracy=False)
    agreement = verdict.verification.agreement
    return BlockCost(block, products, 1 - agreement.share(1.0), agreement.count_ratio)


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
