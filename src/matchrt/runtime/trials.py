"""Matching a pair once more where it gives little: weaker matches, a larger size, image 1 turned, an image halved.

A pair is judged by its verdict. If that is `match`, by matches all over the images, nothing more is done: such pairs
cost the verdict alone. Otherwise the steps that the options allow follow one another until one gives plenty, and the
best of them is kept.

Quarter turns are looked for at half the size (`working_size.search_side`), and only the best one is matched at the
whole size. An engine of one size tries them at that size.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from matchrt.errors import MatchRTError
from matchrt.manifest import EngineManifest
from matchrt.runtime.adapter import ImageLike, PairAdapter
from matchrt.runtime.advice import advised
from matchrt.runtime.false_alarms import number_of_cells
from matchrt.runtime.fit import fit_image
from matchrt.runtime.gpu.arrays import on_gpu
from matchrt.runtime.image import stretch_together
from matchrt.runtime.match_data import Quarter
from matchrt.runtime.matches import Matches
from matchrt.runtime.options import MatcherOptions
from matchrt.runtime.preprocess import PreparedImage
from matchrt.runtime.turning import ChangedImage, matches_back
from matchrt.runtime.verdict import CELLS, NO_MATCH_TO
from matchrt.runtime.working_size import larger_side, search_side, usual_side

# Matches two images on the engine, prepared by the adapter that is given. Errors: those of `Matcher.match`.
Run = Callable[[PairAdapter, ImageLike, ImageLike], Matches]
# The likeliest first: photographs that were taken upright.
TURNS: tuple[Quarter, ...] = (90, 270, 180)
# How to ask for one run alone.
OFF = "rotate='off', zoom='off' and effort='normal'"
# Matches in so many different places are plenty (`verdict.Evidence.inliers`; a picture of 640x480 has 300 places). A
# photograph that is turned by 100 degrees still gives a few dozen, many of them wrong by some pixels. A narrow picture
# has fewer places: there, this share of them is plenty.
PLENTY, PLENTY_SHARE = 60, 1 / 3
# What a larger size may lack.
_TOO_LARGE = ("size-memory", "out-of-memory")


def first_options(options: MatcherOptions) -> MatcherOptions:
    """The options of a pair's first run. With `effort="high"` it gives all matches, and `Trials` chooses among them.

    Raises nothing.
    """
    if options.effort == "high" and options.min_score is None and options.sample is None:
        return replace(options, min_score=0.0)
    return options


def asked(options: MatcherOptions) -> dict[str, str]:
    """The options that ask for further runs, with their values. Raises nothing."""
    usual = MatcherOptions()
    return {
        name: value
        for name in ("rotate", "zoom", "effort")
        if (value := getattr(options, name)) not in ("off", getattr(usual, name))
    }


def require_images(options: MatcherOptions, *images: ImageLike) -> None:
    """Raises `option-range` if the options want to match a pair again, and its images cannot be turned or resized.

    These are images that were prepared before, and images on the GPU.
    """
    if not options.tries_more:
        return
    wanted = ", ".join(f"{name} is {value!r}" for name, value in asked(options).items())
    for image in images:
        if isinstance(image, PreparedImage):
            raise MatchRTError(
                "option-range",
                f"{wanted}, and '{image.ref.name}' was prepared before: it cannot be turned or resized again.",
                f"Pass the image itself, or use {OFF}.",
            )
        if on_gpu(image):
            raise MatchRTError(
                "option-range",
                f"{wanted}, which images on the GPU do not go through.",
                f"Turn them yourself, pass NumPy arrays, or use {OFF}.",
            )


def worth(matches: Matches) -> tuple[bool, float, float]:
    """Grows with the evidence that judged matches show the same thing. Raises nothing.

    Probabilities tell what is a match; among matches, which all are near 1, the number of false alarms tells more.
    """
    assert matches.judgement is not None
    alarms = -matches.judgement.log10_nfa
    return is_sure(matches), alarms if is_sure(matches) else matches.probability, alarms


def is_sure(matches: Matches) -> bool:
    """Whether the verdict of judged matches is `match`. Raises nothing."""
    return matches.verdict == "match"


def is_plenty(matches: Matches) -> bool:
    """Whether the verdict is `match`, and rests on matches in many places of the images. Raises nothing."""
    if matches.judgement is None or not is_sure(matches):
        return False
    places = min(number_of_cells((image.height, image.width), CELLS) for image in (matches.image0, matches.image1))
    return matches.judgement.evidence.inliers >= min(PLENTY, PLENTY_SHARE * places)


class Trials:
    """The further steps for pairs of the engine of `manifest`, as `options` ask for them. Threads may share one."""

    def __init__(self, manifest: EngineManifest, options: MatcherOptions) -> None:
        self._manifest, self._options = manifest, options

    def improved(self, first: Matches, image0: ImageLike, image1: ImageLike, run: Run) -> Matches:
        """The best matches of a pair, with their verdict, and with advice if it is not `match`.

        first: what the first run gave, under `first_options`. image0, image1: the images as given. run: matches them
            on the engine.

        The timings are those of the first run, and in milliseconds `judge`, the time of all verdicts, and `retry`, that
        of all further runs, if there were any. Errors: image-* of `as_image`, those of `run`.
        """
        search = _Search(self._manifest, self._options, run)
        found = search.best(first, image0, image1)
        matches = replace(
            found,
            # The images as they were given, with their own names and orientations.
            image0=first.image0,
            image1=first.image1,
            warnings=first.warnings,
            timings={**first.timings, **search.timings()},
        )
        return advised(matches, self._manifest, self._options)


# Long sides, pixels, at which a dynamic engine sees both images; None for the usual ones.
_Sides = tuple[int, int] | None


class _Search:
    """The steps for one pair."""

    def __init__(self, manifest: EngineManifest, options: MatcherOptions, run: Run) -> None:
        self._manifest, self._options, self._run = manifest, options, run
        self._start = time.perf_counter()
        self._judging, self._runs = 0.0, 0
        # What was found, by what the network saw: small pictures look the same to it at several sizes.
        self._found: dict[tuple[Any, ...], Matches] = {}

    def best(self, first: Matches, image0: ImageLike, image1: ImageLike) -> Matches:
        """The best of all steps up to the first that gives plenty."""
        best = self._judge(first)
        if is_plenty(best):
            return best
        plain = PairAdapter(self._manifest, self._options)
        pair = plain.decode(image0, "image0"), plain.decode(image1, "image1")
        if self._options.stretch == "same":
            pair = stretch_together(*pair)
        given = ChangedImage.given(pair[0]), ChangedImage.given(pair[1])
        self._found[self._seen(None, *given)] = best
        for step in self._steps(*given, is_sure(best)):
            best = max(best, step, key=worth)
            if is_plenty(step):
                break
        return best

    def timings(self) -> dict[str, float]:
        """Milliseconds of all verdicts, and of all further runs, if there were any."""
        spent = {"judge": self._judging}
        if self._runs:
            spent["retry"] = max((time.perf_counter() - self._start) * 1e3 - self._judging, 0.0)
        return spent

    def _steps(self, first: ChangedImage, second: ChangedImage, sure: bool) -> Iterator[Matches]:
        """The further runs. sure: whether the first one gave a match, if not plenty."""
        larger = larger_side(self._manifest, self._options) if self._options.effort == "high" else None
        if larger is not None:
            yield from self._if_it_fits((larger, larger), first, second)
        if self._options.turns:
            yield from self._turns(first, second, larger, sure)
        if self._options.zooms:
            yield from self._zooms(first, second, larger)

    def _turns(self, first: ChangedImage, second: ChangedImage, larger: int | None, sure: bool) -> Iterator[Matches]:
        """Image 1 turned: a search at a small size, and the likeliest turn at the usual and the larger one."""
        side, found = search_side(self._manifest, self._options), list[Matches]()
        for degrees in TURNS:
            turned = second.turned(degrees, self._manifest)
            found.append(self._at(None if side is None else (side, side), first, turned))
            if side is None:  # the usual size already
                yield found[-1]
            if is_plenty(found[-1]):
                break
        likeliest = max(found, key=worth)
        if likeliest.probability <= NO_MATCH_TO or (sure and not is_sure(likeliest)):
            return
        turned = second.turned(likeliest.provenance.turned1, self._manifest)
        if side is not None:
            yield self._at(None, first, turned)
        if larger is not None:
            yield from self._if_it_fits((larger, larger), first, turned)
        if is_sure(likeliest):
            yield likeliest  # coarser, but perhaps surer; what is doubtful at half the size is mostly chance

    def _zooms(self, first: ChangedImage, second: ChangedImage, larger: int | None) -> Iterator[Matches]:
        """Each image at half the size, and the other one at its usual and at the larger size."""
        side = search_side(self._manifest, self._options)
        if side is None:
            yield self._at(None, first.halved(), second)
            yield self._at(None, first, second.halved())
            return
        for other in (usual_side(self._manifest, self._options), larger):
            if other is not None:
                yield from self._if_it_fits((side, other), first, second)
                yield from self._if_it_fits((other, side), first, second)

    def _if_it_fits(self, sides: _Sides, first: ChangedImage, second: ChangedImage) -> Iterator[Matches]:
        try:
            yield self._at(sides, first, second)
        except MatchRTError as error:
            if error.code not in _TOO_LARGE:
                raise

    def _at(self, sides: _Sides, first: ChangedImage, second: ChangedImage) -> Matches:
        """The pair at other sizes, with its images changed."""
        seen = self._seen(sides, first, second)
        if seen not in self._found:
            self._runs += 1
            found = self._run(self._adapter(sides), first.image, second.image)
            self._found[seen] = self._judge(matches_back(found, first, second))
        return self._found[seen]

    def _seen(self, sides: _Sides, first: ChangedImage, second: ChangedImage) -> tuple[Any, ...]:
        """Equal for runs in which the network sees the same pixels."""
        usual, contract = usual_side(self._manifest, self._options), self._manifest.input
        fits = [
            # Engines for frames resize themselves, always to one size.
            None if contract.frames is not None else fit_image((one.image.height, one.image.width), contract, side)
            for one, side in zip((first, second), sides or (usual, usual), strict=True)
        ]
        return (*fits, first.fit, second.degrees, second.fit)

    def _judge(self, matches: Matches) -> Matches:
        """The matches that the user's options ask for; with `effort="high"` also all of them, if that is better."""
        start = time.perf_counter()
        usual = matches
        if first_options(self._options) is not self._options:
            usual = matches.filter(self._manifest.matching.default_score)
        best = usual.judge()
        if not is_plenty(best) and len(usual) < len(matches):
            best = max(best, matches.judge(), key=worth)
        self._judging += (time.perf_counter() - start) * 1e3
        return best

    def _adapter(self, sides: _Sides) -> PairAdapter:
        # Decoded images are stretched already.
        return PairAdapter(self._manifest, replace(first_options(self._options), stretch="none"), sides)
