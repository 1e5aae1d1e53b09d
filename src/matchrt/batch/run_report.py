"""A page about a run, for people: one HTML file without anything from elsewhere.

It has the numbers, a histogram of inliers, the drawn view graph, pictures of the pairs that are least sure, the images
without a partner, and failures by reason. Names are escaped. Errors: output-unwritable, journal-damaged.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage

from matchrt._util.atomic import write_text
from matchrt.batch.graph_drawing import drawn
from matchrt.batch.journal import Journal
from matchrt.batch.names import one_line
from matchrt.batch.view_graph import Edge, ViewGraph
from matchrt.errors import MatchRTError
from matchrt.runtime.draw import draw_matches
from matchrt.runtime.image import Image, read_image
from matchrt.runtime.match_data import MatchData, Provenance

_PAIRS, _THUMBNAILS, _NAMES = 6, 24, 500
_PAIR_HEIGHT, _THUMBNAIL_SIDE, _LINES = 220, 160, 60
_QUALITY = 72

_STYLE = """body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:960px;padding:0 1rem;color:#18181b}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}table{border-collapse:collapse}
td,th{padding:.2rem .8rem .2rem 0;text-align:left;vertical-align:top}
svg{width:100%;background:#fafafa;border:1px solid #e4e4e7}
line{stroke:#2563eb;stroke-opacity:.35}circle{fill:#1e3a8a}rect{fill:#2563eb}text{font-size:12px;fill:#3f3f46}
figure{margin:1rem 0}figure img{max-width:100%}
.row{display:flex;flex-wrap:wrap;gap:.8rem}.row figure{margin:0;width:160px}
figcaption{font-size:13px;color:#52525b;overflow-wrap:anywhere}"""


def write_report(path: Path, journal: Journal, graph: ViewGraph, root: Path, title: str) -> None:
    """Writes the page atomically. root: the folder of the images. title: what the page calls the run.

    Errors: the module's. A picture that cannot be drawn is replaced by the reason.
    """
    page = _Page(journal, graph, root)
    parts = (page.numbers(), page.histogram(), page.view_graph(), page.pairs(), page.alone(), page.failures())
    name = html.escape(one_line(title))
    text = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{name}</title>'
        f"<style>{_STYLE}</style></head>"
        f"<body><h1>{name}</h1>{''.join(parts)}</body></html>\n"
    )
    write_text(path, text)


class _Page:
    """The parts of the page, as HTML."""

    def __init__(self, journal: Journal, graph: ViewGraph, root: Path) -> None:
        self._journal, self._graph, self._root = journal, graph, root
        plan = journal.plan() or {}
        self._exif, self._most = bool(plan.get("apply_exif", True)), int(plan.get("max_pixels", 50_000_000))

    def numbers(self) -> str:
        counts, graph = self._journal.counts(), self._graph
        rows = {
            "Images": counts.images,
            "Pairs": counts.pairs,
            "Matched": counts.matched,
            "Verified (verdict match)": len(graph.verified),
            "Doubtful": len(graph.doubtful),
            "Failed": counts.failed,
            "Connected components": ", ".join(f"{len(group)} images" for group in graph.components[:20]) or "none",
            "Images without a partner": len(graph.alone),
        }
        return _table(rows)

    def histogram(self) -> str:
        bars = self._graph.histogram()
        most = max((bar.count for bar in bars), default=0)
        if not most:
            return ""
        parts = [f'<svg viewBox="0 0 600 {24 * len(bars) + 8}" role="img" aria-label="histogram">']
        for row, bar in enumerate(bars):
            y = 24 * row + 8
            end = f"-{bars[row + 1].least - 1}" if row + 1 < len(bars) else " or more"
            parts.append(f'<text x="4" y="{y + 12}">{bar.least}{end}</text>')
            parts.append(f'<rect x="90" y="{y}" width="{440 * bar.count / most:.1f}" height="16"/>')
            parts.append(f'<text x="{96 + 440 * bar.count / most:.1f}" y="{y + 12}">{bar.count}</text>')
        return "<h2>Inliers of verified pairs</h2>" + "".join([*parts, "</svg>"])

    def view_graph(self) -> str:
        picture, shown = drawn(self._graph)
        if not shown:
            return "<h2>View graph</h2><p>No pair was verified.</p>"
        most = len(self._graph.names) - len(self._graph.alone)
        left_out = "" if shown == most else f"<p>{shown} of {most} connected images are drawn.</p>"
        return f"<h2>View graph</h2>{picture}{left_out}"

    def pairs(self) -> str:
        least = self._graph.verified.weakest(_PAIRS)
        doubtful = self._graph.doubtful.likeliest(_PAIRS)
        parts = []
        for title, edges in (("Weakest verified pairs", least), ("Doubtful pairs", doubtful)):
            if edges:
                parts.append(f"<h2>{title}</h2>" + "".join(map(self._pair, edges)))
        return "".join(parts)

    def _pair(self, edge: Edge) -> str:
        first, second = self._graph.names[edge.first], self._graph.names[edge.second]
        said = f"probability {edge.probability:.2f}, {edge.inliers} inliers"
        return _figure(f"{one_line(first)} and {one_line(second)}: {said}", partial(self._drawn_pair, edge))

    def _drawn_pair(self, edge: Edge) -> npt.NDArray[np.uint8]:
        first, second = self._graph.names[edge.first], self._graph.names[edge.second]
        found = self._journal.found_of(edge.pair)
        images = self._read(first), self._read(second)
        nobody = Provenance("match-many", "", "fp32", "", "", (1, 1), (1, 1))
        refs = found.image0.ref(first), found.image1.ref(second)
        matches = MatchData(found.keypoints0, found.keypoints1, found.scores, *refs, {}, nobody)
        return draw_matches(*images, matches, max_lines=_LINES, max_height=_PAIR_HEIGHT)

    def _read(self, name: str) -> Image:
        return read_image(self._root / name, apply_exif=self._exif, max_pixels=self._most)

    def alone(self) -> str:
        names = [self._graph.names[index] for index in self._graph.alone]
        if not names:
            return ""
        figures = "".join(_figure(one_line(name), partial(self._thumbnail, name)) for name in names[:_THUMBNAILS])
        rest = names[_THUMBNAILS:_NAMES]
        more = "".join(f"<li>{html.escape(one_line(name))}</li>" for name in rest)
        more += f"<li>… {len(names) - _NAMES} more</li>" if len(names) > _NAMES else ""
        listed = f"<ul>{more}</ul>" if more else ""
        return f'<h2>Images without a partner</h2><div class="row">{figures}</div>{listed}'

    def _thumbnail(self, name: str) -> npt.NDArray[np.uint8]:
        picture = PILImage.fromarray(self._read(name).rgb())
        picture.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE))
        return np.asarray(picture)

    def failures(self) -> str:
        found = self._graph.failed_by
        return f"<h2>Failed pairs by reason</h2>{_table(dict(found))}" if found else ""


def _table(rows: dict[str, Any]) -> str:
    cells = (f"<tr><th>{html.escape(name)}</th><td>{html.escape(str(value))}</td></tr>" for name, value in rows.items())
    return f"<table>{''.join(cells)}</table>"


def _figure(caption: str, draw: Callable[[], npt.NDArray[np.uint8]]) -> str:
    """A picture with a caption. Whatever is wrong with one image concerns its picture only."""
    text = html.escape(caption)
    try:
        data = io.BytesIO()
        PILImage.fromarray(draw()).save(data, "JPEG", quality=_QUALITY)
    except (MatchRTError, OSError, MemoryError) as error:
        return f"<figure><figcaption>{text}: {html.escape(one_line(str(error)))}</figcaption></figure>"
    picture = base64.b64encode(data.getvalue()).decode("ascii")
    return f'<figure><img alt="{text}" src="data:image/jpeg;base64,{picture}"><figcaption>{text}</figcaption></figure>'
