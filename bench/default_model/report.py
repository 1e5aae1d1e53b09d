"""The figures of all methods as Markdown tables. "Ahead" is said only beyond the deviations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bench.default_model.protocol import DEGREES, ESTIMATORS, TRUE_SETS, Figure, ahead_in_pairs, aucs

Figures = Mapping[str, Any]
# What tables call the sets of changed photographs, and the value in a column.
CHANGED = {
    "rotation": "in-plane rotation, degrees",
    "zoom": "zoom",
    "blur": "blur, sigma in px",
    "noise": "noise, sigma in levels",
    "darkness": "less light, times",
    "inversion": "inversion",
    "colours": "false colours",
}


def rows_of(figures: Figures, *sets: str) -> list[dict[str, Any]]:
    """The rows of the pairs of some sets, in order."""
    return [row for row in figures["pairs"].values() if row["set"] in sets]


def within(figures: Figures, name: str, value: str | None = None) -> list[float]:
    """The shares within 3 px of a set's pairs."""
    return [row["within"] for row in rows_of(figures, name) if value in (None, row["value"])]


def poses(figures: Figures, estimator: str, near: bool) -> list[list[float]]:
    """The pose errors of the Reichstag's pairs, or of all near ones: for each pair, one for each seed."""
    chosen = [row for row in figures["pairs"].values() if row["near"]] if near else rows_of(figures, "reichstag")
    return [[math.inf if error is None else error for error in row[estimator]] for row in chosen]


def auc_table(methods: Mapping[str, Figures], near: bool) -> str:
    """AUC at 5, 10 and 20 degrees by both estimators, mean and deviation over seeds."""
    header = ["method", *(f"{estimator.upper()} @{d}" for estimator in ESTIMATORS for d in DEGREES)]
    body = []
    for name, figures in methods.items():
        found = [aucs(poses(figures, estimator, near), d) for estimator in ESTIMATORS for d in DEGREES]
        body.append([name, *(_with_deviation(figure) for figure in found)])
    return table(header, body)


def homography_table(methods: Mapping[str, Figures]) -> str:
    """Shares within 3 px, their standard errors over pairs, and mean numbers of matches."""
    header = ["method", "v_dogman", "matches", "synthetic", "matches"]
    body = []
    for name, figures in methods.items():
        cells = [name]
        for part in ("v_dogman", "synthetic"):
            counts = [row["matches"] for row in rows_of(figures, part)]
            cells += [
                _with_deviation(Figure.over_pairs(within(figures, part))),
                f"{Figure.over_pairs(counts).mean:.0f}",
            ]
        body.append(cells)
    return table(header, body)


def changed_table(methods: Mapping[str, Figures], name: str) -> str:
    """Mean shares within 3 px of a set of changed photographs, by the strength of the change."""
    first = next(iter(methods.values()))
    values = list(dict.fromkeys(row["value"] for row in rows_of(first, name)))
    body = []
    for method, figures in methods.items():
        shares = [Figure.over_pairs(within(figures, name, value)).mean for value in values]
        body.append([method, *(_share(share) for share in shares)])
    return table([CHANGED[name], *values], body)


def hard_table(methods: Mapping[str, Figures]) -> str:
    """Pairs of two modalities and others without truth that a homography explains, and verdicts."""
    header = ["method", "two modalities, of 14", "box in scene", "unrelated: match / doubtful / no match",
              "true: match / doubtful / no match"]  # fmt: skip
    body = []
    for name, figures in methods.items():
        modal, box = ([row["explained"] for row in rows_of(figures, part)] for part in ("multimodal", "box"))
        unrelated, true = rows_of(figures, "unrelated"), rows_of(figures, *TRUE_SETS)
        count = Figure.over_seeds([float(sum(seed)) for seed in zip(*modal, strict=True)])
        boxes = Figure.over_seeds([float(sum(seed)) for seed in zip(*box, strict=True)])
        body.append([name, f"{count.mean:.1f} ± {count.deviation:.1f}", "yes" if boxes.mean > 0.5 else "no",
                     _verdicts(unrelated), _verdicts(true)])  # fmt: skip
    return table(header, body)


def times_table(times: Mapping[str, Any], reference: str | None) -> str:
    """Medians of interleaved runs, milliseconds, and the ratio to one method's."""
    base = times.get(reference, {}).get("p50") if reference else None
    body = []
    for name, row in times.items():
        ratio = "" if base is None else f"{row['p50'] / base:.2f}"
        body.append([name, f"{row['p50']:.0f}", f"{row['fastest']:.0f}", ratio])
    return table(["method", "median, ms", "fastest, ms", f"times {reference}" if reference else ""], body)


def standing(methods: Mapping[str, Figures], ours: str) -> list[str]:
    """For each other method: where `ours` is ahead, level and behind, beyond the deviations."""
    lines = []
    for name, other in methods.items():
        if name == ours:
            continue
        places: dict[int, list[str]] = {1: [], 0: [], -1: []}
        mine = methods[ours]
        for part in ("v_dogman", "synthetic", *CHANGED):
            places[ahead_in_pairs(within(mine, part), within(other, part))].append(part)
        for near, label in ((False, "Reichstag"), (True, "near views")):
            for estimator in ESTIMATORS:
                for degrees in DEGREES:
                    one, two = (aucs(poses(f, estimator, near), degrees) for f in (mine, other))
                    place = 1 if one.ahead_of(two) else -1 if two.ahead_of(one) else 0
                    places[place].append(f"{label} {estimator.upper()} @{degrees}")
        words = {1: "ahead", 0: "level", -1: "behind"}
        parts = "; ".join(f"{words[k]}: {', '.join(v) or 'nowhere'}" for k, v in places.items())
        lines.append(f"- against {name}: {parts}.")
    return lines


def having(methods: Mapping[str, Figures], *sets: str) -> dict[str, Figures]:
    """The methods that were measured on all these sets."""
    return {name: figures for name, figures in methods.items() if all(rows_of(figures, part) for part in sets)}


def markdown(methods: Mapping[str, Figures], times: Mapping[str, Any], ours: str, reference: str | None) -> str:
    """All tables. ours: the method that the others are compared with. reference: the one that times are ratios to."""
    planes, posed = having(methods, "v_dogman", "synthetic"), having(methods, "reichstag", "motorcycle")
    parts = ["### Views of a plane: share of matches within 3 px", homography_table(planes)] if planes else []
    if posed:
        parts += ["### Reichstag, 45 pairs: AUC of the pose error", auc_table(posed, near=False)]
        parts += ["### Near views, 24 pairs: AUC of the pose error", auc_table(posed, near=True)]
    parts += ["### Changed photographs: share of matches within 3 px"]
    parts += [changed_table(chosen, name) for name in CHANGED if (chosen := having(methods, name))]
    hard = having(methods, "multimodal", "box", "unrelated")
    if hard:
        parts += ["### Hard pairs, and pairs that are none", hard_table(hard)]
    if times:
        parts += ["### Time of a pair of 480x640, two threads", times_table(times, reference)]
    whole = having(methods, *CHANGED, "v_dogman", "synthetic", "reichstag", "motorcycle")
    if ours in whole:
        parts += [f"### Where {ours} stands", "\n".join(standing(whole, ours))]
    return "\n\n".join(parts) + "\n"


def table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose first column is text."""
    lines = ["| " + " | ".join(header) + " |", "| --- |" + " ---: |" * (len(header) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in body])


def _with_deviation(figure: Figure) -> str:
    return f"{_share(figure.mean)} ± {_share(figure.deviation)}"


def _share(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


def _verdicts(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return "not run"
    counts = [sum(row["verdict"] == word for row in rows) for word in ("match", "doubtful", "no match")]
    return " / ".join(map(str, counts))
