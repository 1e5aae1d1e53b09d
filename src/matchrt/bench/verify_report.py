"""A verification as tables, as JSON, and as pictures of its worst pairs."""

from __future__ import annotations

import math
from io import BytesIO
from typing import Any

from matchrt.bench.agreement import Agreement
from matchrt.bench.gate import Verdict, judged_how
from matchrt.bench.judging import JUDGED, match_pairs
from matchrt.bench.per_block import Sensitivity
from matchrt.bench.tables import Cells
from matchrt.bench.verify import VerifiedPair, together_by_set
from matchrt.errors import MatchRTError
from matchrt.runtime.draw import draw_matches
from matchrt.runtime.preprocess import read_as
from matchrt.runtime.session import Session

_HEADINGS = (
    "set",
    "pairs",
    "matches",
    "within 0.5 px",
    "within 1 px",
    "within 3 px",
    "count",
    "score rank",
    "accuracy",
)


def verification_table(verdict: Verdict) -> Cells:
    """A row for each set of pairs, and one for all of them."""
    found = verdict.verification
    rows = [_row(name, part.pairs, part.agreement, part.accuracy) for name, part in together_by_set(found).items()]
    rows.append(_row("all", found.pairs, found.agreement, found.accuracy))
    return Cells(f"{found.engine} against {found.reference}", _HEADINGS, tuple(rows))


def _row(
    name: str, pairs: tuple[VerifiedPair, ...], agreement: Agreement, accuracy: tuple[float, float] | None
) -> tuple[str, ...]:
    # Of no matches, none can be lost: a share would prove nothing, nor would a count.
    shares = (f"{agreement.share(pixels):.2%}" if agreement.expected else "-" for pixels in (0.5, 1.0, 3.0))
    rank = f"{agreement.rank:.4f}" if math.isfinite(agreement.rank) else ""
    right = "" if accuracy is None else f"{accuracy[1]:.4f} ({accuracy[1] - accuracy[0]:+.4f})"
    count = f"{agreement.count_ratio:.2%}" if agreement.expected else "none before" if agreement.actual else "-"
    return name, str(len(pairs)), str(agreement.expected), *shares, count, rank, right


def sensitivity_table(sensitivity: Sensitivity) -> Cells:
    """A row for all parts together, then one for each part, the costliest first."""
    rows = [
        (cost.block, str(cost.products), f"{cost.lost:.2%}", f"{cost.count_ratio:.2%}")
        for cost in (sensitivity.whole, *sensitivity.blocks)
    ]
    title = (
        f"{sensitivity.precision} for {sensitivity.backend}, each part alone: {sensitivity.expected} matches of "
        f"{sensitivity.pairs} pairs"
    )
    return Cells(title, ("part", "layers", "lost within 1 px", "count"), tuple(rows))


def verdict_line(verdict: Verdict) -> str:
    """The gate's verdict in one line."""
    if not verdict.enough:
        return f"gate: no verdict, {verdict.too_few}"
    judged = f", judged {judged_how(verdict.where)}" if verdict.where else ""
    if verdict.failures:
        return f"gate: FAILED, {'; '.join(verdict.failures)}{judged}.{verdict.because}"
    return f"gate: passed{judged}"


def warp_line(verdict: Verdict) -> str | None:
    """How far the matches are from the reference's dense warp, in one line; None for networks without one."""
    warp = verdict.verification.warp
    if warp is None:
        return None
    return (
        f"warp: {warp.share(1.0):.2%} of {len(warp.distances)} matches within 1 px of the reference's, median "
        f"{warp.median:.3f} px, certainties differ by {warp.certainty:.4f} on average"
    )


def to_json(verdict: Verdict | None, sensitivity: Sensitivity | None) -> dict[str, Any]:
    """A verdict and a sensitivity as JSON values; None for what was not measured."""
    found: dict[str, Any] = {}
    if verdict is not None:
        gate = {"passed": not verdict.failures, "failures": list(verdict.failures), "judged": verdict.where}
        gate["reason"] = verdict.reason
        found |= {**verdict.verification.to_json(), "gate": gate}
    if sensitivity is not None:
        found["per_block"] = sensitivity.to_json()
    return found


def worst_pictures(verdict: Verdict, reference: Session, engine: Session, count: int) -> list[tuple[str, bytes]]:
    """Matches the `count` worst pairs again with both engines and draws them: captions and JPEG bytes.

    Errors: those of `match_pairs`.
    """
    from PIL import Image

    found = []
    for pair in verdict.verification.worst(count):
        images = [read_as(value, "array", JUDGED) for value in (pair.pair.image0, pair.pair.image1)]
        for name, session in ((verdict.verification.reference, reference), (verdict.verification.engine, engine)):
            (given,) = match_pairs(session, [pair.pair], lambda: None)
            if isinstance(given, MatchRTError):
                continue
            matches = given.filter(session.manifest.matching.default_score)
            buffer = BytesIO()
            Image.fromarray(draw_matches(images[0], images[1], matches, max_height=320)).save(
                buffer, "JPEG", quality=85
            )
            caption = f"{pair.pair.truth.id}, {name}: {len(matches.scores)} matches"
            kept = f"{pair.agreement.share(1.0):.1%} of the reference's within 1 px"
            found.append((f"{caption}; {kept}", buffer.getvalue()))
    return found
