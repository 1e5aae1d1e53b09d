"""A drawing of a view graph as SVG: where its nodes stand, and what is drawn.

The nodes of one component repel each other, and verified pairs pull (Fruchterman and Reingold, "Graph drawing by
force-directed placement", 1991); components stand beside each other. Of large graphs, a part is drawn.
"""

from __future__ import annotations

import html
import math

import numpy as np
import numpy.typing as npt

from matchrt.batch.names import one_line
from matchrt.batch.view_graph import ViewGraph

Float64Array = npt.NDArray[np.float64]

# What a browser still shows well.
_MOST_NODES, _MOST_EDGES = 600, 4000
_ROUNDS, _SEED = 120, 0
_SIDE, _MARGIN = 900.0, 24.0


def drawn(graph: ViewGraph) -> tuple[str, int]:
    """The graph as an SVG element, and the number of its nodes that are drawn, of the largest components first.

    Images without a partner are not drawn. Raises nothing.
    """
    nodes = [node for group in graph.components for node in group][:_MOST_NODES]
    place = np.full(len(graph.names), -1)
    place[nodes] = np.arange(len(nodes))
    drawable = np.flatnonzero((place[graph.verified.nodes] >= 0).all(1))
    strongest = drawable[np.argsort(-graph.verified.inliers[drawable], kind="stable")[:_MOST_EDGES]]
    if not nodes:
        return "", 0
    groups = [[int(place[node]) for node in group if place[node] >= 0] for group in graph.components]
    links = place[graph.verified.nodes[strongest]]
    points = _placed([group for group in groups if group], links, len(nodes))
    height = float(points[:, 1].max()) + _MARGIN
    parts = [f'<svg viewBox="0 0 {_SIDE:.0f} {height:.0f}" role="img" aria-label="view graph">']
    inliers = graph.verified.inliers[strongest].tolist()
    parts += [_line(count, *points[link]) for count, link in zip(inliers, links, strict=True)]
    parts += [_circle(graph.names[node], *points[number]) for number, node in enumerate(nodes)]
    return "".join([*parts, "</svg>"]), len(nodes)


def _line(inliers: int, start: Float64Array, end: Float64Array) -> str:
    width = 0.6 + min(3.0, math.log10(1 + inliers))
    return (
        f'<line x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}" '
        f'stroke-width="{width:.1f}"><title>{inliers} inliers</title></line>'
    )


def _circle(name: str, x: float, y: float) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5"><title>{html.escape(one_line(name))}</title></circle>'


def _placed(groups: list[list[int]], links: npt.NDArray[np.int64], count: int) -> Float64Array:
    """Points [N, 2] of the nodes: components in rows, each in a square whose area grows with its nodes."""
    points = np.zeros((count, 2))
    sides = [max(60.0, (_SIDE - 2 * _MARGIN) * math.sqrt(len(group) / count)) for group in groups]
    x, y, row = _MARGIN, _MARGIN, 0.0
    for group, side in zip(groups, sides, strict=True):
        if x + side > _SIDE - _MARGIN + 1 and x > _MARGIN:
            x, y, row = _MARGIN, y + row + _MARGIN, 0.0
        inside = {node: number for number, node in enumerate(group)}
        own = np.array([(inside[a], inside[b]) for a, b in links.tolist() if a in inside and b in inside])
        points[group] = _spread(len(group), own.reshape(-1, 2).astype(np.int64)) * side + (x, y)
        x, row = x + side + _MARGIN, max(row, side)
    return points


def _spread(count: int, links: npt.NDArray[np.int64]) -> Float64Array:
    """Points [N, 2] in 0..1 of one component."""
    turn = 2 * np.pi * np.arange(count) / count
    points = 0.5 + 0.4 * np.stack([np.cos(turn), np.sin(turn)], 1)
    points += np.random.default_rng(_SEED).normal(0, 0.01, points.shape)  # no two nodes in one place
    ideal = 1 / math.sqrt(count)
    for step in range(_ROUNDS):
        apart = points[:, None] - points[None]
        squares = np.maximum((apart**2).sum(2), 1e-6)
        force = (apart * (ideal**2 / squares)[:, :, None]).sum(1)
        pull = points[links[:, 0]] - points[links[:, 1]]
        pull *= np.linalg.norm(pull, axis=1, keepdims=True) / ideal
        np.add.at(force, links[:, 0], -pull)
        np.add.at(force, links[:, 1], pull)
        length = np.maximum(np.linalg.norm(force, axis=1, keepdims=True), 1e-9)
        points += force / length * np.minimum(length, 0.1 * (1 - step / _ROUNDS))
    low, high = points.min(0), points.max(0)
    return np.asarray((points - low) / np.maximum(high - low, 1e-9))
