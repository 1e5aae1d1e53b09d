"""Compares engines for frames with images that the host resizes, on real pairs, in ONNX Runtime on the CPU.

    python bench/frames_vs_host.py ENGINE.onnx EVAL [--pairs 8] [--pixels rgb] [--range]

ENGINE is a static fp32 ONNX engine with its manifest, EVAL an evaluation folder. For each pair, frames of just these
two sizes are written into the engine's graph, or with --range frames of any size up to 4000 pixels, once for all pairs.
The table says how many of the host's matches the engine for frames has within 0.05 pixels of the network's input, and
the share of right matches of both ways, where it is known.
"""

from __future__ import annotations

import argparse
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from matchrt.bench.accuracy import AccuracyOptions, measure_pair
from matchrt.bench.folder import read_folder
from matchrt.bench.judging import MAIN_FIGURE
from matchrt.bench.pairs import JudgedPair, folder_pairs
from matchrt.building.frames.engine import same_matches, seen_image
from matchrt.building.frames.write import write_frames
from matchrt.engines.build import GraphFacts, build_engine
from matchrt.engines.onnxruntime import OnnxRuntimeBuilder
from matchrt.manifest import FrameContract, Pixels
from matchrt.runtime.adapter import PairAdapter
from matchrt.runtime.engine_file import EngineFile, read_engine
from matchrt.runtime.matches import Matches
from matchrt.runtime.opening import open_session
from matchrt.runtime.options import MatcherOptions
from matchrt.runtime.session import Session

OPTIONS = MatcherOptions(apply_exif=False)


def main() -> None:
    """Runs all pairs and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", type=Path)
    parser.add_argument("evaluation", type=Path)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--pixels", default="rgb")
    parser.add_argument("--range", action="store_true")
    arguments = parser.parse_args()
    plain = read_engine(arguments.engine)
    pairs = folder_pairs(read_folder(arguments.evaluation))
    chosen = [pairs[index] for index in np.linspace(0, len(pairs) - 1, arguments.pairs).astype(int)]
    ranged = FrameContract(arguments.pixels, None, (64, 64), (4000, 4000)) if arguments.range else None
    shared = open_session(with_frames(plain, ranged)) if ranged is not None else None
    print(f"{'pair':42}{'sizes':>24}{'matches':>9}{'same':>9}{'right, host':>13}{'frames':>9}")
    total, kept = 0, 0.0
    with closing(open_session(plain)) as host:
        for pair in chosen:
            found, same = one_pair(plain, host, shared, pair, arguments.pixels)
            total, kept = total + found, kept + same * found
    print(f"all: {kept / max(total, 1):.3%} of {total} matches")


def one_pair(
    plain: EngineFile, host: Session, shared: Session | None, pair: JudgedPair, pixels: Pixels
) -> tuple[int, float]:
    """Prints a line, and returns the number of the host's matches and the share of them that frames give too."""
    reader = PairAdapter(plain.manifest, OPTIONS)
    images = [reader.read(image) for image in (pair.image0, pair.image1)]
    step = 2 if pixels == "nv12" else 1
    images = [replace(image, pixels=_even(image.pixels, step)) for image in images]
    sizes = (images[0].height, images[0].width), (images[1].height, images[1].width)
    session = shared or open_session(with_frames(plain, FrameContract(pixels, sizes)))
    adapter = PairAdapter(session.manifest, OPTIONS)
    frames = [adapter.prepare(image, image.name, side) for side, image in enumerate(images)]
    found = run(session, adapter, frames)
    seen = [seen_image(frame.pixels, session.manifest) for frame in frames]
    expected = run(host, reader, [reader.prepare(image, f"image{side}", side) for side, image in enumerate(seen)])
    same = same_matches(expected, found, session.manifest, sizes)
    right = [measure_pair(pair.truth, each, AccuracyOptions()) for each in (expected, found)]
    figures = [f"{each[1][MAIN_FIGURE[each[0]]]:.3f}" if each[0] in MAIN_FIGURE else "" for each in right]
    told = " ".join(f"{height}x{width}" for height, width in sizes)
    print(f"{pair.truth.id[:40]:42}{told:>24}{len(expected):9}{same:9.2%}{figures[0]:>13}{figures[1]:>9}", flush=True)
    if shared is None:
        session.close()
    return len(expected), same


def _even(pixels: Any, step: int) -> Any:
    """The image cut to sides that are multiples of `step`."""
    height, width = pixels.shape[0] // step * step, pixels.shape[1] // step * step
    return np.ascontiguousarray(pixels[:height, :width])


def run(session: Session, adapter: PairAdapter, images: list[Any]) -> Matches:
    """The matches of two prepared images."""
    return adapter.matches((images[0], images[1]), session.run(adapter.inputs(*images)), {})


def with_frames(plain: EngineFile, frames: FrameContract) -> EngineFile:
    """The engine for frames, in memory."""
    manifest = plain.manifest
    model = onnx.load_model_from_string(plain.data)
    write_frames(model, manifest.input, frames)
    facts = GraphFacts(
        manifest.model, manifest.family, "fp32", manifest.source, replace(manifest.input, frames=frames),
        manifest.matching, manifest.passes, "0" * 64,
    )  # fmt: skip
    engine = build_engine(model.SerializeToString(), facts, OnnxRuntimeBuilder())
    return EngineFile(plain.path, engine.data, engine.manifest)


if __name__ == "__main__":
    main()
