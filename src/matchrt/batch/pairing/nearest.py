"""Nearest neighbours among images, by place, time or similarity.

Below `INDEX_FROM` images every distance is computed; it takes less than a minute and misses nothing. From there on,
similarity is looked up in an index of faiss (HNSW), which is kept and has wheels for all systems; hnswlib has had no
wheels and no release for years.

Error: package-missing (faiss).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from matchrt.batch.pairing.windows import IndexPair
from matchrt.errors import missing_package

FloatArray = npt.NDArray[np.floating[Any]]

INDEX_FROM = 20_000
_CHUNK_VALUES = 1 << 24
# By so much the product of a descriptor with itself may be less than 1.
_ROUNDING = 1e-6
# The graph's neighbours of a node, and how many nodes are looked at when it is built and searched.
_LINKS, _EFFORT_BUILD, _EFFORT_SEARCH = 32, 80, 128


def pairs_by_distance(points: FloatArray, neighbours: int, most: float) -> list[IndexPair]:
    """Each point with its nearest ones, at most so many and so far; both directions are merged. Raises nothing.

    points: float64 [N, D]. most: in the points' unit. Returns sorted pairs (i, j), i < j.
    """

    def nearness(rows: slice) -> FloatArray:
        # Differences first: a sum of squares of times or places would lose the digits in which neighbours differ.
        return np.asarray(-sum(np.subtract.outer(points[rows, axis], points[:, axis]) ** 2 for axis in range(width)))

    width = points.shape[1]
    found = _merged(_best(nearness, len(points), neighbours))
    gaps = {pair: float(np.linalg.norm(points[pair[0]] - points[pair[1]])) for pair in found}
    return [pair for pair in found if gaps[pair] <= most]


def pairs_by_similarity(
    descriptors: FloatArray, neighbours: int, least: float, index_from: int = INDEX_FROM
) -> list[IndexPair]:
    """Each image with those most like it; both directions are merged. Error: package-missing, see `require_index`.

    descriptors: float32 [N, D] of length 1, whose product is the similarity. least: similarity of a pair at least.
    Returns sorted pairs (i, j), i < j.
    """
    if len(descriptors) >= index_from:
        rows = _looked_up(descriptors, neighbours)
    else:
        rows = _best(lambda some: descriptors[some] @ descriptors.T, len(descriptors), neighbours)
    pairs = _merged(rows)
    return [(i, j) for i, j in pairs if float(descriptors[i] @ descriptors[j]) >= least - _ROUNDING]


def require_index(count: int, index_from: int = INDEX_FROM) -> Any:
    """The module faiss if so many images need an index, else None. Error: package-missing."""
    if count < index_from:
        return None
    try:
        import faiss
    except ImportError as error:
        raise missing_package("faiss", "retrieval", f"Retrieval among {index_from:,} or more images") from error
    return faiss


def _best(nearness: Any, count: int, neighbours: int) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """For each of `count` images, those others whose nearness is largest; of equal ones, the next ones by number."""
    wanted = min(neighbours, count - 1)
    step = max(1, _CHUNK_VALUES // max(1, count))
    for start in range(0, count if wanted > 0 else 0, step):
        rows = slice(start, min(count, start + step))
        values = nearness(rows)
        own = np.arange(rows.start, rows.stop)
        values[own - start, own] = -np.inf
        steps = np.abs(np.subtract.outer(own, np.arange(count)))
        order = np.lexsort((steps, -values))[:, :wanted]
        yield from zip(own.tolist(), order, strict=True)


def _looked_up(descriptors: FloatArray, neighbours: int) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    faiss = require_index(len(descriptors), 0)
    values = np.ascontiguousarray(descriptors, np.float32)
    index = faiss.IndexHNSWFlat(values.shape[1], _LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction, index.hnsw.efSearch = _EFFORT_BUILD, max(_EFFORT_SEARCH, 4 * neighbours)
    index.add(values)
    _, found = index.search(values, neighbours + 1)
    for own, others in enumerate(found):
        yield own, others[(others >= 0) & (others != own)][:neighbours]


def _merged(rows: Iterator[tuple[int, npt.NDArray[np.int64]]]) -> list[IndexPair]:
    """The pairs of both directions, each once, sorted."""
    return sorted({(min(own, other), max(own, other)) for own, others in rows for other in others.tolist()})
