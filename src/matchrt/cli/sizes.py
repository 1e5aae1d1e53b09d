"""Parsing of sizes on the command line."""

from __future__ import annotations

from matchrt._util.text import shortened
from matchrt.errors import MatchRTError
from matchrt.manifest import PIXELS, FrameContract, Pixels, Profile

# The range that `--frames any` means: up to 4K, lying and standing.
_ANY = ((64, 64), (3840, 3840))


def parse_size(text: str, option: str, smallest: int = 1) -> tuple[int, int]:
    """(height, width) in pixels from `HxW`, or from one number for a square. Error: size-syntax.

    option: the option's name, for the error. smallest: the shortest side that is allowed, in pixels.
    """
    remedy = "Write 480x640, for example, or 560 for a square."
    try:
        size = _size(text)
    except ValueError as error:
        raise MatchRTError("size-syntax", f"{option} '{text}' is not a size HxW in pixels.", remedy) from error
    if min(size) < smallest:
        raise MatchRTError("size-syntax", f"{option} '{text}' has a side below {smallest} pixels.", remedy)
    return size


def parse_profile(text: str) -> Profile:
    """The sizes of a dynamic engine from `MIN,OPT,MAX`, each as in `parse_size`. Error: profile-syntax."""
    try:
        minimum, optimum, maximum = (_size(part) for part in text.split(","))
    except ValueError as error:
        raise MatchRTError(
            "profile-syntax",
            f"--dynamic '{text}' is not MIN,OPT,MAX.",
            "Write three sizes, for example 64x64,480x640,1280x1280.",
        ) from error
    return Profile(minimum, optimum, maximum)


def parse_frames(text: str | None, pixels: str | None) -> FrameContract | None:
    """The frames of an engine from `--frames` and `--pixels`; None if `text` is None.

    text: `HxW`, `HxW,HxW` for images of two sizes, or `HxW..HxW` or `any` for a range.
    pixels: one of `PIXELS`; None for rgb.
    Errors: frames-syntax, frames-pixels.
    """
    if text is None:
        if pixels is not None:
            raise MatchRTError("frames-syntax", "--pixels says how frames lie.", "Give --frames HxW too.")
        return None
    chosen = _pixels(pixels or "rgb")
    try:
        low, ranged, high = text.partition("..")
        if text == "any" or ranged:
            return FrameContract(chosen, None, *(_ANY if text == "any" else (_size(low), _size(high))))
        each = [_size(part) for part in text.split(",")]
        first, second = each * 2 if len(each) == 1 else each
        return FrameContract(chosen, (first, second))
    except ValueError as error:
        raise MatchRTError(
            "frames-syntax",
            f"--frames '{text}' is no size of frames.",
            "Write 1080x1920, 1080x1920,720x1280 for images of two sizes, 480x640..1080x1920 for a range, or any.",
        ) from error


def _pixels(name: str) -> Pixels:
    for known in PIXELS:
        if known == name:
            return known
    raise MatchRTError("frames-pixels", f"There are no pixels '{name}'.", f"Use one of {', '.join(PIXELS)}.")


def _size(text: str) -> tuple[int, int]:
    sides = [int(side) for side in text.lower().split("x")]
    height, width = sides * 2 if len(sides) == 1 else sides
    if min(height, width) < 1:
        raise ValueError(text)
    return height, width


def parse_batch(text: str) -> tuple[int, bool]:
    """The number of pairs in a run, and whether a run may have fewer, from `N` or `1..N`. Error: batch-range."""
    least, dots, most = text.rpartition("..")
    if most.isascii() and most.isdigit() and len(most) < 6 and (not dots or least == "1"):
        return int(most), bool(dots)
    raise MatchRTError(
        "batch-range",
        f"--batch '{shortened(text)}' is neither a number nor a range from 1.",
        "Write, for example, --batch 8 or --batch 1..8.",
    )
