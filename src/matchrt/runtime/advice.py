"""What to try with a pair of which no sure match was found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from matchrt.manifest import EngineManifest
from matchrt.runtime.fit import MAX_ENLARGEMENT
from matchrt.runtime.matches import Matches
from matchrt.runtime.options import MatcherOptions
from matchrt.runtime.working_size import larger_side, usual_side

# Who reads it: somebody at the command line, in Python, or who sends requests to a service, which have no `resize`.
Reader = Literal["command", "python", "request"]


def advised(matches: Matches, manifest: EngineManifest, options: MatcherOptions, reader: Reader = "python") -> Matches:
    """The matches, with a verdict, and with advice if it is not `match`. Other arguments are those of `advise`.

    A verdict that they have stays. Raises nothing.
    """
    judged = matches if matches.judgement is not None else matches.judge()
    longest = max(matches.image0.height, matches.image0.width, matches.image1.height, matches.image1.width)
    return replace(judged, advice=() if judged.verdict == "match" else advise(manifest, options, reader, longest))


def advise(
    manifest: EngineManifest, options: MatcherOptions, reader: Reader = "python", longest: int | None = None
) -> tuple[str, ...]:
    """Options that find more matches in a hard pair, and that were not used: a sentence each. Raises nothing.

    manifest: of the engine. options: under which the pair was matched. reader: whose names of the options are used.
    longest: side of the pair's images, pixels; None for large ones. Small ones are not enlarged to any size.
    """
    found = []
    if options.effort != "high":
        more = _more_matches(manifest, options, reader)
        if longest is not None and longest * MAX_ENLARGEMENT <= usual_side(manifest, options):
            more.pop("resize", None)
        if more:
            found.append(f"Try {_named(more, reader)}: more matches, more of them wrong.")
        if options.rotate != "auto":
            found.append(f"Try {_named({'rotate': 'auto'}, reader)}: one of the images may be turned.")
        if options.zoom != "auto":
            found.append(f"Try {_named({'zoom': 'auto'}, reader)}: one of the images may show things much larger.")
        found.append(f"Try {_named({'effort': 'high'}, reader)}: it tries this step by step, and keeps the best.")
    return tuple(found)


def _named(values: Mapping[str, str | float], reader: Reader) -> str:
    if reader == "python":
        return f"MatcherOptions({', '.join(f'{name}={value!r}' for name, value in values.items())})"
    if reader == "request":
        return " and ".join(f"{name}={value}" for name, value in values.items())
    return " ".join(f"--{name.replace('_', '-')} {value}" for name, value in values.items())


def _more_matches(manifest: EngineManifest, options: MatcherOptions, reader: Reader) -> dict[str, str | float]:
    """The options for a larger size and weaker matches, as far as the engine and the reader have them."""
    larger, matching = larger_side(manifest, options), manifest.matching
    least = matching.default_score if options.min_score is None else options.min_score
    size = {} if larger is None or reader == "request" else {"resize": larger}
    score = {"min_score": float(f"{matching.threshold:g}")} if matching.threshold < least else {}
    return {**size, **score}
