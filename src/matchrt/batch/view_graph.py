"""The view graph of a run: images are its nodes, and pairs whose verdict is `match` its edges.

What is connected can become one map; an image without an edge cannot be part of any.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from matchrt.batch.journal import Journal
from matchrt.batch.names import readable

# Bounds of the histogram: the numbers of inliers from which its bars begin.
BARS = (0, 10, 20, 40, 60, 80, 100, 150, 200)


class Edge(NamedTuple):
    """A pair of images and its verdict.

    pair: its number in the journal.
    first, second: the numbers of its images' nodes.
    probability: that both images show the same thing, 0..1.
    inliers: of the verdict's geometry.
    """

    pair: int
    first: int
    second: int
    probability: float
    inliers: int


@dataclass(frozen=True, eq=False)
class Edges:
    """Pairs of one verdict, in arrays, because there may be millions. The fields are those of `Edge`.

    pairs: int64 [N].
    nodes: int32 [N, 2].
    probability: float32 [N].
    inliers: int32 [N].
    """

    pairs: npt.NDArray[np.int64]
    nodes: npt.NDArray[np.int32]
    probability: npt.NDArray[np.float32]
    inliers: npt.NDArray[np.int32]

    @classmethod
    def of(cls, values: array[float]) -> Edges:
        """From numbers in a row, as those of `Edge`, five of each. Raises nothing."""
        table = np.frombuffer(values, np.float64) if values else np.zeros(0)
        table = table.reshape(-1, len(Edge._fields))
        pairs, nodes, inliers = table[:, 0].astype(np.int64), table[:, 1:3].astype(np.int32), table[:, 4]
        return cls(pairs, nodes, table[:, 3].astype(np.float32), inliers.astype(np.int32))

    def __len__(self) -> int:
        return len(self.pairs)

    def edge(self, row: int) -> Edge:
        """The edge of a row. Raises IndexError."""
        first, second = self.nodes[row].tolist()
        return Edge(int(self.pairs[row]), first, second, float(self.probability[row]), int(self.inliers[row]))

    def weakest(self, count: int) -> list[Edge]:
        """Those for which least speaks, the weakest first. Raises nothing."""
        order = np.lexsort((self.pairs, self.inliers, self.probability))
        return [self.edge(row) for row in order[:count].tolist()]

    def likeliest(self, count: int) -> list[Edge]:
        """Those for which most speaks, the likeliest first. Raises nothing."""
        order = np.lexsort((self.pairs, -self.inliers, -self.probability))
        return [self.edge(row) for row in order[:count].tolist()]


@dataclass(frozen=True)
class Bar:
    """A bar of a histogram.

    least: the number of inliers from which it begins; it ends before the next bar's.
    count: how many pairs are in it.
    """

    least: int
    count: int


@dataclass(frozen=True)
class ViewGraph:
    """Which images see the same things.

    names: the images of the list, in the order of their names.
    verified: the pairs whose verdict is `match`.
    doubtful: those whose verdict is `doubtful`.
    components: numbers of the images that are connected by verified pairs, the largest group first; groups of one
        image are left out.
    alone: numbers of the images without a verified pair.
    failed_by: how many pairs have failed with which error's code.
    """

    names: tuple[str, ...]
    verified: Edges
    doubtful: Edges
    components: tuple[tuple[int, ...], ...]
    alone: tuple[int, ...]
    failed_by: dict[str, int]

    @classmethod
    def of(cls, journal: Journal) -> ViewGraph:
        """The graph of a journal's pairs. Images that are refused have no node. Error: journal-damaged."""
        rows = [(row.id, row.name) for row in journal.images()]
        number = {image: index for index, (image, _) in enumerate(rows)}
        verified, doubtful = array("d"), array("d")
        kept = {"match": verified, "doubtful": doubtful}
        for pair, first, second, judged in journal.judged():
            if judged is not None and judged.verdict in kept:
                row = pair, number[first], number[second], judged.probability, judged.inliers
                kept[judged.verdict].extend(row)
        sure, unsure = Edges.of(verified), Edges.of(doubtful)
        groups = connected(len(rows), sure.nodes.tolist())
        components = tuple(group for group in groups if len(group) > 1)
        alone = tuple(group[0] for group in groups if len(group) == 1)
        return cls(tuple(name for _, name in rows), sure, unsure, components, alone, journal.failed_by())

    def histogram(self) -> list[Bar]:
        """The numbers of inliers of the verified pairs. Raises nothing."""
        counts, _ = np.histogram(self.verified.inliers, [*BARS, np.inf])
        return [Bar(bound, int(count)) for bound, count in zip(BARS, counts, strict=True)]

    def to_json(self) -> dict[str, Any]:
        """As JSON values. Raises nothing."""
        return {
            "images": len(self.names),
            "verified": len(self.verified),
            "doubtful": len(self.doubtful),
            "failed_by_code": self.failed_by,
            "inliers_histogram": [{"from": bar.least, "pairs": bar.count} for bar in self.histogram()],
            "components": [len(group) for group in self.components],
            "images_without_partner": [readable(self.names[index]) for index in self.alone],
        }


def connected(count: int, edges: Iterable[Sequence[int]]) -> list[tuple[int, ...]]:
    """The connected components of a graph with nodes 0 to count - 1: the largest first, nodes sorted.

    Raises nothing.
    """
    parent = list(range(count))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = node = parent[parent[node]]
        return node

    for first, second in edges:
        parent[root(first)] = root(second)
    groups: dict[int, list[int]] = {}
    for node in range(count):
        groups.setdefault(root(node), []).append(node)
    return sorted(map(tuple, groups.values()), key=lambda group: (-len(group), group[0]))
