"""`matchrt live` on a made video of known motion: what it finds, how well, how fast; and its memory over 10,000 frames.

    python bench/live_video.py [--engine FILE] [--frames 200] [--size 640x480] [--resize N] [--keyframe auto]
                               [--photographs A.jpg B.jpg …] [--json FILE]
    python bench/live_video.py --soak 10000 [--json FILE]

The video pans, zooms and turns over each photograph in turn (default: two parts of the package's), with a cut between
two of them and black frames within, before and after a cut. Every frame is matched, so the frames a second are what
the engine allows; the same video is then played with --realtime, where frames are dropped. The error of a frame is the
mean distance of its four corners from where they are, in pixels of a frame 640 wide; cuts, black frames and the first
frame are not among them.

--soak runs a video of so many frames of 128x96 through the engine of the tests that finds one match, with pictures,
lines, a page and a viewer, and prints the resident memory as it goes.

Exits 1 if a cut or black frame is missed or invented, or fewer than 95 % of the others are within 3 px; with --soak, if
memory grows by more than 32 MB after the first tenth.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from support.made_video import MadeVideo, make_video
from support.tiny_engines import tiny_engine

from matchrt.live.drawing import Painter
from matchrt.live.keyframes import Policy, Step, Tracker
from matchrt.live.matching import FramePairing
from matchrt.live.page import Page
from matchrt.live.report import Report
from matchrt.live.run import RunOptions, run_live
from matchrt.live.source import open_feed
from matchrt.runtime.bundled import DEFAULT_MODEL
from matchrt.runtime.matcher import Matcher
from matchrt.runtime.options import MatcherOptions

WITHIN_PX, SHARE, GROWTH = 3.0, 0.95, 32e6


def main() -> int:
    """Runs what the arguments say. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", default=DEFAULT_MODEL)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--size", default="640x480", help="width x height")
    parser.add_argument("--resize", type=int)
    parser.add_argument("--keyframe", default="auto")
    parser.add_argument("--photographs", nargs="+", type=Path)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--soak", type=int)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = soak(Path(folder), given.soak) if given.soak else measure(Path(folder), given)
    print(json.dumps(found, indent=2))
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0 if found["good"] else 1


def measure(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """The figures of one video."""
    width, height = map(int, given.size.split("x"))
    photographs = [cv2.imread(str(path)) for path in given.photographs] if given.photographs else None
    cut = -(-given.frames // (len(photographs) if photographs else 2))
    black = (cut // 3, cut // 3 + 1, cut - 1, cut, given.frames - 2)
    made = make_video(folder / "made.mp4", given.frames, (width, height), photographs, black)
    found: dict[str, Any] = {"frames": given.frames, "size": given.size, "cuts": made.cuts, "black": made.black}
    with Matcher(given.engine, MatcherOptions(resize=given.resize, threads=given.threads)) as matcher:
        found |= {"model": matcher.manifest.model, "cores": len(os.sched_getaffinity(0)), "load": os.getloadavg()[0]}
        for realtime in (False, True):
            pairing, lines = FramePairing(matcher), folder / "lines.jsonl"
            tracker = Tracker(pairing, Policy.parse(given.keyframe))
            options = RunOptions(folder / "out.mp4", lines, realtime=realtime)
            spent = time.process_time()
            outcome = run_live(open_feed(str(made.path)), tracker, Painter(given.engine), options)
            spent = time.process_time() - spent
            found["realtime" if realtime else "every frame"] = outcome.report.summary(
                outcome.error, outcome.stopped, pairing.whole_pairs
            )
            if not realtime:
                found["processor ms a frame"] = 1e3 * spent / max(outcome.report.frames, 1)
                found |= judge(made, outcome.report, [json.loads(line) for line in lines.read_text().splitlines()])
    return found


def judge(made: MadeVideo, report: Report, lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Whether all cuts and black frames were reported, and the errors of the other frames."""
    spans = itertools.chain(*(range(span.first, span.last + 1) for span in report.spans))
    errors = [error_of(made, line) for line in lines if line["frame"] not in (*made.black, *made.cuts, 0)]
    share = float(np.mean(np.array(errors) <= WITHIN_PX))
    exact = report.cuts == list(made.cuts) and sorted(spans) == list(made.black)
    return {
        "all cuts and black frames, and no others": exact,
        "share within 3 px": share,
        "corner error p50, p95": [float(np.quantile(errors, q, method="higher")) for q in (0.5, 0.95)],
        "good": exact and share >= SHARE,
    }


def error_of(made: MadeVideo, line: dict[str, Any]) -> float:
    """The corner error of a frame; a large number without a homography."""
    if line.get("homography") is None or made.scenes[line["keyframe"]] != made.scenes[line["frame"]]:
        return 1e9
    return made.corner_error(line["homography"], line["keyframe"], line["frame"]) * 640 / made.size[0]


def soak(folder: Path, frames: int) -> dict[str, Any]:
    """Resident memory over many frames, with all that a run can write and show."""
    made = make_video(folder / "made.avi", frames, (128, 96), black=range(0, frames, 97))
    seen: list[tuple[int, int]] = []

    def tell(step: Step, report: Report) -> None:
        if report.frames % max(frames // 20, 1) == 0:
            seen.append((report.frames, resident()))

    page = Page(0)
    watching = threading.Thread(target=watch, args=(page.address,), daemon=True)
    watching.start()
    try:
        with Matcher(tiny_engine(folder)) as matcher:
            tracker = Tracker(FramePairing(matcher))
            options = RunOptions(folder / "out.mp4", folder / "out.jsonl", page)
            outcome = run_live(open_feed(str(made.path)), tracker, Painter("tiny", 96), options, tell=tell)
    finally:
        page.close()
    growth = seen[-1][1] - seen[max(len(seen) // 10, 1) - 1][1]
    good = outcome.error is None and outcome.report.frames == frames and growth <= GROWTH
    return {"frames": outcome.report.frames, "resident MB": [(n, round(b / 1e6, 1)) for n, b in seen],
            "growth MB after a tenth": growth / 1e6, "seconds": outcome.report.seconds, "good": good}  # fmt: skip


def watch(address: str) -> None:
    """Takes pictures until the page closes."""
    with urllib.request.urlopen(address + "stream") as stream:
        while stream.read(65536):
            pass


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    sys.exit(main())
