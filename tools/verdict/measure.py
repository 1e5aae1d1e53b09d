"""Matches the pairs of `make_pairs`, or the evaluation's, and keeps the matches, so that fitting needs no network.

    python -m tools.verdict.measure PAIRS --engine loftr-lite
    python -m tools.verdict.measure OUT --engine loftr-lite --eval EVALUATION

The matches of a pair are in PAIRS/ENGINE/ID.npz. Pairs that have matches there are left out, so a run can go on.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path
from typing import Any

from matchrt import Matcher, MatcherOptions
from tools.verdict.evaluation import evaluation_pairs


def listed(folder: Path, evaluation: Path | None) -> list[dict[str, Any]]:
    """The rows of the pairs with the paths of their images; those of an evaluation are written to the folder first."""
    if evaluation is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "pairs.json").write_text(json.dumps(evaluation_pairs(evaluation), indent=0))
    rows: list[dict[str, Any]] = json.loads((folder / "pairs.json").read_text())
    for row in rows:
        row.setdefault("image0", str(folder / f"{row['id']}_0.png"))
        row.setdefault("image1", str(folder / f"{row['id']}_1.png"))
    return rows


def matches_folder(folder: Path, engine: str) -> Path:
    """Where the matches of an engine are kept."""
    return folder / Path(engine).stem


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pairs", type=Path, help="folder of the pairs")
    parser.add_argument("--engine", default="loftr-lite", help="what `matchrt match --engine` takes")
    parser.add_argument("--eval", type=Path, help="folder with homography/, pose/, nogt/ and so on")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--part", type=int, nargs=2, default=(0, 1), metavar=("K", "N"), help="only each N-th, from K")
    parser.add_argument("--sample", type=int, help="of dense networks: matches drawn from the warp")
    parser.add_argument("--resize", type=int)
    arguments = parser.parse_args()
    rows = listed(arguments.pairs, arguments.eval)[arguments.part[0] :: arguments.part[1]]
    random.Random(0).shuffle(rows)  # so that a run that was cut short has some of all kinds
    folder = matches_folder(arguments.pairs, arguments.engine)
    folder.mkdir(exist_ok=True)
    options = MatcherOptions(threads=arguments.threads, sample=arguments.sample, resize=arguments.resize)
    with Matcher(arguments.engine, options) as matcher:
        start = time.perf_counter()
        for number, row in enumerate(rows):
            target = folder / f"{row['id']}.npz"
            if not target.exists():
                matcher.match(row["image0"], row["image1"]).save(target)
            if number % 50 == 49:
                print(f"{number + 1} of {len(rows)} in {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
