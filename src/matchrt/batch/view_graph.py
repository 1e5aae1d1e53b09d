"""The view graph of a run: images are its nodes, and pairs whose verdict is `match` its edges.

What is connected can become one map; an image without an edge cannot be part of any.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from matchrt.batch.journal import Journal
from matchrt.batch.names import readable
from matchrt.batch.results import Judged

# Bounds of the histogram: the numbers of inliers from which its bars begin.
BARS = (0, 10, 20, 40, 60, 80, 100, 150, 200)


class Edge(NamedTuple):
    """A pair. pair: its number in the journal. first, second: numbers of nodes. judged: its verdict."""

    pair: int
    first: int
    second: int
    judged: Judged


@dataclass(frozen=True)
class Bar:
    """A bar of a histogram: `count` pairs have `least` inliers or more, and fewer than the next bar's."""

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
    verified: tuple[Edge, ...]
    doubtful: tuple[Edge, ...]
    components: tuple[tuple[int, ...], ...]
    alone: tuple[int, ...]
    failed_by: dict[str, int]

    @classmethod
    def of(cls, journal: Journal) -> ViewGraph:
        """The graph of a journal's pairs. Images that are refused have no node. Error: journal-damaged."""
        rows = list(journal.images())
        number = {row.id: index for index, row in enumerate(rows)}
        edges = [
            Edge(pair, number[first], number[second], judged)
            for pair, first, second, judged in journal.judged()
            if judged is not None and judged.verdict != "no match"
        ]
        verified = tuple(edge for edge in edges if edge.judged.verdict == "match")
        doubtful = tuple(edge for edge in edges if edge.judged.verdict == "doubtful")
        groups = connected(len(rows), ((edge.first, edge.second) for edge in verified))
        components = tuple(group for group in groups if len(group) > 1)
        alone = tuple(group[0] for group in groups if len(group) == 1)
        names = tuple(row.name for row in rows)
        return cls(names, verified, doubtful, components, alone, journal.failed_by())

    def histogram(self) -> list[Bar]:
        """The numbers of inliers of the verified pairs. Raises nothing."""
        found: Counter[int] = Counter()
        for edge in self.verified:
            found[max(bound for bound in BARS if bound <= edge.judged.inliers)] += 1
        return [Bar(bound, found[bound]) for bound in BARS]

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


def connected(count: int, edges: Iterable[tuple[int, int]]) -> list[tuple[int, ...]]:
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


def weakest(edges: Sequence[Edge], count: int) -> list[Edge]:
    """Those `count` pairs for which least speaks, the weakest first. Raises nothing."""
    return sorted(edges, key=lambda edge: (edge.judged.probability, edge.judged.inliers, edge.pair))[:count]
