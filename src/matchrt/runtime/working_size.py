"""The sizes at which an engine can see the images of a pair: its usual one, a larger one, and a small one for a search.

All are long sides in pixels.
"""

from __future__ import annotations

from matchrt.manifest import EngineManifest
from matchrt.runtime.options import MatcherOptions
from matchrt.runtime.preprocess import best_side

# A larger size has so many times the side: 1.7 times the pixels, and 2.9 times the matrix of all cells.
_LARGER = 1.3
# In a search, the side is so much smaller, but never below this many pixels.
_SMALLER, _SMALLEST = 0.5, 320


def usual_side(manifest: EngineManifest, options: MatcherOptions) -> int:
    """The long side at which a dynamic engine sees the images under these options. Raises nothing."""
    return options.resize or best_side(manifest)


def larger_side(manifest: EngineManifest, options: MatcherOptions) -> int | None:
    """A larger side than the usual one; None if the engine has one size, or takes no larger images, or one was given.

    Raises nothing.
    """
    profile = manifest.input.profile
    if profile is None or options.resize is not None:
        return None
    usual, step = usual_side(manifest, options), manifest.input.divisor
    wanted = min(round(usual * _LARGER / step) * step, max(profile.maximum))
    return wanted if wanted > usual else None


def search_side(manifest: EngineManifest, options: MatcherOptions) -> int | None:
    """A smaller side than the usual one, for a cheap search; None if the engine has one size. Raises nothing."""
    profile = manifest.input.profile
    if profile is None:
        return None
    usual, step = usual_side(manifest, options), manifest.input.divisor
    wanted = max(round(usual * _SMALLER / step) * step, _SMALLEST, *profile.minimum)
    return wanted if wanted < usual else None
