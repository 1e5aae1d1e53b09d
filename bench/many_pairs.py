"""Memory and time of `matchrt match-many` for lists of hundreds of thousands of pairs, a third of them bad.

    python bench/many_pairs.py [--pairs 200000] [--format parquet] [--engine ENGINE] [--json FILE]

What is measured is everything but the engine: its answer to the first pair is given for all pairs. The list is run
whole, and a hundredth of it, which shows what the process needs in any case. Exits 1 if the whole list needs 200 MB
more, or if its time for a pair is more than twice that of a tenth of the list.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from matchrt.cli.app import main as matchrt
from matchrt.runtime.matcher import Matcher
from matchrt.runtime.matches import Matches

_SIDE = 64
_EVERY_BAD = 3
_MOST_MEGABYTES = 200.0
_MOST_SLOWER = 2.0


def make_images(folder: Path, count: int) -> list[str]:
    """Overlapping crops of one smooth texture."""
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (40, 40), np.uint8)
    whole = cv2.resize(noise, (_SIDE + count, _SIDE + count), interpolation=cv2.INTER_CUBIC)
    names = [f"{index:04}.png" for index in range(count)]
    for index, name in enumerate(names):
        cv2.imwrite(str(folder / name), whole[index : index + _SIDE, index : index + _SIDE])
    return names


def write_list(path: Path, names: list[str], count: int) -> Path:
    """Pairs of the images, in each third of which the second one is missing under a name of its own."""
    good = (f"{one} {two}\n" for i, one in enumerate(names) for two in names[i + 1 :])
    lines = []
    for number in range(count):
        bad = number % _EVERY_BAD == 0
        lines.append(f"{names[number % len(names)]} missing/{number}.png\n" if bad else next(good))
    path.write_text("".join(lines), encoding="utf-8")
    return path


def measure(listing: Path, images: Path, output: Path, engine: str) -> dict[str, Any]:
    """Runs the list in a process of its own: peak memory in megabytes, seconds, and its report."""
    command = [sys.executable, __file__, "--child", str(listing), str(images), str(output), engine]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode != 2:  # because of the missing images
        raise RuntimeError(ran.stdout + ran.stderr)
    figures: dict[str, Any] = json.loads(ran.stderr.strip().splitlines()[-1])
    return {**figures, "report": json.loads(ran.stdout)}


def child(listing: str, images: str, output: str, engine: str) -> None:
    """The command, with one answer of the engine for all pairs."""
    match, answers = Matcher.match, []

    def same(self: Matcher, image0: Any, image1: Any, **options: Any) -> Matches:
        if not answers:
            answers.append(match(self, image0, image1, **options))
        return replace(answers[0], image0=image0.ref, image1=image1.ref)

    Matcher.match = same  # type: ignore[method-assign]
    sys.argv = ["matchrt", "match-many", listing, "--root", images, "--output", output, "--engine", engine, "--json"]
    sys.argv += ["--feature-cache", "0"]  # whole pairs, whose answer is the one that is given again
    start = time.perf_counter()
    try:
        matchrt()
    finally:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        sys.stderr.write(json.dumps({"megabytes": round(peak, 1), "seconds": time.perf_counter() - start}) + "\n")


def main() -> None:
    """Prints the three runs."""
    if sys.argv[1:2] == ["--child"]:
        child(*sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=200_000)
    parser.add_argument("--format", choices=("h5", "db", "parquet"), default="parquet")
    parser.add_argument("--engine", default="loftr-lite")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    arguments = parser.parse_args()
    runs = {}
    with tempfile.TemporaryDirectory() as work:
        names = make_images(Path(work) / "images", int((2 * arguments.pairs) ** 0.5) + 2)
        for share in (100, 10, 1):
            count = arguments.pairs // share
            listing = write_list(Path(work) / f"{count}.txt", names, count)
            output = Path(work) / str(count) / f"m.{arguments.format}"
            runs[count] = measure(listing, Path(work) / "images", output, arguments.engine)
            report = runs[count].pop("report")
            print(f"{count} pairs, {report['failed']} failed: {runs[count]}", flush=True)
    (least, few), (middle, some), (most, whole) = sorted(runs.items())
    more = whole["megabytes"] - few["megabytes"]
    a_pair = [(run["seconds"] - few["seconds"]) / (count - least) for count, run in ((middle, some), (most, whole))]
    slower = a_pair[1] / a_pair[0]
    print(f"{more:.0f} MB more than {least} pairs; a pair takes {slower:.2f} times as long as in a tenth of the list")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"runs": runs, "more_megabytes": more, "slower": slower}, indent=2) + "\n")
    sys.exit(1 if more > _MOST_MEGABYTES or slower > _MOST_SLOWER else 0)


if __name__ == "__main__":
    main()
