"""Times engines for frames on a GPU beside the ordinary engine, and compares their matches.

    python bench/frames_gpu.py FOLDER [--runs 200] [--backend tensorrt_rtx] [--precision fp16]

FOLDER has fp32 ONNX engines with their manifests: `plain.onnx`, and any number of others for frames of one size, made
from it by `matchrt build plain.onnx --frames 1080x1920 --pixels rgb --output FOLDER/rgb.onnx`. All are built for the
backend, which takes a minute each, and run in turn on one pair. Times are medians in milliseconds:

- host, pinned, on GPU: `Matcher.match` as a user calls it, of arrays in ordinary host memory, in page-locked memory,
  and in GPU memory. The ordinary engine gets RGB, the others what their camera gives.
- upload, gpu, download: of the first, on the GPU's clock. `gpu` of an engine for frames less that of the ordinary one
  is what colours, resize and padding cost in the graph.
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
    pairs = {name: everywhere(engine, given[name]) for name, engine in engines.items()}
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for turn in range(runs + 20):
        for name, engine in engines.items():
            for what, spent in one_turn(engine, pairs[name]).items():
                if turn >= 20:
                    found[name, what].append(spent)
    columns = ("host", "pinned", "on GPU", "upload", "gpu", "download")
    print(f"{'engine':12}" + "".join(f"{what:>10}" for what in columns) + "   medians, ms")
    for name in engines:
        cells = (statistics.median(found[name, what]) if found[name, what] else float("nan") for what in columns)
        print(f"{name:12}" + "".join(f"{cell:10.3f}" for cell in cells))


def as_given(manifest: EngineManifest, pixels: Any) -> Any:
    """What a camera would give: RGB for the ordinary engine."""
    frames = manifest.input.frames
    return pixels if frames is None else to_frame(Image(pixels, "image"), frames)


def everywhere(engine: Matcher, given: list[Any]) -> dict[str, list[Any]]:
    """A pair by where it is."""
    pairs = {"host": given}
    if engine.session.asynchronous:
        import torch

        tensors = [torch.from_numpy(np.ascontiguousarray(array)) for array in given]
        pairs |= {
            "pinned": [each.pin_memory().numpy() for each in tensors],
            "on GPU": [each.cuda() for each in tensors],
        }
    return pairs


def one_turn(engine: Matcher, pairs: dict[str, list[Any]]) -> dict[str, float]:
    """A call as a user makes it for each place where the pair is."""
    spent: dict[str, float] = {}
    for place, pair in pairs.items():
        begun = time.perf_counter()
        matches = engine.match(*pair)
        spent[place] = (time.perf_counter() - begun) * 1e3
        if place == "host":
            spent |= {what: matches.timings[what] for what in ("upload", "gpu", "download") if what in matches.timings}
    return spent


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
