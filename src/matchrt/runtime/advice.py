"""What to try with a pair of which no sure match was found."""

from __future__ import annotations

from dataclasses import replace

from matchrt.manifest import EngineManifest
from matchrt.runtime.matches import Matches
from matchrt.runtime.options import MatcherOptions
from matchrt.runtime.working_size import larger_side


def advised(matches: Matches, manifest: EngineManifest, options: MatcherOptions) -> Matches:
    """The matches, with a verdict, and with advice if it is not `match`. Arguments are those of `advise`.

    A verdict that they have stays. Raises nothing.
    """
    judged = matches if matches.judgement is not None else matches.judge()
    return replace(judged, advice=() if judged.verdict == "match" else advise(manifest, options))


def advise(manifest: EngineManifest, options: MatcherOptions) -> tuple[str, ...]:
    """Options that find more matches in a hard pair, and that were not used: a sentence each. Raises nothing.

    manifest: of the engine. options: under which the pair was matched.
    """
    found = []
    if options.effort != "high":
        more = _more_matches(manifest, options)
        if more:
            found.append(f"Try {more}: more matches, more of them wrong.")
        if options.rotate == "off":
            found.append("Try --rotate auto: one of the images may be turned.")
        if options.zoom == "off":
            found.append("Try --zoom auto: one of the images may show things much larger.")
        found.append("Try --effort high: it tries this step by step, and keeps the best.")
    return tuple(found)


def _more_matches(manifest: EngineManifest, options: MatcherOptions) -> str:
    """The options for a larger size and weaker matches; empty if the engine gives neither."""
    larger, matching = larger_side(manifest, options), manifest.matching
    least = matching.default_score if options.min_score is None else options.min_score
    size = "" if larger is None else f"--resize {larger}"
    score = f"--min-score {matching.threshold:g}" if matching.threshold < least else ""
    return f"{size} {score}".strip()
