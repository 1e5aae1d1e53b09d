"""Parsing of sizes on the command line."""

from __future__ import annotations

from matchrt._util.text import shortened
from matchrt.errors import MatchRTError
from matchrt.manifest import Profile


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
