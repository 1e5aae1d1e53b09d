"""A diagnosis as one HTML file that needs no other file."""

from __future__ import annotations

from html import escape

from matchrt.export.weights.diagnose import Diagnosis, PartFates
from matchrt.export.weights.report import GOOD

_COLOURS = {
    "loaded": "#2e7d32",
    "derived": "#66bb6a",
    "supplemented": "#1565c0",
    "dropped": "#90a4ae",
    "neighbour": "#b0bec5",
    "allowed-missing": "#fbc02d",
}
_BAD = "#c62828"
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a}
.bar{display:flex;height:1.1rem;background:#eee;border-radius:3px;overflow:hidden;min-width:16rem}
td,th{padding:.2rem .8rem .2rem 0;text-align:left;vertical-align:middle} code{background:#f4f4f4;padding:0 .2rem}
.verdict{padding:.8rem 1rem;border-left:6px solid} .n{text-align:right;font-variant-numeric:tabular-nums}
"""


def to_html(diagnosis: Diagnosis) -> str:
    """A page with the verdict, a bar for each part of both sides, near-misses and conflicts. Raises nothing."""
    colour = "#2e7d32" if diagnosis.explained else _BAD
    sections = [
        _parts("The network", diagnosis.network_parts),
        _parts("The checkpoint", diagnosis.file_parts),
        _parts("Beside the network", diagnosis.neighbour_parts),
        _parts("The second file", diagnosis.second_parts),
        _table(
            "Near-misses",
            ("in the file", "in the network", "what would map it"),
            [(miss.file, miss.network, miss.rule) for miss in diagnosis.near_misses],
        ),
        _table(
            "Conflicts",
            ("tensor", "shape", "fate"),
            [(e.key, str(list(e.shape)), f"{e.fate}: {e.detail}") for e in diagnosis.conflicts],
        ),
        _table("The same values", ("tensors",), [(", ".join(keys),) for keys in diagnosis.repeated]),
        _table(
            "Put aside",
            ("class or function", "objects"),
            [(entry.name, str(entry.objects)) for entry in diagnosis.checkpoint.put_aside],
        ),
    ]
    return (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{escape(diagnosis.path.name)}: "
        f"{escape(diagnosis.model)}</title><style>{_STYLE}</style><h1>{escape(diagnosis.path.name)}</h1>"
        f"<p class='verdict' style='border-color:{colour}'>{escape(diagnosis.verdict)}<br>"
        f"<code>{escape(diagnosis.next_command)}</code></p>{_notes(diagnosis.notes)}{_legend()}{''.join(sections)}</html>\n"
    )


def _notes(notes: tuple[str, ...]) -> str:
    return "".join(f"<p>{escape(note)}</p>" for note in notes)


def _legend() -> str:
    entries = (*_COLOURS.items(), ("unexplained", _BAD))
    return "<p>" + " ".join(f"<span style='color:{colour}'>■</span> {name}" for name, colour in entries) + "</p>"


def _parts(title: str, parts: tuple[PartFates, ...]) -> str:
    if not parts:
        return ""
    rows = "".join(
        f"<tr><td>{escape(part.name)}</td><td><div class='bar'>{_bar(part)}</div></td>"
        f"<td class='n'>{part.explained} of {part.total}</td><td>{escape(_told(part))}</td></tr>"
        for part in parts
    )
    return f"<h2>{title}</h2><table>{rows}</table>"


def _bar(part: PartFates) -> str:
    return "".join(
        f"<div style='width:{100 * count / part.total:.2f}%;background:{_COLOURS.get(fate, _BAD)}'></div>"
        for fate, count in sorted(part.fates.items(), key=lambda item: item[0] not in GOOD)
    )


def _told(part: PartFates) -> str:
    return ", ".join(f"{count} {fate}" for fate, count in part.fates.items())


def _table(title: str, head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    cells = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    names = "".join(f"<th>{escape(name)}</th>" for name in head)
    return f"<h2>{title}</h2><table><tr>{names}</tr>{cells}</table>"
