"""Makes the picture of the README: the bundled model on the example pair, checked by a homography, 100 lines drawn.

python tools/make_readme_picture.py docs/matches.jpg
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from matchrt import Matcher
from matchrt.runtime.draw import draw_matches, save_picture

_IMAGES = Path(__file__).resolve().parents[1] / "examples" / "images"


def main(arguments: list[str]) -> int:
    """Writes the picture to the path that is named; the exit code."""
    if len(arguments) != 1:
        print("usage: python tools/make_readme_picture.py PICTURE", file=sys.stderr)
        return 2
    pair = _IMAGES / "cup_0.jpg", _IMAGES / "cup_1.jpg"
    with Matcher() as matcher:
        # Without the time that the call took, which is this machine's.
        matches = replace(matcher.match(*pair).verify("homography"), timings={})
    save_picture(arguments[0], draw_matches(*pair, matches, max_lines=100, max_height=320))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
