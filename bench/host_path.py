"""The host's part of a call: main's source tree and this one, in turn, on an engine that answers at once.

python bench/host_path.py --against OTHER/src            # two trees, A B A B, one line for each case
python bench/host_path.py --against OTHER/src --json     # all numbers

Each tree runs in a process of its own, which is told over a pipe what to measure next. So both see the same machine at
the same time. The engine is a fake one that returns fixed matches: what remains is decoding, colours, resize, padding
and the making of `Matches`. OTHER/src must be a source tree of matchrt, such as that of a git worktree.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parents[1] / "src"
SIZES = {"640x480": (480, 640), "1280x720": (720, 1280), "1920x1080": (1080, 1920)}
# A grey engine of LoFTR's size, and RoMa's, which takes two bicubic sizes of each image.
GREY, ROMA = "loftr-lite 480x640", "RoMa 560, 864"


def cases(folder: Path) -> dict[str, Callable[[], Any]]:
    """What is measured, by name. folder: for files. Each call returns the fake engine's matches."""
    from PIL import Image

    from matchrt.bench.scene import image_pair

    made: dict[str, Callable[[], Any]] = {}
    grey, bgr, roma = _matcher(GREY), _matcher(GREY, channel_order="bgr"), _matcher(ROMA)
    for name, size in SIZES.items():
        pair = image_pair(*size)[:2]
        made[f"{GREY}, RGB {name}"] = lambda p=pair: grey.match(*p)  # type: ignore[misc]
        made[f"{GREY}, BGR {name}"] = lambda p=pair: bgr.match(*p)  # type: ignore[misc]
        if name != "1280x720":
            made[f"{ROMA}, RGB {name}"] = lambda p=pair: roma.match(*p)  # type: ignore[misc]
        paths = [folder / f"{name}-{index}.jpg" for index in (0, 1)]
        for path, pixels in zip(paths, pair, strict=True):
            Image.fromarray(pixels).save(path, quality=90)
        made[f"{GREY}, JPEG {name}"] = lambda p=paths: grey.match(*p)  # type: ignore[misc]
    prepared = [grey.prepare_image(pixels) for pixels in image_pair(480, 640)[:2]]
    made[f"{GREY}, prepared"] = lambda: grey.match(*prepared)
    return made


def _matcher(kind: str, **options: Any) -> Any:
    from matchrt.manifest import InputContract, TensorSpec
    from matchrt.runtime.calling import CallingSession
    from matchrt.runtime.engine_file import read_engine
    from matchrt.runtime.matcher import Matcher
    from matchrt.runtime.options import MatcherOptions

    bundled = read_engine("loftr-lite").manifest
    contract = InputContract(1, 8, "letterbox", "area-linear", height=480, width=640)
    if kind == ROMA:
        contract = InputContract(3, 8, "stretch", "bicubic", height=864, width=864, coarse=(560, 560))
    sides = {"image": (contract.height, contract.width), "coarse": contract.coarse}
    inputs = tuple(
        TensorSpec(f"{name}{index}", "uint8", (1, *size, contract.channels))
        for name, size in sides.items()
        if size is not None
        for index in (0, 1)
    )
    slots = bundled.matching.max_matches
    random = np.random.default_rng(0)
    points = random.random((2, 1, slots, 2), np.float32) * 400
    scores = np.sort(random.random((1, slots), np.float32))[:, ::-1].copy()
    answer = {"keypoints0": points[0], "keypoints1": points[1], "scores": scores, "num_matches": np.array([1500])}

    class Instant(CallingSession):
        """An engine that answers at once. Its backend is one that does not ask for free memory before each run."""

        manifest = replace(bundled, input=contract, inputs=inputs, backend="tensorrt_rtx")

        def run(self, given: Any) -> dict[str, Any]:
            """The same matches for any images."""
            return dict(answer)

        def close(self) -> None:
            """Nothing to close."""

    return Matcher(Instant(), MatcherOptions(**options))


def serve() -> None:
    """The process of one tree: reads a line with a case's name and a number of calls, and answers with their times."""
    with tempfile.TemporaryDirectory() as folder:
        known = cases(Path(folder))
        print(json.dumps(list(known)), flush=True)
        for line in sys.stdin:
            name, count = json.loads(line)
            times = []
            for _ in range(count):
                start = time.perf_counter()
                known[name]()
                times.append((time.perf_counter() - start) * 1e3)
            print(json.dumps(times), flush=True)


class Tree:
    """The process of one source tree."""

    def __init__(self, source: Path) -> None:
        command, pipe = [sys.executable, __file__, "--serve"], subprocess.PIPE
        environment = {**os.environ, "PYTHONPATH": str(source)}
        self._process = subprocess.Popen(command, env=environment, text=True, stdin=pipe, stdout=pipe)
        assert self._process.stdout is not None
        self.cases: list[str] = json.loads(self._process.stdout.readline())

    def times(self, case: str, count: int) -> list[float]:
        """Milliseconds of `count` calls."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps([case, count]) + "\n")
        self._process.stdin.flush()
        found: list[float] = json.loads(self._process.stdout.readline())
        return found

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, help="the other source tree")
    parser.add_argument("--rounds", type=int, default=15, help="how often each tree has its turn")
    parser.add_argument("--calls", type=int, default=4, help="calls in a turn, of which the first does not count")
    parser.add_argument("--json", action="store_true", help="print all numbers")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve:
        serve()
        return
    if chosen.against is None:
        parser.error("--against is needed")
    trees = {"before": Tree(chosen.against.resolve()), "now": Tree(HERE)}
    try:
        results = {}
        for case in trees["now"].cases:
            times: dict[str, list[float]] = {name: [] for name in trees}
            for _ in range(chosen.rounds):
                for name, tree in trees.items():
                    times[name] += tree.times(case, chosen.calls)[1:]
            results[case] = {
                name: {"p50": float(np.median(found)), "fastest": min(found), "p90": float(np.percentile(found, 90))}
                for name, found in times.items()
            }
            if not chosen.json:
                cells = (f"{figures['p50']:.2f} ({figures['fastest']:.2f})" for figures in results[case].values())
                print(f"| {case} | {' | '.join(cells)} |", flush=True)
    finally:
        for tree in trees.values():
            tree.close()
    if chosen.json:
        print(json.dumps({"load": os.getloadavg()[0], "cores": len(os.sched_getaffinity(0)), "ms": results}, indent=2))


if __name__ == "__main__":
    main()
