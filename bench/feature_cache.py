"""Pairs a second of `matchrt match-many` with each image's features computed once, beside whole pairs.

    python bench/feature_cache.py [--engine loftr-lite] [--images 40] [--window 10] [--size 480x640] [--runs 3]
                                  [--resize N] [--device cuda] [--cache 2GB] [--json FILE]

The images are overlapping crops of one of the package's photographs. Both kinds of run alternate, each in a process of
its own, and the time is that of matching alone: it starts with the first result, after engines are loaded. Processor
time is told too, since it says more on a machine that does other work. On ONNX
Runtime and OpenVINO the contents of both outputs must be equal; TensorRT chooses its kernels for each engine, so there
the share of matches within 1 px is printed instead. An engine for a GPU needs its parts:

    matchrt build eloftr --checkpoint FILE --backend tensorrt --precision fp16 --split --output eloftr.engine
    python bench/feature_cache.py --engine eloftr.engine
    python bench/feature_cache.py --engine eloftr.engine --calls 3

--calls N leaves out files and the journal, which may be slower than a GPU: one thread matches all pairs N times by
`Matcher.match` of prepared images, and N times by `Matcher.features` once an image and `match_features`, in turn.

Exits 1 if results differ where they must not.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from matchrt import Matcher, MatcherOptions
from matchrt.batch.journal import Journal
from matchrt.batch.results import unpack
from matchrt.cli.app import main as matchrt
from matchrt.runtime.bundled import photographs_folder

_NEAR = 1.0


@dataclass
class Kind:
    """Runs of one kind. rates: pairs a second of each. processor: pairs a second of processor time."""

    name: str
    options: tuple[str, ...]
    rates: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    digest: str = ""
    journal: Path | None = None


def make_images(folder: Path, count: int, size: tuple[int, int]) -> None:
    """Crops of a photograph that move by a few pixels from one to the next."""
    folder.mkdir()
    photograph = cv2.imread(str(sorted(photographs_folder().glob("*.jpg"))[0]))
    height, width = size
    whole = cv2.resize(photograph, (width + 4 * count, height + 2 * count), interpolation=cv2.INTER_AREA)
    for index in range(count):
        crop = whole[2 * index : 2 * index + height, 4 * index : 4 * index + width]
        cv2.imwrite(str(folder / f"{index:04}.png"), crop)


def child(arguments: list[str]) -> None:
    """The command; stderr gets the seconds between its first and its last result, and their number."""
    from matchrt.batch import run

    times: list[tuple[float, float]] = []
    record = run._record

    def timed(journal: Any, results: Any, before: Any, tell: Any) -> None:
        def watched() -> Any:
            for result in results:
                times.append((time.perf_counter(), time.process_time()))
                yield result

        record(journal, watched(), before, tell)

    run._record = timed  # type: ignore[assignment]
    sys.argv = ["matchrt", "match-many", *arguments]
    try:
        matchrt()
    finally:
        seconds, processor = (last - first for first, last in zip(times[0], times[-1], strict=True))
        told = {"seconds": seconds, "processor": processor, "pairs": len(times) - 1}
        sys.stderr.write(json.dumps(told) + "\n")


def run_once(kind: Kind, images: Path, folder: Path, common: list[str]) -> None:
    """Runs the command once, and notes its rate, the digest of its output, and where its journal is."""
    output = folder / f"{kind.name}-{len(kind.rates)}.h5"
    command = [sys.executable, __file__, "--child", str(images), "--output", str(output), "--json", "--digest"]
    ran = subprocess.run([*command, *common, *kind.options], capture_output=True, text=True, check=False)
    if ran.returncode:
        raise RuntimeError(ran.stdout + ran.stderr)
    report = json.loads(ran.stdout)
    if report["from_features"] != (kind.name == "features"):
        raise RuntimeError(f"{kind.name}: {report['why'] or 'pairs were matched from features'}")
    measured = json.loads(ran.stderr.strip().splitlines()[-1])
    kind.rates.append(measured["pairs"] / measured["seconds"])
    kind.processor.append(measured["pairs"] / measured["processor"])
    kind.digest, kind.journal = report["content_sha256"], folder / f"{output.name}.journal"


def near(one: Path, other: Path) -> float:
    """The share of a journal's matches that the other one has too, with both points within 1 px."""
    kept = total = 0
    with Journal(one) as first, Journal(other) as second:
        for (_, data), (_, others) in zip(first.matches(), second.matches(), strict=True):
            here, there = (np.hstack(unpack(packed)[:2]) for packed in (data, others))
            total += len(here)
            if len(there):
                distances = np.abs(here[:, None] - there[None]).max(axis=2).min(axis=1)
                kept += int((distances <= _NEAR).sum())
    return kept / max(1, total)


def by_calls(options: argparse.Namespace, images: Path) -> int:
    """The same comparison by calls of `Matcher` in this process."""
    settings = MatcherOptions(device=options.device, backend=options.backend, resize=options.resize, threads=1)
    rates: dict[str, list[float]] = {"whole": [], "features": []}
    with Matcher(options.engine, settings) as matcher:
        prepared = [matcher.prepare_image(path) for path in sorted(images.iterdir())]
        pairs = [
            (first, second)
            for first in range(len(prepared))
            for second in range(first + 1, min(first + 1 + options.window, len(prepared)))
        ]
        for turn in range(options.calls + 1):  # the first turn makes both ready, and does not count
            start = time.perf_counter()
            whole = [matcher.match(prepared[first], prepared[second]) for first, second in pairs]
            middle = time.perf_counter()
            features = [matcher.features(image) for image in prepared]
            parts = [matcher.match_features(features[first], features[second]) for first, second in pairs]
            end = time.perf_counter()
            del features
            if turn:
                rates["whole"].append(len(pairs) / (middle - start))
                rates["features"].append(len(pairs) / (end - middle))
                print(
                    f"whole {rates['whole'][-1]:8.2f} pairs/s, features {rates['features'][-1]:8.2f} pairs/s",
                    flush=True,
                )
    names = ("keypoints0", "keypoints1", "scores")
    same = all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for one, other in zip(whole, parts, strict=True)
        for name in names
    )
    ratio = statistics.median(rates["features"]) / statistics.median(rates["whole"])
    counts = sum(map(len, whole)), sum(map(len, parts))
    print(f"features / whole: {ratio:.2f}; equal bits: {same}; matches {counts[0]} and {counts[1]}")
    if options.json is not None:
        options.json.write_text(json.dumps(rates | {"ratio": ratio, "same": same}, indent=2) + "\n")
    return 0


def main() -> int:
    """Prints the rates of both kinds and their ratio."""
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2:])
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", default="loftr-lite")
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--window", type=int, default=10)
    parser.add_argument("--size", default="480x640", help="of the images, HEIGHTxWIDTH")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--resize", type=int)
    parser.add_argument("--calls", type=int, default=0)
    parser.add_argument("--device")
    parser.add_argument("--backend")
    parser.add_argument("--cache", default="2GB")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    height, width = (int(side) for side in options.size.split("x"))
    common = ["--engine", options.engine, "--window", str(options.window)]
    for name in ("resize", "device", "backend"):
        if getattr(options, name) is not None:
            common += [f"--{name}", str(getattr(options, name))]
    whole, features = Kind("whole", ("--feature-cache", "0")), Kind("features", ("--feature-cache", options.cache))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_images(folder / "images", options.images, (height, width))
        if options.calls:
            return by_calls(options, folder / "images")
        for _ in range(options.runs):
            for kind in (whole, features):
                run_once(kind, folder / "images", folder, common)
                told = f"{kind.rates[-1]:8.3f} pairs/s {kind.processor[-1]:8.3f} pairs/s of processor time"
                print(f"{kind.name:9} {told}", flush=True)
        assert whole.journal is not None and features.journal is not None
        same = whole.digest == features.digest
        share = 1.0 if same else near(whole.journal, features.journal)
    ratio = statistics.median(features.rates) / statistics.median(whole.rates)
    work = statistics.median(features.processor) / statistics.median(whole.processor)
    print(f"features / whole: {ratio:.2f}, of processor time {work:.2f}")
    print(f"equal bits: {same}; matches within {_NEAR} px: {share:.4%}")
    if options.json is not None:
        figures: dict[str, Any] = {kind.name: vars(kind)["rates"] for kind in (whole, features)}
        figures |= {"ratio": ratio, "work": work, "same": same, "near": share}
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    gpu = options.engine.endswith(".engine")
    return 0 if same or (gpu and share > 0.98) else 1


if __name__ == "__main__":
    sys.exit(main())
