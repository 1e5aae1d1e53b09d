"""Times engines for frames on a GPU beside the ordinary engine, and compares their matches.

    python bench/frames_gpu.py FOLDER [--runs 200] [--backend tensorrt_rtx] [--precision fp16]

FOLDER has fp32 ONNX engines with their manifests: `plain.onnx`, and any number of others for frames of one size, made
from it by `matchrt build plain.onnx --frames 1080x1920 --pixels rgb --output FOLDER/rgb.onnx`. All are built for the
backend, which takes a minute each, and run in turn on one pair. Times are medians in milliseconds:

- match: `Matcher.match` of arrays in ordinary host memory, as a user calls it.
- upload, gpu, download: of it, on the GPU's clock. What a frame in GPU memory costs is match less upload.
- pinned: the session's run on frames that lie in its own page-locked memory, where it lends that.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from matchrt import Matcher
from matchrt.bench.scene import image_pair
from matchrt.building.frames.engine import same_matches, seen_image
from matchrt.building.pipeline import BuildRequest, build
from matchrt.manifest import EngineManifest
from matchrt.runtime.frames import to_frame
from matchrt.runtime.image import Image
from matchrt.runtime.options import MatcherOptions
from matchrt.store import EngineStore


def main() -> None:
    """Builds the engines and measures them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--backend", default="tensorrt_rtx")
    parser.add_argument("--precision", default="fp16")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = EngineStore(Path(folder))
        engines = {}
        for path in sorted(arguments.folder.glob("*.onnx"), key=lambda path: (path.stem != "plain", path.stem)):
            begun = time.perf_counter()
            request = BuildRequest(str(path), backend=arguments.backend, precision=arguments.precision)
            engines[path.stem] = Matcher(build(request, store).path, MatcherOptions(min_score=0.0))
            print(f"{path.stem}: built and opened in {time.perf_counter() - begun:.0f} s", flush=True)
        measure(engines, arguments.runs)


def measure(engines: dict[str, Matcher], runs: int) -> None:
    """Runs the engines in turn and prints the medians."""
    frames = [each.manifest.input.frames for each in engines.values() if each.manifest.input.frames is not None]
    size = frames[0].largest[0] if frames else (1080, 1920)
    pair = image_pair(*size)[:2]
    given = {name: [as_given(engine.manifest, pixels) for pixels in pair] for name, engine in engines.items()}
    compare(engines, given, size)
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for turn in range(runs + 20):
        for name, engine in engines.items():
            for what, spent in one_turn(engine, given[name]).items():
                if turn >= 20:
                    found[name, what].append(spent)
    columns = ("match", "upload", "gpu", "download", "pinned")
    print(f"{'engine':12}" + "".join(f"{what:>10}" for what in columns) + "   medians, ms")
    for name in engines:
        cells = (statistics.median(found[name, what]) if found[name, what] else float("nan") for what in columns)
        print(f"{name:12}" + "".join(f"{cell:10.3f}" for cell in cells))


def as_given(manifest: EngineManifest, pixels: Any) -> Any:
    """What a camera would give: RGB for the ordinary engine."""
    frames = manifest.input.frames
    return pixels if frames is None else to_frame(Image(pixels, "image"), frames)


def one_turn(engine: Matcher, given: list[Any]) -> dict[str, float]:
    """One call as a user makes it, and one from the session's own memory."""
    begun = time.perf_counter()
    matches = engine.match(*given)
    spent = {"match": (time.perf_counter() - begun) * 1e3}
    spent |= {what: matches.timings[what] for what in ("upload", "gpu", "download") if what in matches.timings}
    staging = getattr(engine.session, "staging", None)
    if engine.manifest.input.frames is None or staging is None:
        return spent
    inputs = engine.adapter.inputs(*given)
    lent = staging({name: array.shape for name, array in inputs.items()})
    if lent is None:
        return spent
    for name, array in lent.items():
        np.copyto(array, inputs[name])
    begun = time.perf_counter()
    engine.session.run(inputs | dict(lent))
    return spent | {"pinned": (time.perf_counter() - begun) * 1e3}


def compare(engines: dict[str, Matcher], given: dict[str, list[Any]], size: tuple[int, int]) -> None:
    """Prints the share of the ordinary engine's matches that each engine for frames has."""
    plain = engines.get("plain")
    for name, engine in engines.items():
        if plain is None or engine.manifest.input.frames is None:
            continue
        expected = plain.match(*(seen_image(frame, engine.manifest) for frame in given[name]))
        same = same_matches(expected, engine.match(*given[name]), engine.manifest, (size, size))
        print(f"{name}: {same:.2%} of {len(expected)} matches of the ordinary engine within 0.05 px of its input")


if __name__ == "__main__":
    main()
