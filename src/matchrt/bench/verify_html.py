"""A verification as one self-contained HTML file: verdict, figures, what they mean, limits, and the worst pairs."""

from __future__ import annotations

import base64
from html import escape

from matchrt._version import __version__
from matchrt.bench.gate import Limits, Verdict
from matchrt.bench.per_block import Sensitivity
from matchrt.bench.tables import Cells
from matchrt.bench.verify_report import sensitivity_table, verdict_line, verification_table, warp_line

_STYLE = """
:root{color-scheme:light dark;--line:#8884;--soft:#8882}
body{font:16px/1.55 system-ui,sans-serif;max-width:76rem;margin:2rem auto;padding:0 1.2rem}
h1{font-size:1.5rem;margin:0} h2{font-size:1.15rem;margin:2rem 0 .5rem} .sub{opacity:.75;margin:.2rem 0 1rem}
.verdict{padding:.8rem 1rem;border-left:6px solid;background:var(--soft);font-weight:600;border-radius:0 4px 4px 0}
.scroll{overflow-x:auto} table{border-collapse:collapse;font-variant-numeric:tabular-nums}
td,th{padding:.35rem .9rem;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
td:first-child,th:first-child{text-align:left;padding-left:0} th{font-weight:600} tr:last-child td{font-weight:600}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.25rem 1.2rem;margin:.5rem 0} dt{font-weight:600} dd{margin:0}
figure{margin:1rem 0} figcaption{margin-bottom:.3rem} img{max-width:100%;display:block;border-radius:4px}
@media(max-width:40rem){dl{grid-template-columns:1fr} dd{margin-bottom:.5rem}}
"""
_GOOD, _BAD, _OPEN = "#2e7d32", "#c62828", "#b26a00"
_COLUMNS = (
    ("set", "The group of pairs, by the folder or list that they come from; the last row is all of them."),
    ("pairs", "Number of image pairs that both engines matched."),
    ("matches", "Number of matches of the reference from the model's default score on: what users get."),
    (
        "within 0.5, 1, 3 px",
        "Share of the reference's matches for which the engine has one that is as near, in both images, in pixels of "
        "the images that were given.",
    ),
    ("count", "Number of the engine's matches, as a share of the reference's. 100 % is as many; more is no merit."),
    ("score rank", "Spearman's correlation of the scores of common matches: 1 if both rank them alike."),
    (
        "accuracy",
        "Share of the engine's matches within 3 px of the true place, and how much more or less that is than the "
        "reference's. Empty for pairs whose truth is not known.",
    ),
)
_PARTS = (
    ("part", "A part of the network that computes in the lower precision alone; the first row is all parts together."),
    ("layers", "Number of convolutions and matrix products in it."),
    ("lost within 1 px", "Share of the reference's matches that have none within 1 px any more."),
    ("count", "Number of matches, as a share of the reference's."),
)
_ABOUT = (
    "The reference is the fp32 engine of the same model. The figures say how far an engine is from it, not how "
    "good the model is: a wrong match that both have counts as kept. They hold for these pairs; others may lose more."
)


def to_html(verdict: Verdict | None, sensitivity: Sensitivity | None, pictures: list[tuple[str, bytes]]) -> str:
    """A page with the verdict, the tables and the worst pairs. pictures: captions and JPEG bytes."""
    parts = [] if verdict is None else _verdict(verdict)
    if sensitivity is not None:
        parts += [_table(sensitivity_table(sensitivity)), _meanings(_PARTS)]
    if pictures:
        parts.append("<h2>The worst pairs</h2><p>They keep the smallest share of the reference's matches.</p>")
    for caption, jpeg in pictures:
        image = base64.b64encode(jpeg).decode("ascii")
        source = f"data:image/jpeg;base64,{image}"
        text = escape(caption)
        parts.append(f"<figure><figcaption>{text}</figcaption><img src='{source}' alt='{text}'></figure>")
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>matchrt verify</title>"
        "<meta name='viewport' content='width=device-width,initial-scale=1'>"
        f"<style>{_STYLE}</style></head><body><h1>matchrt verify</h1>"
        f"<p class='sub'>matchrt {__version__}</p>{''.join(parts)}</body></html>\n"
    )


def _verdict(verdict: Verdict) -> list[str]:
    colour = _OPEN if not verdict.enough else _BAD if verdict.failures else _GOOD
    warp = warp_line(verdict)
    return [
        f"<p class='verdict' style='border-color:{colour}'>{escape(verdict_line(verdict))}</p>",
        "" if warp is None else f"<p>{escape(warp)}</p>",
        _table(verification_table(verdict)),
        f"<h2>What the columns mean</h2>{_meanings(_COLUMNS)}<p>{_ABOUT}</p>",
        f"<h2>What the gate asks</h2>{_meanings(_limits(verdict.limits, verdict))}",
    ]


def _limits(limits: Limits, verdict: Verdict) -> list[tuple[str, str]]:
    """The gate's limits as the figures that they are about and what is asked of them."""
    scores = ", and from ".join(f"{score:g}" for score in dict.fromkeys(verdict.verification.scores))
    rows = [("counted", f"Matches with a score from {scores} on; each count is judged.")]
    if verdict.verification.warp is None:
        rows.append(("within 1 px", f"At least {limits.kept:.0%} of the reference's matches."))
    else:
        warp = limits.warp
        asked = f"At least {warp.within:.0%} within 1 px, a median of at most {warp.median:g} px, "
        rows.append(("warp", f"{asked}certainties that differ by at most {warp.certainty:g} on average."))
    least, most = limits.count
    rows.append(("count", f"{least:.0%} to {most:.0%}."))
    rows.append(("accuracy", f"At most {limits.accuracy:.2f} less than the reference's, where truth is known."))
    return rows


def _meanings(rows: tuple[tuple[str, str], ...] | list[tuple[str, str]]) -> str:
    return f"<dl>{''.join(f'<dt>{escape(name)}</dt><dd>{escape(text)}</dd>' for name, text in rows)}</dl>"


def _table(cells: Cells) -> str:
    head = "".join(f"<th scope='col'>{escape(name)}</th>" for name in cells.headings)
    rows = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in cells.rows)
    return f"<h2>{escape(cells.title)}</h2><div class='scroll'><table><tr>{head}</tr>{rows}</table></div>"
