"""Accuracy of an engine that runs on another machine, such as a GPU that is lent without network or image files.

    python bench/elsewhere.py pack EVAL ENGINE.onnx pairs.npz           # here: the engine's inputs for every pair
    python bench/elsewhere.py run ENGINE pairs.npz outputs.npz          # there: needs the engine and the inputs only
    python bench/elsewhere.py judge EVAL ENGINE.onnx outputs.npz...     # here: accuracy, and the matches compared

The engines must have the same input contract. `judge` compares every outputs.npz with the first one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from matchrt.bench.accuracy import evaluate
from matchrt.bench.folder import EvalFolder, read_folder
from matchrt.manifest import EngineManifest
from matchrt.runtime.calling import CallingSession
from matchrt.runtime.engine_file import read_engine
from matchrt.runtime.matcher import Matcher
from matchrt.runtime.opening import open_session
from matchrt.runtime.options import MatcherOptions
from matchrt.runtime.session import Arrays, SessionOptions

Outputs = dict[str, npt.NDArray[Any]]
OPTIONS = MatcherOptions(apply_exif=False)  # the truth is given for the stored files


class Answering(CallingSession):
    """A session that gets its outputs from a function of the inputs."""

    def __init__(self, manifest: EngineManifest, answer: Callable[[Arrays], Outputs]) -> None:
        self.manifest = manifest
        self.answer = answer

    def run(self, inputs: Arrays) -> Outputs:
        """The answer."""
        return self.answer(inputs)

    def close(self) -> None:
        """Nothing to free."""


def digest(array: npt.NDArray[Any]) -> str:
    """Names an image by its pixels."""
    return hashlib.sha256(array.tobytes() + str(array.shape).encode()).hexdigest()[:24]


def pair_key(inputs: Arrays) -> str:
    """Names a run by its inputs."""
    return hashlib.sha256("".join(name + digest(inputs[name]) for name in sorted(inputs)).encode()).hexdigest()[:24]


def pack(folder: EvalFolder, engine: str, output: Path) -> None:
    """Every image once; every pair as the names of its inputs."""
    manifest = read_engine(engine).manifest
    arrays: dict[str, npt.NDArray[Any]] = {}
    runs: dict[str, dict[str, str]] = {}

    def record(inputs: Arrays) -> Outputs:
        names = {name: digest(array) for name, array in inputs.items()}
        arrays.update({names[name]: inputs[name] for name in inputs})
        runs[pair_key(inputs)] = names
        return {
            spec.name: np.zeros([int(side) for side in spec.shape], spec.dtype) for spec in manifest.outputs
        }  # fmt: skip

    matcher = Matcher(Answering(manifest, record), OPTIONS)
    for pair in (*folder.homography, *folder.pose, *folder.stereo, *folder.plain):
        matcher.match(pair.image0, pair.image1)
    np.savez_compressed(output, __runs__=np.array(json.dumps(runs)), **arrays)
    print(f"{len(runs)} pairs, {len(arrays)} arrays, {output.stat().st_size / 1e6:.1f} MB")


def run(engine: str, packed: Path, output: Path) -> None:
    """Runs every pair."""
    session = open_session(read_engine(engine), SessionOptions())
    found: dict[str, npt.NDArray[Any]] = {}
    with np.load(packed) as data:
        arrays = {name: data[name] for name in data.files if name != "__runs__"}
        runs = json.loads(str(data["__runs__"]))
    for key, names in runs.items():
        outputs = session.run({name: arrays[array] for name, array in names.items()})
        count = int(outputs["num_matches"][0])
        rows = [outputs[name][0, :count].reshape(count, -1) for name in ("keypoints0", "keypoints1", "scores")]
        found[key] = np.concatenate(rows, axis=1).astype(np.float32)
    np.savez_compressed(output, **found)
    print(f"{len(found)} pairs, {sum(len(rows) for rows in found.values())} matches, {engine}")


def judge(folder: EvalFolder, engine: str, files: list[Path]) -> None:
    """Accuracy of each, and its matches beside those of the first."""
    manifest = read_engine(engine).manifest
    slots = manifest.matching.max_matches
    every = {path.name: dict(np.load(path)) for path in files}
    for name, rows in every.items():

        def answer(inputs: Arrays, rows: Outputs = rows) -> Outputs:
            found = np.zeros((1, slots, 5), np.float32)
            matches = rows[pair_key(inputs)]
            found[0, : len(matches)] = matches
            count = np.array([len(matches)], np.int32)
            return {
                "keypoints0": found[..., :2], "keypoints1": found[..., 2:4], "scores": found[..., 4],
                "num_matches": count,
            }  # fmt: skip

        report = evaluate(Matcher(Answering(manifest, answer), OPTIONS).match, folder, name=name)
        print(json.dumps({name: report.to_json()["sets"]}, indent=1))
    first = next(iter(every.values()))
    for name, rows in list(every.items())[1:]:
        for least in (manifest.matching.threshold, manifest.matching.default_score):
            print(name, f"score >= {least}:", json.dumps(compare(first, rows, least)))


def compare(first: Outputs, second: Outputs, least: float) -> dict[str, float]:
    """Shares of the first's matches that the second has, by the point in image 0, within so many pixels."""
    distances: list[float] = []
    counts = [0, 0]
    for key, rows in first.items():
        mine, theirs = rows[rows[:, 4] >= least], second[key][second[key][:, 4] >= least]
        counts = [counts[0] + len(mine), counts[1] + len(theirs)]
        known = {(row[0], row[1]): row for row in theirs}
        for row in mine:
            other = known.get((row[0], row[1]))
            distances.append(np.inf if other is None else float(np.abs(row[2:4] - other[2:4]).max()))
    shares = {f"within_{limit}_px": float(np.mean(np.array(distances) <= limit)) for limit in (0.01, 0.1, 0.5, 1.0)}
    return {"matches": counts[0], "count_ratio": counts[1] / max(counts[0], 1), **shares}


def main() -> None:
    """Packs, runs or judges."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, arguments in {
        "pack": ("folder", "engine", "output"),
        "run": ("engine", "packed", "output"),
        "judge": ("folder", "engine"),
    }.items():
        command = commands.add_parser(name)
        for argument in arguments:
            command.add_argument(argument)
        if name == "judge":
            command.add_argument("files", nargs="+", type=Path)
    given = parser.parse_args()
    if given.command == "pack":
        pack(read_folder(Path(given.folder)), given.engine, Path(given.output))
    elif given.command == "run":
        run(given.engine, Path(given.packed), Path(given.output))
    else:
        judge(read_folder(Path(given.folder)), given.engine, given.files)


if __name__ == "__main__":
    main()
